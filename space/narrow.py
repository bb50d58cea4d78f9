"""How a study narrows the full space: fixed axes, fewer choices, forbidden combinations, or a base with axes opened."""

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
from space.unet_axes import ENCODERS, OWN, full_axes


@dataclass(frozen=True)
class Narrowing:
    """What a study says of the space.

    A name is an axis (`width`, `attention@skip0`), a group (`attention@skips`), or an axis at every place
    (`attention`, `csam.uncertainty`); the narrower name wins. `forbid` holds (conditions, why). With a `base` only
    the axes named in `open` are decided; their first choice is the base's own. `blocks` are those that may be chosen.
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
    """Return the full space with some axes fixed and others given fewer choices; see `narrow_space`."""
    return narrow_space(context, Narrowing(placement, fix, choices))


def narrow_space(context: Context, narrowing: Narrowing) -> Space:
    """Return the study's space.

    Raises DecisionError with every problem, under `fix.NAME`, `choices.NAME`, `forbid.INDEX` or `open.INDEX`.
    """
    problems: list[tuple[str, str]] = []
    encoders = _encoders(narrowing)
    axes = full_axes(narrowing.placement, encoders, narrowing.blocks)
    if narrowing.base:
        check_base(narrowing.base, narrowing.blocks, problems)
        axes = opened_axes(axes, narrowing.open, base=narrowing.base, blocks=narrowing.blocks, problems=problems)
    elif narrowing.open:
        problems.append(("open", "axes are opened on a base; name one under `base`"))
    limits = axis_limits(narrowing.blocks)
    said = _said(axes, narrowing, limits, problems)
    axes = _without_unreachable(axes, said)
    rules = tuple(_rule(index, each, axes, problems) for index, each in enumerate(narrowing.forbid))
    if problems:
        raise DecisionError(tuple(problems))
    tied = narrowing.placement == "tied"
    space = Space(axes, context, tied, rules, narrowing.base, tuple(narrowing.blocks))
    if rules and space.size == 0:
        raise DecisionError((("forbid", "the rules leave no network to choose"),))
    return space


def _encoders(narrowing: Narrowing) -> tuple[Value, ...]:
    """Return the encoders that a study chooses among; over a base, the units that one can stand for another."""
    if narrowing.base:
        return OWN
    if "encoder" in narrowing.fix:
        return (freeze_or_text(narrowing.fix["encoder"]),)
    return tuple(freeze_or_text(each) for each in narrowing.choices.get("encoder", ENCODERS))


def _said(
    axes: tuple[Axis, ...], narrowing: Narrowing, limits: Limits, problems: list[tuple[str, str]]
) -> dict[str, tuple[Value, ...]]:
    """Return the choices that a study leaves to each axis it names."""
    said: dict[str, tuple[Value, ...]] = {}
    fix, choices = narrowing.fix, narrowing.choices
    requests = [(f"fix.{name}", name, (value,)) for name, value in fix.items()]
    requests += [(f"choices.{name}", name, tuple(values)) for name, values in choices.items()]
    matched = [(key, name, values, matching_axes(name, axes)) for key, name, values in requests]
    for key, name, values, matching in sorted(matched, key=lambda each: _narrowness(each[1], each[3])):
        if not matching:
            problems.append((key, unknown_axis(name, axes)))
        elif name in fix and name in choices and key.startswith("choices."):
            problems.append((key, f"{name!r} is fixed already"))
        if not values and matching:
            problems.append((key, "an empty list leaves nothing to choose"))
        wrong = [message for value in values for axis in matching[:1] if (message := bad_value(value, axis, limits))]
        problems.extend((key, message) for message in wrong)
        if not wrong:
            said.update({axis.name: tuple(_like(value, axis) for value in values) for axis in matching})
    return said


def _rule(
    index: int, forbidden: tuple[Mapping[str, Any], str], axes: tuple[Axis, ...], problems: list[tuple[str, str]]
) -> Rule:
    """Return one of a study's rules; a group's name stands for any of its places."""
    when, why = forbidden
    conditions = []
    if not when:
        problems.append((f"forbid.{index}.when", "an empty condition forbids everything"))
    for name, said in when.items():
        matching = matching_axes(name, axes)
        values = tuple(said) if isinstance(said, (list, tuple)) else (said,)
        if not matching:
            problems.append((f"forbid.{index}.when.{name}", unknown_axis(name, axes)))
            continue
        known = {choice for axis in matching for choice in axis.choices}
        read = tuple(_like(value, matching[0]) for value in values)
        for value in read:
            if value not in known:
                shown = ", ".join(str(choice) for choice in matching[0].choices)
                problems.append((f"forbid.{index}.when.{name}", f"{value!r} is not a choice here (choices: {shown})"))
        conditions.append((tuple(axis.name for axis in matching), read))
    return Rule(tuple(conditions), why)


def _like(value: Any, axis: Axis) -> Value:
    """Write a number as its axis does, so that 2 and 2.0 are one choice."""
    if isinstance(value, (list, tuple)):
        return tuple(float(each) if isinstance(each, int) else freeze_or_text(each) for each in value)
    sample = next((choice for choice in axis.choices if choice != BASE), None)
    return float(value) if isinstance(sample, float) and isinstance(value, int) else freeze_or_text(value)


def _without_unreachable(axes: tuple[Axis, ...], said: Mapping[str, tuple[Value, ...]]) -> tuple[Axis, ...]:
    """Apply the narrowed choices, and drop axes whose condition no remaining choice can meet."""
    kept: dict[str, Axis] = {}
    for axis in axes:
        met = all(name in kept and set(kept[name].choices) & set(allowed) for name, allowed in axis.when)
        if met:
            kept[axis.name] = replace(axis, choices=said.get(axis.name, axis.choices))
    return tuple(kept.values())


def overlaid(fix: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return fixed axes with changes laid over: what a change names holds also where `fix` names it more narrowly."""
    kept = {name: value for name, value in fix.items() if not changes.keys() & set(axis_names(name))}
    return {**kept, **changes}


def _narrowness(name: str, matching: Sequence[Axis]) -> int:
    return axis_names(matching[0].name).index(name) if matching else 0
