"""Axes opened on a base network: what a study may change of it, and what it keeps."""

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

OPENABLE_UNITS = ("encoder", "repeats", "kernels", "norm", "activation", "dropout")  # where a base's entries say them
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
    """Refuse a base that holds a plug-in block which isn't loaded, or was trained with other code."""
    codes = {block.name: block.code for block in blocks}
    for name in dict.fromkeys(base.attention().values()):
        code = base.get(code_entry(name), "")
        if name not in codes:
            problems.append(("base", f"it holds the block {name!r}; name its file or package under `blocks`"))
        elif code != codes[name]:
            was, now = code or "voxnas's own", codes[name] or "voxnas's own"
            problems.append(("base", f"it was trained with other code of the block {name!r} ({was}, now {now})"))


def opened_axes(
    axes: tuple[Axis, ...],
    names: Sequence[str],
    *,
    base: Architecture,
    blocks: Sequence[BlockSpec],
    problems: list[tuple[str, str]],
) -> tuple[Axis, ...]:
    """Keep the axes that a study opens on its base, each with the base's own as its first choice."""
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
        for axis in matching:  # a block that may come brings its options
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
        return f"{name!r} can't be opened on a base: it makes another network; choose it under `choices`, without base"
    if name in OPENABLE_UNITS and (base.get(name) is None or (name == "encoder" and base["encoder"] not in OWN)):
        return f"{name!r} can't be opened: the units of {base['encoder']!r} have a form of their own"
    if name in ("width", "growth", "width_cap") and base.get("decoder_channels") is not None:
        return f"{name!r} can't be opened: this base spells the widths of its decoder"
    if name == "skip" and base["encoder"] == "unetrpp":
        return "'skip' can't be opened: UNETR++ adds"
    return ""


def _over_base(axis: Axis, opened: Mapping[str, Axis], base: Architecture, blocks: Sequence[BlockSpec]) -> Axis | None:
    """Return an opened axis under the conditions that aren't settled by the base; None where the base closes it."""
    asked = AxisName.parse(axis.name)
    when = []
    for name, allowed in axis.when:
        own = _own(name, base, blocks)
        if name in opened:
            when.append((name, (*allowed, *((BASE,) if own in allowed else ()))))
        elif own not in allowed:
            return None
    held = not asked.block or asked.place is None or _own(attention_at(asked.place), base, blocks) == asked.block
    # An option of a block that the base hasn't got there has no value of the base's to keep.
    return replace(axis, choices=(BASE, *axis.choices) if held else axis.choices, when=tuple(when))


def _own(name: str, base: Architecture, blocks: Sequence[BlockSpec]) -> Value:
    """Return what a base has decided, so far as conditions ask for it."""
    if name == "levels":
        return base.levels
    if name == "stages":
        return str(base.get("stages", "single"))
    asked = AxisName.parse(name)
    found = next((value for key, value in base.entries if asked.covers(AxisName.parse(key))), None)
    if found is None:
        return NONE if asked.is_attention else _unwritten(asked, blocks)
    return found


def _unwritten(asked: AxisName, blocks: Sequence[BlockSpec]) -> Value:
    """Return the value of an option that is not written; the text `None` where there is none."""
    spec = next((block for block in blocks if block.name == asked.block), None)
    option = spec.option(asked.option) if spec else None
    return freeze_or_text(option.unwritten if option else None)
