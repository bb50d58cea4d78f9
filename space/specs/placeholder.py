"""Placeholders for plug-in blocks whose code is not loaded, so that the rest of a network can still be shown."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from space.architecture import Architecture
from space.specs.registry import registered, unloaded_blocks
from space.specs.spec import BlockSpec


class Placeholder(nn.Module):
    """Returns its input (B, C, D, H, W), whose shape every block keeps; has no parameters."""

    def __init__(self, channels: int, **options: object) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        """Shape (B, C, D, H, W), unchanged."""
        return x


@contextmanager
def placeholders(architecture: Architecture) -> Iterator[None]:
    """Within the context, build each plug-in block that is not loaded as a Placeholder named after it."""
    missing = unloaded_blocks(architecture)
    with registered([BlockSpec(name, type(name, (Placeholder,), {}), code=code) for name, code in missing]):
        yield
