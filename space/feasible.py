"""Check whether a network can be built, before anything is allocated."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from space.architecture import Architecture
from space.canonical import Context, map_sizes
from space.place import Place
from space.specs.registry import site_at, spec_at
from space.specs.spec import show_size
from space.stages import why_not_stages


@dataclass(frozen=True)
class Refusal:
    """The reason why a network can't be built, and the attention block and place concerned, if any."""

    reason: str
    block: str = ""
    place: Place | None = None

    def __str__(self) -> str:
        return f"{self.block} at {self.place} {self.reason}" if self.block else self.reason


def why_not(architecture: Architecture, context: Context) -> str | None:
    """Return why this network can't be built or trained on patches of this size, as text; None if it can."""
    refusal = find_refusal(architecture, context)
    return str(refusal) if refusal else None


def find_refusal(architecture: Architecture, context: Context) -> Refusal | None:
    """Return the first reason why this network can't be built or trained on patches of this size; None if it can."""
    sizes = map_sizes(architecture, context.patch)
    if architecture.levels < 2:
        return Refusal(f"a patch of {show_size(context.patch)} is too small for a U: nnU-Net's rules pool no axis")
    for level, stride in enumerate(architecture["pooling"], start=1):
        if stride == (1, 1, 1):
            return Refusal(
                f"a patch of {show_size(context.patch)} is too small for {architecture.levels} levels: "
                f"level {level} pools no axis"
            )
    if prod(sizes[-1]) < 2:
        return Refusal(f"the deepest map has only {prod(sizes[-1])} voxel: normalisation over space needs 2 or more")
    for place in architecture.attention():
        spec = spec_at(architecture, place)
        reason = spec.why_not(architecture.options(place), site_at(architecture, place, sizes))
        if reason:
            return Refusal(reason, spec.name, place)
    reason = why_not_stages(architecture)
    return Refusal(reason) if reason else None
