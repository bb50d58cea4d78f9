"""Training schemes of more than one patch or network: meU-net's two patches, and its cascade.

Source: blocks/meunet.py. `stages` is `two-patch` (with `expansion`, the expanded patch's factor) or `cascade`
(`cascade.first`: its first networks, by their own expansions); an architecture without it has a single stage.
"""

from __future__ import annotations

from dataclasses import replace

from space.architecture import Architecture
from space.canonical import Context


def first_architecture(architecture: Architecture, expansion: float) -> Architecture:
    """Return a cascade's first network: the same U, trained on two patches of this expansion (1: on one)."""
    values = {name: value for name, value in architecture.entries if not name.startswith(("cascade.", "stages"))}
    if expansion > 1:
        values |= {"stages": "two-patch", "expansion": expansion, "deep_supervision": False}
    return Architecture.of(values)


def prediction_channels(architecture: Architecture, *, classes: int) -> int:
    """Return how many of a second network's input channels are first predictions, one-hot with the background's."""
    return len(architecture["cascade.first"]) * classes if architecture.get("stages") == "cascade" else 0


def second_context(architecture: Architecture, context: Context) -> Context:
    """Return what a cascade's second network is built for: the image's channels, then the first predictions'."""
    predicted = prediction_channels(architecture, classes=context.classes)
    return replace(context, in_channels=context.in_channels + predicted)


def prediction_levels(architecture: Architecture) -> tuple[int, ...]:
    """Return the decoder levels that predictions join (post-concatenation); with `pre` the encoder takes them in."""
    if architecture.get("stages") != "cascade" or architecture["cascade.join"] == "pre":
        return ()
    return tuple(architecture["cascade.levels"])


def why_not_stages(architecture: Architecture) -> str | None:
    """Return why this training scheme doesn't fit the rest of the network; None where it does."""
    if architecture.get("stages") == "cascade":
        if not architecture["cascade.first"]:
            return "a cascade has one first network or more"
        if architecture["encoder"] == "unetrpp" and max(prediction_levels(architecture), default=0) > 0:
            return "unetrpp has no decoder unit below full resolution that predictions could join: finest, or pre"
        firsts = (first_architecture(architecture, expansion) for expansion in architecture["cascade.first"])
        return next((why for first in firsts if (why := why_not_stages(first))), None)
    if architecture.get("stages") == "two-patch" and architecture.get("downsampling") != "max":
        if "downsampling" not in dict(architecture.entries):
            return f"two-patch training needs a second level that reads the first: {architecture['encoder']} has none"
        return "two-patch training pools its first level's features: it needs downsampling max"
    return None
