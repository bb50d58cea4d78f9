"""Build a network from its Architecture, or refuse with the reason."""

from __future__ import annotations

from space.architecture import Architecture
from space.canonical import Context
from space.cascade import Cascade
from space.feasible import why_not
from space.unet import UNet

Network = UNet | Cascade


class Refused(ValueError):
    """A network that can't be built for this patch; the message gives the reason."""


def build(architecture: Architecture, context: Context) -> Network:
    """Build the network with fresh weights. Raises Refused before anything is allocated."""
    reason = why_not(architecture, context)
    if reason:
        raise Refused(reason)
    if architecture.get("stages") == "cascade":
        return Cascade(architecture, context)
    return UNet(architecture, in_channels=context.in_channels, classes=context.classes, patch=context.patch)
