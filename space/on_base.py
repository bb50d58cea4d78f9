"""Axes opened on a base network: the parts that a study may change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from space.architecture import Architecture, Value
from space.axes import Axis
from space.axis_values import freeze_or_text, matching_axes, unknown_axis
from space.canonical import BASE
from space.place import AxisName, attention_at, option_at
from space.specs.registry import code_entry
from space.specs.spec import NONE, BlockSpec
from space.unet_axes import OWN

OPENABLE_UNITS = ("encoder", "repeats", "kernels", "norm", "activation", "dropout")  # if the base has such an entry
OPENABLE = (
    "stages",
    "expansion",
    "cascade.first",
    "cascade.join",
    "cascade.levels",
    "width",
    "growth",
    "width_cap",
    "upsampling",
    "skip",
    "deep_supervision",
    *OPENABLE_UNITS,
)


def check_base(base: Architecture, blocks: Sequence[BlockSpec], problems: list[tuple[str, str]]) -> None:
    """Report plug-in blocks of the base that are not loaded, or whose code has changed since the base was trained."""
    codes = {block.name: block.code for block in blocks}
    for name in dict.fromkeys(base.attention().values()):
        code = base.get(code_entry(name), "")
        if name not in codes:
            problems.append(("base", f"contains the block {name!r}; add its file or package under `blocks`"))
        elif code != codes[name]:
            was, now = code or "voxnas's own", codes[name] or "voxnas's own"
            problems.append(("base", f"the code of the block {name!r} has changed since training ({was}, now {now})"))


def opened_axes(
    axes: tuple[Axis, ...],
    names: Sequence[str],
    *,
    base: Architecture,
    blocks: Sequence[BlockSpec],
    problems: list[tuple[str, str]],
) -> tuple[Axis, ...]:
    """Keep the axes that a study opens on its base; the first choice of each keeps the base's value."""
    opened: dict[str, Axis] = {}
    for index, name in enumerate(names):
        matching = matching_axes(name, axes)
        if not matching:
            problems.append((f"open.{index}", unknown_axis(name, axes)))
            continue
        refusal = _cannot_open(matching[0].name, base)
        if refusal:
            problems.append((f"open.{index}", refusal))
            continue
        opened |= {axis.name: axis for axis in matching}
        for axis in matching:  # opening an attention place also opens the options of its blocks
            place = AxisName.parse(axis.name).place
            if place and axis.name == attention_at(place):
                options = {option_at(block.name, each.name, place) for block in blocks for each in block.options}
                opened |= {other.name: other for other in axes if other.name in options}
    kept = (_over_base(axis, opened, base, blocks) for axis in axes if axis.name in opened)
    return tuple(axis for axis in kept if axis)


def _cannot_open(name: str, base: Architecture) -> str:
    if AxisName.parse(name).place:
        return ""
    if name not in OPENABLE:
        return f"{name!r} can't be opened on a base: it defines a different network; use `choices` without `base`"
    if name in OPENABLE_UNITS and (base.get(name) is None or (name == "encoder" and base["encoder"] not in OWN)):
        return f"{name!r} can't be opened: the units of {base['encoder']!r} have a fixed form"
    if name in ("width", "growth", "width_cap") and base.get("decoder_channels") is not None:
        return f"{name!r} can't be opened: this base sets the widths of its decoder explicitly"
    if name == "skip" and base["encoder"] == "unetrpp":
        return "'skip' can't be opened: UNETR++ always adds its skips"
    return ""


def _over_base(axis: Axis, opened: Mapping[str, Axis], base: Architecture, blocks: Sequence[BlockSpec]) -> Axis | None:
    """Return an opened axis with the conditions that the base leaves undecided; None if the base closes the axis."""
    asked = AxisName.parse(axis.name)
    when = []
    for name, allowed in axis.when:
        own = _own(name, base, blocks)
        if name in opened:
            when.append((name, (*allowed, *((BASE,) if own in allowed else ()))))
        elif own not in allowed:
            return None
    held = not asked.block or asked.place is None or _own(attention_at(asked.place), base, blocks) == asked.block
    # If the base has another block (or none) at this place, its option has no value to keep.
    return replace(axis, choices=(BASE, *axis.choices) if held else axis.choices, when=tuple(when))


def _own(name: str, base: Architecture, blocks: Sequence[BlockSpec]) -> Value:
    """Return the base's value of an axis that a condition names."""
    if name == "levels":
        return base.levels
    if name == "stages":
        return str(base.get("stages", "single"))
    asked = AxisName.parse(name)
    found = next((value for key, value in base.entries if asked.covers(AxisName.parse(key))), None)
    if found is None:
        return NONE if asked.is_attention else _omitted(asked, blocks)
    return found


def _omitted(asked: AxisName, blocks: Sequence[BlockSpec]) -> Value:
    """Return the value of an option whose entry is omitted; the text `None` if the option has no such value."""
    spec = next((block for block in blocks if block.name == asked.block), None)
    option = spec.option(asked.option) if spec else None
    return freeze_or_text(option.unwritten if option else None)
