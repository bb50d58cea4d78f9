"""How a study narrows the full space: fixed axes, fewer choices, forbidden combinations, or a base with axes opened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import Any

from space.architecture import Architecture, Value, freeze
from space.axes import Axis, DecisionError, Rule
from space.canonical import BASE, UNWRITTEN_OPTIONS, Context
from space.place import AxisName, attention_at, option_at
from space.space import Space
from space.timm_info import PREFIX, is_timm, timm_stages
from space.unet_axes import BLOCK_OPTIONS, ENCODERS, OWN, full_axes

NUMBERS: dict[str, tuple[float, float]] = {
    "width": (1, 1024),
    "growth": (1.0, 4.0),
    "width_cap": (1, 4096),
    "repeats": (1, 8),
    "dropout": (0.0, 0.9),
    "expansion": (1.0, 4.0),
    "epa.blocks": (1, 8),
    "epa.projection": (1, 4096),
    "epa.heads": (1, 64),
    "epa.dropout": (0.0, 0.9),
}
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


@dataclass(frozen=True)
class Narrowing:
    """What a study says of the space.

    A name is an axis (`width`, `attention@skip0`), a group (`attention@skips`), or an axis at every place
    (`attention`, `csam.uncertainty`); the narrower name wins. `forbid` holds (conditions, why). With a `base` only
    the axes named in `open` are decided; their first choice is the base's own.
    """

    placement: str = "each"
    fix: Mapping[str, Any] = field(default_factory=dict)
    choices: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    forbid: Sequence[tuple[Mapping[str, Any], str]] = ()
    base: Architecture | None = None
    open: Sequence[str] = ()


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
    axes = full_axes(narrowing.placement, encoders)
    if narrowing.base:
        axes = _opened(axes, narrowing, problems)
    elif narrowing.open:
        problems.append(("open", "axes are opened on a base; name one under `base`"))
    said = _said(axes, narrowing, problems)
    axes = _without_unreachable(axes, said)
    rules = tuple(_rule(index, each, axes, problems) for index, each in enumerate(narrowing.forbid))
    if problems:
        raise DecisionError(tuple(problems))
    space = Space(axes, context, narrowing.placement == "tied", rules, narrowing.base)
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


def freeze_or_text(value: Any) -> Value:
    """Return a value as decisions hold it; what they can't hold as text, for messages."""
    try:
        return freeze(value)
    except ValueError:
        return str(value)


def _opened(axes: tuple[Axis, ...], narrowing: Narrowing, problems: list[tuple[str, str]]) -> tuple[Axis, ...]:
    """Keep the axes that a study opens on its base, each with the base's own as its first choice."""
    base = narrowing.base
    if base is None:
        raise ValueError("axes are opened on a base")
    opened: dict[str, Axis] = {}
    for index, name in enumerate(narrowing.open):
        matching = matching_axes(name, axes)
        if not matching:
            problems.append((f"open.{index}", _unknown(name, axes)))
            continue
        refusal = _cannot_open(matching[0].name, base)
        if refusal:
            problems.append((f"open.{index}", refusal))
            continue
        opened |= {axis.name: axis for axis in matching}
        for axis in matching:  # a block that may come brings its options
            place = AxisName.parse(axis.name).place
            if place and axis.name == attention_at(place):
                options = {option_at(block, each[0], place) for block, made in BLOCK_OPTIONS.items() for each in made}
                opened |= {other.name: other for other in axes if other.name in options}
    kept = (_over_base(axis, opened, base) for axis in axes if axis.name in opened)
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


def _over_base(axis: Axis, opened: Mapping[str, Axis], base: Architecture) -> Axis | None:
    """Return an opened axis under the conditions that aren't settled by the base; None where the base closes it."""
    asked = AxisName.parse(axis.name)
    when = []
    for name, allowed in axis.when:
        own = _own(name, base)
        if name in opened:
            when.append((name, (*allowed, *((BASE,) if own in allowed else ()))))
        elif own not in allowed:
            return None
    held = not asked.block or asked.place is None or _own(attention_at(asked.place), base) == asked.block
    # An option of a block that the base hasn't got there has no value of the base's to keep.
    return replace(axis, choices=(BASE, *axis.choices) if held else axis.choices, when=tuple(when))


def _own(name: str, base: Architecture) -> Value:
    """Return what a base has decided, so far as conditions ask for it."""
    if name == "levels":
        return base.levels
    if name == "stages":
        return str(base.get("stages", "single"))
    asked = AxisName.parse(name)
    found = next((value for key, value in base.entries if asked.covers(AxisName.parse(key))), None)
    if found is None:
        return "none" if asked.is_attention else freeze_or_text(UNWRITTEN_OPTIONS.get(asked.head))
    return found


def _said(
    axes: tuple[Axis, ...], narrowing: Narrowing, problems: list[tuple[str, str]]
) -> dict[str, tuple[Value, ...]]:
    """Return the choices that a study leaves to each axis it names."""
    said: dict[str, tuple[Value, ...]] = {}
    fix, choices = narrowing.fix, narrowing.choices
    requests = [(f"fix.{name}", name, (value,)) for name, value in fix.items()]
    requests += [(f"choices.{name}", name, tuple(values)) for name, values in choices.items()]
    matched = [(key, name, values, matching_axes(name, axes)) for key, name, values in requests]
    for key, name, values, matching in sorted(matched, key=lambda each: _narrowness(each[1], each[3])):
        if not matching:
            problems.append((key, _unknown(name, axes)))
        elif name in fix and name in choices and key.startswith("choices."):
            problems.append((key, f"{name!r} is fixed already"))
        if not values and matching:
            problems.append((key, "an empty list leaves nothing to choose"))
        wrong = [message for value in values for axis in matching[:1] if (message := _bad_value(value, axis))]
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
            problems.append((f"forbid.{index}.when.{name}", _unknown(name, axes)))
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


def _names(axis: str) -> tuple[str, str, str]:
    """Return the names that stand for an axis, the widest first: at every place, in its group, its own."""
    own = AxisName.parse(axis)
    return own.head, str(own.group), axis


def matching_axes(name: str, axes: Sequence[Axis]) -> list[Axis]:
    """Return the axes that a name stands for: an axis, an axis at every place, or a group's."""
    return [axis for axis in axes if name in _names(axis.name)]


def overlaid(fix: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return fixed axes with changes laid over: what a change names holds also where `fix` names it more narrowly."""
    kept = {name: value for name, value in fix.items() if not changes.keys() & set(_names(name))}
    return {**kept, **changes}


def _narrowness(name: str, matching: Sequence[Axis]) -> int:
    return _names(matching[0].name).index(name) if matching else 0


def _unknown(name: str, axes: tuple[Axis, ...]) -> str:
    known = dict.fromkeys(key for axis in axes for key in _names(axis.name))
    close = get_close_matches(name, known, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    heads = ", ".join(dict.fromkeys(AxisName.parse(axis.name).head for axis in axes))
    return f"no axis is called {name!r}{hint} (axes: {heads})"


def _bad_value(value: Any, axis: Axis) -> str | None:
    """Check a value against an axis's own; sizes and rates may take any number of the same kind."""
    if value == BASE and BASE in axis.choices:
        return None
    name = AxisName.parse(axis.name).head
    if name in NUMBERS:
        return _bad_number(value, *NUMBERS[name], whole=isinstance(axis.choices[-1], int))
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
