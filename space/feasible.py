"""Why a network can't be built, said before anything is allocated."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from space.architecture import Architecture
from space.canonical import Context, map_sizes
from space.place import Place, attention_at
from space.pooling import Triple
from space.stages import why_not_stages

CSAM_REDUCTION = 16  # of the semantic gate; below as many channels its hidden layer would be empty
MOST_ATTENDED = 32_768  # tokens that attend to each other; their products grow with the square
MOST_PROJECTED = 131_072  # tokens of EPA, each with weights of its own (the largest published grid has 73,728)


@dataclass(frozen=True)
class Refusal:
    """Why a network can't be built: the reason, and the attention block and place that it is about."""

    reason: str
    block: str = ""
    place: Place | None = None

    def __str__(self) -> str:
        return f"{self.block} at {self.place} has {self.reason}" if self.block else self.reason


def why_not(architecture: Architecture, context: Context) -> str | None:
    """Return the reason why this network can't be built or trained on such patches; None where it can."""
    refusal = find_refusal(architecture, context)
    return str(refusal) if refusal else None


def find_refusal(architecture: Architecture, context: Context) -> Refusal | None:
    """Return the first reason why this network can't be built or trained on such patches; None where it can."""
    sizes = map_sizes(architecture, context.patch)
    for level, stride in enumerate(architecture["pooling"], start=1):
        if stride == (1, 1, 1):
            return Refusal(
                f"a patch of {_size(context.patch)} is too small for {architecture.levels} levels: "
                f"level {level} pools no axis"
            )
    if prod(sizes[-1]) < 2:
        return Refusal(f"the deepest map holds {prod(sizes[-1])} voxel: normalisation over space needs 2 or more")
    for place in architecture.attention():
        reason = _why_not_block(architecture, place, sizes)
        if reason:
            return Refusal(reason, architecture[attention_at(place)], place)
    reason = why_not_stages(architecture)
    return Refusal(reason) if reason else None


def _why_not_block(architecture: Architecture, place: Place, sizes: tuple[Triple, ...]) -> str | None:
    block, options = architecture[attention_at(place)], architecture.options(place)
    channels, size = architecture.channels_at(place), sizes[place.level_of(architecture.levels)]
    tokens = prod(size)
    if block == "csam" and options.get("semantic", True) and channels < CSAM_REDUCTION:
        return f"{channels} channels: its semantic gate needs {CSAM_REDUCTION} or more"
    if block == "joint" and options.get("mode", "joint") != "pointwise":
        attended = tokens if options.get("axes", "plane") == "volume" else tokens // size[0]
        if attended > MOST_ATTENDED:
            return f"{attended} tokens ({_size(size)}) that meet each other, over {MOST_ATTENDED}"
    if block == "epa":
        heads, projection = options["heads"], options.get("projection", 0)  # a channel branch alone projects none
        if channels % heads:
            return f"{channels} channels, which its {heads} heads don't divide"
        joined = options.get("projections", "shared") != "raw" and options.get("branches", "both") == "both"
        if joined and channels % 2:
            return f"{channels} channels: it joins two halves of them"
        if projection > tokens:
            return f"{tokens} tokens ({_size(size)}), too few to project to {projection}"
        if tokens > MOST_PROJECTED:
            return f"{tokens} tokens ({_size(size)}) with own weights, over {MOST_PROJECTED}"
    return None


def _size(size: Triple) -> str:
    return "x".join(str(length) for length in size)
