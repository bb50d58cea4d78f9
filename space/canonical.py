"""From decisions to the one spelling of the network that they give: what doesn't reach the network is not written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from space.architecture import Architecture, Value, places
from space.pooling import kernels_from_spacing, pooling_from_spacing

PLAIN_ENTRIES = (
    "encoder", "repeats", "norm", "activation", "dropout", "downsampling", "upsampling", "skip", "deep_supervision",
)  # fmt: skip


@dataclass(frozen=True)
class Context:
    """What a network is built for: patch (D, H, W) in voxels, spacing (D, H, W) in mm, channels, classes."""

    patch: tuple[int, int, int]
    spacing: tuple[float, float, float]
    in_channels: int
    classes: int


def canonical(decisions: Mapping[str, Value], context: Context) -> Architecture:
    """Spell out what complete decisions mean for this patch and spacing.

    Widths, strides and kernels are written level by level, so that two ways to say one network give one
    architecture, and the network can be built without knowing the spacing.
    """
    levels = int(str(decisions["levels"]))
    width, growth, cap = (float(str(decisions[name])) for name in ("width", "growth", "width_cap"))
    pooling = pooling_from_spacing(context.patch, spacing=context.spacing, levels=levels)
    values: dict[str, Value] = {name: decisions[name] for name in PLAIN_ENTRIES}
    values["channels"] = tuple(int(min(cap, round(width * growth**level))) for level in range(levels))
    values["pooling"] = pooling
    values["kernels"] = _kernels(str(decisions["kernels"]), context, pooling)
    for place in places(levels):
        block = decisions[_deciding(f"attention@{place}", decisions)]
        if block == "none":
            continue
        options = {
            name.partition("@")[0]: value
            for name, value in decisions.items()
            if name.startswith(f"{block}.") and name.partition("@")[2] in (place, _group(place))
        }
        if block == "csam" and not any(options.get(f"csam.{gate}") for gate in ("semantic", "positional", "slice")):
            continue  # no gate is no block
        values[f"attention@{place}"] = block
        values.update({f"{option}@{place}": value for option, value in options.items()})
    return Architecture.of(values)


def _kernels(
    choice: str, context: Context, pooling: tuple[tuple[int, int, int], ...]
) -> tuple[tuple[int, int, int], ...]:
    if choice == "2d":
        return ((1, 3, 3),) * (len(pooling) + 1)
    if choice == "3d":
        return ((3, 3, 3),) * (len(pooling) + 1)
    return kernels_from_spacing(context.spacing, pooling=pooling)


def _deciding(name: str, decisions: Mapping[str, Value]) -> str:
    """Return the decision that holds for a place: its own, or its group's where places are tied."""
    if name in decisions:
        return name
    head, _, place = name.partition("@")
    return f"{head}@{_group(place)}"


def _group(place: str) -> str:
    kind = place.rstrip("0123456789")
    return kind if kind == "bottleneck" else f"{kind}s"
