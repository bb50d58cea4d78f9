"""Training schemes with more than one patch or network: meU-net's two patches, and its cascade.

Source: blocks/meunet.py. `stages` is `two-patch` (with `expansion`, the factor of the expanded patch) or `cascade`
(with `cascade.first`, the expansion of each first network). An architecture without `stages` has a single stage.
"""

from __future__ import annotations

from dataclasses import replace

from space.architecture import Architecture
from space.canonical import Context


def first_architecture(architecture: Architecture, expansion: float) -> Architecture:
    """Return a cascade's first network: the same U, trained on two patches of this expansion (1: on a single patch)."""
    values = {name: value for name, value in architecture.entries if not name.startswith(("cascade.", "stages"))}
    if expansion > 1:
        values |= {"stages": "two-patch", "expansion": expansion, "deep_supervision": False}
    return Architecture.of(values)


def prediction_channels(architecture: Architecture, *, classes: int) -> int:
    """Return how many input channels of a second network are one-hot first predictions, including background."""
    return len(architecture["cascade.first"]) * classes if architecture.get("stages") == "cascade" else 0


def second_context(architecture: Architecture, context: Context) -> Context:
    """Return the context of a cascade's second network: its input is the image's channels, then first predictions."""
    predicted = prediction_channels(architecture, classes=context.classes)
    return replace(context, in_channels=context.in_channels + predicted)


def prediction_levels(architecture: Architecture) -> tuple[int, ...]:
    """Return the decoder levels that predictions join (`post`); empty with `pre`, where they join the image."""
    if architecture.get("stages") != "cascade" or architecture["cascade.join"] == "pre":
        return ()
    return tuple(architecture["cascade.levels"])


def why_not_stages(architecture: Architecture) -> str | None:
    """Return why this training scheme doesn't fit the rest of the network; None if it fits."""
    if architecture.get("stages") == "cascade":
        if not architecture["cascade.first"]:
            return "a cascade needs at least one first network"
        if architecture["encoder"] == "unetrpp" and max(prediction_levels(architecture), default=0) > 0:
            return (
                "unetrpp has no decoder unit below full resolution that predictions could join: "
                "use cascade.levels finest or cascade.join pre"
            )
        firsts = (first_architecture(architecture, expansion) for expansion in architecture["cascade.first"])
        return next((why for first in firsts if (why := why_not_stages(first))), None)
    if architecture.get("stages") == "two-patch" and architecture.get("downsampling") != "max":
        if "downsampling" not in dict(architecture.entries):
            return f"two-patch training needs a level that reads the first level: {architecture['encoder']} has none"
        return "two-patch training pools the features of its first level and needs downsampling max"
    return None
