"""Axis names and values in a study: the axes that a name matches, and the validation of values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from functools import lru_cache
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
    """Return the limits of axes that take any number within them; a block's options are named `block.option`."""
    options = {f"{block.name}.{option.name}": option.limits for block in blocks for option in block.options}
    return {**NUMBERS, **{name: limits for name, limits in options.items() if limits}}


def freeze_or_text(value: Any) -> Value:
    """Convert a value to a decision's type; return other types as text, for messages."""
    try:
        return freeze(value)
    except ValueError:
        return str(value)


@lru_cache(maxsize=10_000)
def axis_names(axis: str) -> tuple[str, str, str]:
    """Return the names that match an axis, widest first: at all places, in its group, its own."""
    own = AxisName.parse(axis)
    return own.head, str(own.group), axis


def matching_axes(name: str, axes: Sequence[Axis]) -> list[Axis]:
    """Return the axes that a name matches: a single axis, an axis at all places, or an axis in a group of places."""
    return [axis for axis in axes if name in axis_names(axis.name)]


def unknown_axis(name: str, axes: tuple[Axis, ...]) -> str:
    """Return the error message for an unknown axis name, with the nearest match and all axis heads."""
    known = dict.fromkeys(key for axis in axes for key in axis_names(axis.name))
    close = get_close_matches(name, known, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    heads = ", ".join(dict.fromkeys(AxisName.parse(axis.name).head for axis in axes))
    return f"no axis is called {name!r}{hint} (axes: {heads})"


def bad_value(value: Any, axis: Axis, limits: Limits) -> str | None:
    """Return why a value is not valid for an axis, or None. Sizes and rates accept any number within their limits."""
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
    return f"{value!r} is not {'an integer' if whole else 'a number'} from {low:g} to {high:g}"


def _bad_expansions(value: Any) -> str | None:
    numbers = list(value) if isinstance(value, (list, tuple)) else []
    if numbers and not any(_bad_number(each, *NUMBERS["expansion"], whole=False) for each in numbers):
        return None
    return f"{value!r} is not a list of expansions of the first networks, each from 1 to 4, such as [1.5, 1.75]"


def _bad_timm(value: str) -> str | None:
    try:
        timm_stages(value.removeprefix(PREFIX))
    except ValueError as error:
        return str(error)
    return None
