"""Axis names and values as a study writes them: which axes a name stands for, and what is wrong with a value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from space.architecture import Value, freeze
from space.axes import Axis
from space.canonical import BASE
from space.place import AxisName
from space.specs.spec import BlockSpec
from space.timm_info import PREFIX, is_timm, timm_stages

Limits = Mapping[str, tuple[float, float]]
NUMBERS: Limits = {
    "width": (1, 1024),
    "growth": (1.0, 4.0),
    "width_cap": (1, 4096),
    "repeats": (1, 8),
    "dropout": (0.0, 0.9),
    "expansion": (1.0, 4.0),
}


def axis_limits(blocks: Sequence[BlockSpec]) -> Limits:
    """Return the axes that take any number within limits, a block's options as `block.option`."""
    options = {f"{block.name}.{option.name}": option.limits for block in blocks for option in block.options}
    return {**NUMBERS, **{name: limits for name, limits in options.items() if limits}}


def freeze_or_text(value: Any) -> Value:
    """Return a value as decisions hold it; what they can't hold as text, for messages."""
    try:
        return freeze(value)
    except ValueError:
        return str(value)


def axis_names(axis: str) -> tuple[str, str, str]:
    """Return the names that stand for an axis, the widest first: at every place, in its group, its own."""
    own = AxisName.parse(axis)
    return own.head, str(own.group), axis


def matching_axes(name: str, axes: Sequence[Axis]) -> list[Axis]:
    """Return the axes that a name stands for: an axis, an axis at every place, or a group's."""
    return [axis for axis in axes if name in axis_names(axis.name)]


def unknown_axis(name: str, axes: tuple[Axis, ...]) -> str:
    """Say that no axis has this name, with the nearest one and all heads."""
    known = dict.fromkeys(key for axis in axes for key in axis_names(axis.name))
    close = get_close_matches(name, known, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    heads = ", ".join(dict.fromkeys(AxisName.parse(axis.name).head for axis in axes))
    return f"no axis is called {name!r}{hint} (axes: {heads})"


def bad_value(value: Any, axis: Axis, limits: Limits) -> str | None:
    """Check a value against an axis's own; sizes and rates may take any number of the same kind."""
    if value == BASE and BASE in axis.choices:
        return None
    name = AxisName.parse(axis.name).head
    if name in limits:
        return _bad_number(value, *limits[name], whole=isinstance(axis.choices[-1], int))
    if name == "cascade.first":
        return _bad_expansions(value)
    if name == "encoder" and is_timm(value):
        return _bad_timm(value)
    same = [
        choice for choice in axis.choices if choice == value and isinstance(choice, bool) == isinstance(value, bool)
    ]
    if same:
        return None
    close = get_close_matches(str(value), [str(choice) for choice in axis.choices], n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    more = ", timm:NAME" if name == "encoder" else ""
    return f"{value!r} is not a choice{hint} (choices: {', '.join(str(choice) for choice in axis.choices)}{more})"


def _bad_number(value: Any, low: float, high: float, *, whole: bool) -> str | None:
    kind = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
    if kind and low <= value <= high:
        return None
    return f"{value!r} is not {'a whole number' if whole else 'a number'} from {low:g} to {high:g}"


def _bad_expansions(value: Any) -> str | None:
    numbers = list(value) if isinstance(value, (list, tuple)) else []
    if numbers and not any(_bad_number(each, *NUMBERS["expansion"], whole=False) for each in numbers):
        return None
    return f"{value!r} is not a list of the first networks' expansions, each from 1 to 4, as [1.5, 1.75]"


def _bad_timm(value: str) -> str | None:
    try:
        timm_stages(value.removeprefix(PREFIX))
    except ValueError as error:
        return str(error)
    return None
