"""Why a network can't be built, said before anything is allocated."""

from __future__ import annotations

from space.architecture import Architecture
from space.canonical import Context
from space.pooling import Triple, level_sizes
from space.stages import why_not_stages

CSAM_REDUCTION = 16  # of the semantic gate; below as many channels its hidden layer would be empty


def why_not(architecture: Architecture, context: Context) -> str | None:
    """Return the reason why this network can't be built or trained on such patches; None where it can."""
    pooling = architecture["pooling"]
    sizes = level_sizes(context.patch, pooling)
    for level, stride in enumerate(pooling, start=1):
        if stride == (1, 1, 1):
            patch = "x".join(str(length) for length in context.patch)
            return f"a patch of {patch} is too small for {architecture.levels} levels: level {level} pools no axis"
    deepest = sizes[-1][0] * sizes[-1][1] * sizes[-1][2]
    if deepest < 2:
        return f"the deepest map holds {deepest} voxel: normalisation over space needs 2 or more"
    for place in architecture.attention():
        reason = _why_not_block(architecture, place, sizes)
        if reason:
            return reason
    return why_not_stages(architecture, in_channels=context.in_channels, classes=context.classes)


def _why_not_block(architecture: Architecture, place: str, sizes: tuple[Triple, ...]) -> str | None:
    block, options = architecture[f"attention@{place}"], architecture.options(place)
    channels = channels_at(architecture, place)
    if block == "csam" and options.get("semantic", True) and channels < CSAM_REDUCTION:
        return f"csam at {place} has {channels} channels: its semantic gate needs {CSAM_REDUCTION} or more"
    if block == "epa":
        depth, height, width = sizes[level_of(place, architecture.levels)]
        heads, projection, tokens = options["heads"], options["projection"], depth * height * width
        if channels % heads:
            return f"epa at {place} has {channels} channels, which its {heads} heads don't divide"
        if projection > tokens:
            return f"epa at {place} has {tokens} tokens ({depth}x{height}x{width}), too few to project to {projection}"
    return None


def level_of(place: str, levels: int) -> int:
    """Return the level of an attention place: 0 is full resolution."""
    return levels - 1 if place == "bottleneck" else int(place.lstrip("abcdefghijklmnopqrstuvwxyz"))


def channels_at(architecture: Architecture, place: str) -> int:
    """Return the channels of the map that meets an attention place."""
    level = level_of(place, architecture.levels)
    channels: tuple[int, ...] = architecture["channels"]
    return architecture.decoder_channels[level] if place.startswith("decoder") else channels[level]
