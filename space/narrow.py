"""Narrow the full space to a study's: fixed axes, fewer choices, forbidden combinations, or a base with opened axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from space.architecture import Architecture, Value
from space.axes import Axis, DecisionError, Rule
from space.axis_values import (
    Limits,
    axis_limits,
    axis_names,
    bad_value,
    freeze_or_text,
    matching_axes,
    unknown_axis,
)
from space.canonical import BASE, Context
from space.on_base import check_base, opened_axes
from space.space import Space
from space.specs.registry import BUILT_IN
from space.specs.spec import BlockSpec
from space.unet_axes import ENCODERS, LEVELS, OWN, full_axes


@dataclass(frozen=True)
class Narrowing:
    """A study's restrictions of the full space.

    A name refers to an axis (`width`, `attention@skip0`), a group of places (`attention@skips`), or an axis at all
    places (`attention`, `csam.uncertainty`); the narrower name takes precedence. `forbid` holds (conditions, why).
    With a `base`, only the axes in `open` are searched, and their first choice keeps the base's value. `blocks` lists
    the blocks to choose from.
    """

    placement: str = "each"
    fix: Mapping[str, Any] = field(default_factory=dict)
    choices: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    forbid: Sequence[tuple[Mapping[str, Any], str]] = ()
    base: Architecture | None = None
    open: Sequence[str] = ()
    blocks: Sequence[BlockSpec] = BUILT_IN


def narrow(
    context: Context, *, placement: str = "each", fix: Mapping[str, Any], choices: Mapping[str, Sequence[Any]]
) -> Space:
    """Return the full space with some axes fixed and others restricted to fewer choices; see `narrow_space`."""
    return narrow_space(context, Narrowing(placement, fix, choices))


def narrow_space(context: Context, narrowing: Narrowing) -> Space:
    """Return the study's space.

    Raises DecisionError with every problem, under `fix.NAME`, `choices.NAME`, `forbid.INDEX` or `open.INDEX`.
    """
    problems: list[tuple[str, str]] = []
    encoders = _encoders(narrowing)
    levels = range(2, max(*LEVELS, narrowing.base.levels) + 1) if narrowing.base else LEVELS
    axes = full_axes(narrowing.placement, encoders, narrowing.blocks, tuple(levels))
    if narrowing.base:
        check_base(narrowing.base, narrowing.blocks, problems)
        axes = opened_axes(axes, narrowing.open, base=narrowing.base, blocks=narrowing.blocks, problems=problems)
    elif narrowing.open:
        problems.append(("open", "needs a base network, set with `base`"))
    limits = axis_limits(narrowing.blocks)
    requested = _requested_choices(axes, narrowing, limits, problems)
    axes = _without_unreachable(axes, requested)
    rules = tuple(_rule(index, each, axes, problems) for index, each in enumerate(narrowing.forbid))
    if problems:
        raise DecisionError(tuple(problems))
    tied = narrowing.placement == "tied"
    space = Space(axes, context, tied, rules, narrowing.base, tuple(narrowing.blocks))
    if rules and space.size == 0:
        raise DecisionError((("forbid", "the rules exclude all networks of the space"),))
    return space


def _encoders(narrowing: Narrowing) -> tuple[Value, ...]:
    """Return the encoders that a study may choose; over a base, the units that can replace each other."""
    if narrowing.base:
        return OWN
    if "encoder" in narrowing.fix:
        return (freeze_or_text(narrowing.fix["encoder"]),)
    return tuple(freeze_or_text(each) for each in narrowing.choices.get("encoder", ENCODERS))


def _requested_choices(
    axes: tuple[Axis, ...], narrowing: Narrowing, limits: Limits, problems: list[tuple[str, str]]
) -> dict[str, tuple[Value, ...]]:
    """Return the choices that a study requests for each axis in `fix` and `choices`."""
    requested: dict[str, tuple[Value, ...]] = {}
    fix, choices = narrowing.fix, narrowing.choices
    requests = [(f"fix.{name}", name, (value,)) for name, value in fix.items()]
    requests += [(f"choices.{name}", name, tuple(values)) for name, values in choices.items()]
    matched = [(key, name, values, matching_axes(name, axes)) for key, name, values in requests]
    for key, name, values, matching in sorted(matched, key=lambda each: _narrowness(each[1], each[3])):
        if not matching:
            problems.append((key, unknown_axis(name, axes)))
        elif name in fix and name in choices and key.startswith("choices."):
            problems.append((key, f"{name!r} is already set under `fix`"))
        if not values and matching:
            problems.append((key, "the list of choices is empty"))
        repeated = next((value for place, value in enumerate(values) if value in values[:place]), None)
        if repeated is not None:
            problems.append((key, f"{repeated!r} is listed twice"))
        wrong = [message for value in values for axis in matching[:1] if (message := bad_value(value, axis, limits))]
        problems.extend((key, message) for message in wrong)
        if not wrong:
            requested.update({axis.name: tuple(_like(value, axis) for value in values) for axis in matching})
    return requested


def _rule(
    index: int, forbidden: tuple[Mapping[str, Any], str], axes: tuple[Axis, ...], problems: list[tuple[str, str]]
) -> Rule:
    """Return one of a study's rules; a group name matches any of its places."""
    when, why = forbidden
    conditions = []
    if not when:
        problems.append((f"forbid.{index}.when", "an empty condition would forbid all networks"))
    for name, value in when.items():
        matching = matching_axes(name, axes)
        values = tuple(value) if isinstance(value, (list, tuple)) else (value,)
        if not matching:
            problems.append((f"forbid.{index}.when.{name}", unknown_axis(name, axes)))
            continue
        known = {choice for axis in matching for choice in axis.choices}
        allowed = tuple(_like(each, matching[0]) for each in values)
        for each in allowed:
            if each not in known:
                shown = ", ".join(str(choice) for choice in matching[0].choices)
                problems.append((f"forbid.{index}.when.{name}", f"{each!r} is not a choice here (choices: {shown})"))
        conditions.append((tuple(axis.name for axis in matching), allowed))
    return Rule(tuple(conditions), why)


def _like(value: Any, axis: Axis) -> Value:
    """Convert a value to its axis's number type: 2 and 2.0 are the same choice."""
    if isinstance(value, (list, tuple)):
        return tuple(float(each) if isinstance(each, int) else freeze_or_text(each) for each in value)
    sample = next((choice for choice in axis.choices if choice != BASE), None)
    return float(value) if isinstance(sample, float) and isinstance(value, int) else freeze_or_text(value)


def _without_unreachable(axes: tuple[Axis, ...], requested: Mapping[str, tuple[Value, ...]]) -> tuple[Axis, ...]:
    """Apply the requested choices, and drop axes whose condition no remaining choice can meet."""
    kept: dict[str, Axis] = {}
    for axis in axes:
        met = all(name in kept and set(kept[name].choices) & set(allowed) for name, allowed in axis.when)
        if met:
            kept[axis.name] = replace(axis, choices=requested.get(axis.name, axis.choices))
    return tuple(kept.values())


def overlaid(fix: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return `fix` overridden by `changes`; a change also overrides narrower names in `fix`."""
    kept = {name: value for name, value in fix.items() if not changes.keys() & set(axis_names(name))}
    return {**kept, **changes}


def _narrowness(name: str, matching: Sequence[Axis]) -> int:
    return axis_names(matching[0].name).index(name) if matching else 0
