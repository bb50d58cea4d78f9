"""Convert decisions to the canonical architecture, which omits whatever has no effect on the network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from space.architecture import Architecture, Value
from space.place import ATTENTION, AxisName, attention_at, by_place, option_at, options_of, places
from space.pooling import Triple, kernels_from_spacing, level_sizes, pooling_from_spacing
from space.specs.registry import BUILT_IN, code_entry, is_code_entry
from space.specs.spec import NONE, BlockSpec
from space.timm_info import PREFIX, is_timm, timm_stages

Decisions = dict[str, Value]
BASE = "base"  # the choice of an opened axis that keeps the base's value
PLAIN_ENTRIES = (
    "encoder",
    "repeats",
    "norm",
    "activation",
    "dropout",
    "downsampling",
    "upsampling",
    "skip",
    "deep_supervision",
    "stages",
    "expansion",
    "cascade.first",
    "cascade.join",
    "pretrained",
)
OMITTED: dict[str, Value] = {"stages": "single", "pretrained": False}  # default values, which have no entry


@dataclass(frozen=True)
class Context:
    """The input that a network is built for: patch (D, H, W) in voxels, spacing (D, H, W) in mm, channels, classes."""

    patch: tuple[int, int, int]
    spacing: tuple[float, float, float]
    in_channels: int
    classes: int


def canonical(
    decisions: Mapping[str, Value],
    context: Context,
    base: Architecture | None = None,
    *,
    blocks: Sequence[BlockSpec] = BUILT_IN,
) -> Architecture:
    """Return the architecture of complete decisions for this patch and spacing, or their changes applied to a base.

    Widths, strides and kernels are listed per level. Hence different decisions for the same network give equal
    architectures, and building a network does not need the spacing.
    """
    decided = {name: value for name, value in decisions.items() if value != BASE}
    values: dict[str, Value] = dict(base.entries) if base else _levels(decided, context)
    values.update({name: decided[name] for name in PLAIN_ENTRIES if name in decided})
    if base:
        values.update(_changed_levels(decided, base, context))
    _settle_stages(values, decided)
    for name, value in OMITTED.items():
        if values.get(name) == value:
            del values[name]
    if not values["deep_supervision"]:
        values.pop("supervised_levels", None)
    _settle_places(values, decided, _map_sizes(values, context.patch), {block.name: block for block in blocks})
    return Architecture.of(values)


def _levels(decided: Decisions, context: Context) -> dict[str, Value]:
    """Return channels, strides and kernels of each level, and the entries that the encoder family fixes."""
    encoder, levels = str(decided["encoder"]), int(str(decided["levels"]))
    widths = tuple(_width(decided, level) for level in range(levels))
    if is_timm(encoder):
        return _timm_levels(encoder, levels, widths, decided, context)
    if encoder == "unetrpp":
        first, second, *rest = pooling_from_spacing(context.patch, spacing=context.spacing, levels=levels + 1)
        pooling = (_times(first, second), *rest)
        return {"channels": widths, "pooling": pooling, "skip": "add"}
    values: dict[str, Value] = {}
    if decided.get("stem_stride") == 2:
        stride = pooling_from_spacing(context.patch, spacing=context.spacing, levels=2)[0]
        if stride != (1, 1, 1):
            size = int(str(decided["stem_kernel"]))
            flat = _kernels(str(decided["kernels"]), context, (stride,))[0]
            kernel = tuple(size if wide > 1 or step > 1 else 1 for wide, step in zip(flat, stride, strict=True))
            values["stem"] = (kernel, stride)
            context = _strided(context, stride)
    pooling = pooling_from_spacing(context.patch, spacing=context.spacing, levels=levels)
    return {
        **values,
        "channels": widths,
        "pooling": pooling,
        "kernels": _kernels(str(decided["kernels"]), context, pooling),
    }


def _timm_levels(
    encoder: str, levels: int, widths: tuple[int, ...], decided: Decisions, context: Context
) -> dict[str, Value]:
    """Return the levels of a timm encoder: our unit at full resolution, then timm's stages; our widths in the decoder.

    A timm model with fewer stages than `levels - 1` gives fewer levels.
    """
    stages = timm_stages(encoder.removeprefix(PREFIX))
    reductions = (1, *stages.reductions[: levels - 1])
    steps = [coarse // fine for fine, coarse in zip(reductions, reductions[1:], strict=False)]
    pooling = tuple((1, step, step) for step in steps)
    channels = (widths[0], *stages.channels[: levels - 1])
    values: dict[str, Value] = {
        "channels": channels,
        "pooling": pooling,
        "kernels": _kernels(str(decided["kernels"]), context, pooling),
    }
    if widths[: len(steps)] != channels[:-1]:
        values["decoder_channels"] = widths[: len(steps)]
    return values


def _changed_levels(decided: Decisions, base: Architecture, context: Context) -> dict[str, Value]:
    """Return the widths and kernels of a base that decisions change."""
    values: dict[str, Value] = {}
    channels: tuple[int, ...] = base["channels"]
    if {"width", "growth", "width_cap"} & decided.keys():
        own: Decisions = {"width": channels[0], "growth": channels[1] / channels[0], "width_cap": max(channels)}
        values["channels"] = tuple(_width({**own, **decided}, level) for level in range(len(channels)))
    if "kernels" in decided:
        values["kernels"] = _kernels(str(decided["kernels"]), context, base["pooling"])
    return values


def _settle_stages(values: dict[str, Value], decided: Decisions) -> None:
    """Set the entries that the training scheme fixes, and delete those of other schemes."""
    stages, own = values.get("stages", "single"), values["encoder"] in ("plain", "residual", "dense")
    if stages != "two-patch":
        values.pop("expansion", None)
    if stages != "cascade":
        for name in [name for name in values if name.startswith("cascade.")]:
            del values[name]
    elif values["cascade.join"] == "pre":
        values.pop("cascade.levels", None)
    elif "cascade.levels" in decided or "cascade.levels" not in values:
        below = len(_triples(values["pooling"]))
        chosen = {"all": range(below), "finest": range(1), "coarsest": range(below - 1, below)}
        values["cascade.levels"] = tuple(chosen[str(decided.get("cascade.levels", "all"))])
    if stages != "single" and own:
        values["downsampling"] = "max"
    if stages == "two-patch":
        values["deep_supervision"] = False
    if values["encoder"] == "dense" and values["repeats"] == 1:
        values["encoder"] = "plain"  # a single convolution has no earlier output to concatenate


def _settle_places(
    values: dict[str, Value], decided: Decisions, sizes: tuple[Triple, ...], blocks: Mapping[str, BlockSpec]
) -> None:
    """Write each place's block, its options and a plug-in's code version; omit blocks without effect at their place."""
    own, chosen = by_place(values), by_place(decided)
    for name in [name for name in values if AxisName.parse(name).place or is_code_entry(name)]:
        del values[name]
    for place in places(len(sizes)):
        held = {**chosen.get(place.group, {}), **chosen.get(place, {})}
        if ATTENTION not in held:
            held = {**own.get(place, {}), **held}
        block = str(held.get(ATTENTION, NONE))
        if block == NONE:
            continue
        spec = blocks[block]
        written = spec.written(options_of(block, held), sizes[place.level_of(len(sizes))])
        if written is None:
            continue
        values[attention_at(place)] = block
        values.update({option_at(block, option, place): value for option, value in written.items()})
        if spec.code:
            values[code_entry(block)] = spec.code


def _width(decided: Mapping[str, Value], level: int) -> int:
    width, growth, cap = (float(str(decided[name])) for name in ("width", "growth", "width_cap"))
    return int(min(cap, round(width * growth**level)))


def _kernels(choice: str, context: Context, pooling: tuple[Triple, ...]) -> tuple[Triple, ...]:
    if choice == "2d":
        return ((1, 3, 3),) * (len(pooling) + 1)
    if choice == "3d":
        return ((3, 3, 3),) * (len(pooling) + 1)
    return kernels_from_spacing(context.spacing, pooling=pooling)


def _strided(context: Context, stride: Triple) -> Context:
    """Return the context after a stem of this stride: smaller patch, larger spacing."""
    depth, height, width = (size * step for size, step in zip(context.spacing, stride, strict=True))
    return replace(context, patch=level_sizes(context.patch, (stride,))[1], spacing=(depth, height, width))


def _map_sizes(values: Mapping[str, Value], patch: Triple) -> tuple[Triple, ...]:
    stem = values.get("stem")
    if isinstance(stem, tuple):
        patch = level_sizes(patch, _triples(stem[1:]))[1]
    return level_sizes(patch, _triples(values["pooling"]))


def map_sizes(architecture: Architecture, patch: Triple) -> tuple[Triple, ...]:
    """Return the map size (D, H, W) at each level for this patch, after the stem if the network has one."""
    return _map_sizes(dict(architecture.entries), patch)


def _triples(value: Value) -> tuple[Triple, ...]:
    if not isinstance(value, tuple):
        raise ValueError(f"strides must be a tuple with one entry per level, not {value!r}")
    return value  # type: ignore[return-value]


def _times(one: Triple, other: Triple) -> Triple:
    depth, height, width = (a * b for a, b in zip(one, other, strict=True))
    return depth, height, width
