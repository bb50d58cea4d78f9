"""Which trial to export, why that one, and what its neighbours on the front would give instead."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from search.config.errors import UserError, nearest
from search.config.objectives import OBJECTIVES, costs_among, primary, show, show_named
from search.trials.pareto import best, comparable, knee, losses, pareto_front
from search.trials.records import Record

RULES = ("knee", "best", "cheapest:dice>=0.85", "under:memory=4GiB,latency=30ms")
CHEAPEST = re.compile(r"cheapest:dice>=(0?\.\d+|[01](\.0*)?)")
PARSERS = {name: each.parse for name, each in OBJECTIVES.items() if each.parse}  # of limits


@dataclass(frozen=True)
class Choice:
    """A record, why that one, and a sentence on each neighbour on the front."""

    record: Record
    why: str
    neighbours: tuple[str, ...] = ()


def choose(pick: str, records: Sequence[Record], directions: Mapping[str, str]) -> Choice:
    """Return the record that `pick` means: a rule of RULES, or a trial's number.

    Raises UserError for anything else, for a trial that isn't there or was not trained, and where no trial fits.
    """
    if pick.isdecimal():
        record = _numbered(int(pick), records)
        why = f"asked for by its number; {_place(record, records, directions)}"
        return Choice(record, f"trial {record.number}, {why}", _neighbours(record, records, directions))
    rule = pick.partition(":")[0]
    if rule not in ("knee", "best", "cheapest", "under") or (pick != rule) != (rule in ("cheapest", "under")):
        raise UserError([f"--pick: {pick!r} is neither a trial's number nor a rule{nearest(pick, RULES)}"])
    front = pareto_front(records, directions)
    record, why = _by_rule(pick, rule, front, directions)
    return Choice(record, f"trial {record.number}, {why}", _neighbours(record, records, directions))


def _by_rule(pick: str, rule: str, front: Sequence[Record], directions: Mapping[str, str]) -> tuple[Record, str]:
    size = f"a front of {len(front)} network{'' if len(front) == 1 else 's'}"
    if rule == "knee":
        return knee(front, directions), f"the knee of {size}: nearest to the best {_listed(directions)} at once"
    if rule == "cheapest":
        return _cheapest(pick, front, directions, size)
    if rule == "under":
        return _under(pick, front, directions, size)
    record = best(front, directions)
    name = primary(directions)
    extreme = "highest" if OBJECTIVES[name].is_maximized else "lowest"
    value = show(name, record.measurement.value(name))
    return record, f"the best of {size}: the {extreme} {OBJECTIVES[name].heading}, {value}"


def _cheapest(pick: str, front: Sequence[Record], directions: Mapping[str, str], size: str) -> tuple[Record, str]:
    """Return the front's cheapest record of enough Dice, by the study's first cost, then its others."""
    found = CHEAPEST.fullmatch(pick)
    costs = costs_among(directions)
    if not found:
        raise UserError([f"--pick: {pick!r} doesn't fit the form cheapest:dice>=0.85"])
    if not costs:
        raise UserError(["--pick: cheapest needs a cost among the study's objectives"])
    enough = float(found[1])
    fit = [record for record in front if (record.measurement.dice or 0.0) >= enough]
    if not fit:
        best_dice = max((record.measurement.dice or 0.0 for record in front), default=0.0)
        said = f"no network of the front has a Dice of {enough:g} or more; the best has {best_dice:.4f}"
        raise UserError([f"--pick: {said}"])
    record = min(fit, key=lambda each: losses([each], {name: directions[name] for name in costs})[0].tolist())
    cost = show_named(costs[0], record.measurement.value(costs[0]))
    why = f"the cheapest of {len(fit)} with a Dice of {enough:g} or more on {size}: {cost}"
    return record, f"{why}, Dice {record.measurement.dice:.4f}"


def _under(pick: str, front: Sequence[Record], directions: Mapping[str, str], size: str) -> tuple[Record, str]:
    """Return the front's best record within limits of costs."""
    limits, mistakes = {}, []
    for part in pick.partition(":")[2].split(","):
        name, equals, text = part.partition("=")
        if name not in PARSERS or not equals:
            mistakes.append(f"--pick: {part!r} is no limit such as memory=4GiB{nearest(name, list(PARSERS))}")
            continue
        try:
            limits[name] = float(PARSERS[name](text))
        except ValueError as error:
            mistakes.append(f"--pick: {name}: {error}")
    if mistakes:
        raise UserError(mistakes)
    fit = [record for record in front if all(_within(record, name, limit) for name, limit in limits.items())]
    said = " and ".join(f"{OBJECTIVES[name].heading} up to {show(name, limit)}" for name, limit in limits.items())
    if not fit:
        raise UserError([f"--pick: no network of the front has {said}"])
    record = best(fit, directions)
    name = primary(directions)
    value = show_named(name, record.measurement.value(name))
    return record, f"the best of {len(fit)} with {said} on {size}: {value}"


def _within(record: Record, name: str, limit: float) -> bool:
    value = record.measurement.value(name)
    return value is not None and value <= limit


def _neighbours(record: Record, records: Sequence[Record], directions: Mapping[str, str]) -> tuple[str, ...]:
    """Say what the networks beside a record on its front would give; nothing for one that isn't on it."""
    try:
        front = pareto_front(records, directions)
    except UserError:
        return ()
    place = next((index for index, each in enumerate(front) if each.number == record.number), None)
    if place is None:
        return ()
    beside = [front[index] for index in (place - 1, place + 1) if 0 <= index < len(front)]
    return tuple(f"trial {each.number} would give {_against(each, record, directions)}" for each in beside)


def _against(other: Record, record: Record, directions: Mapping[str, str]) -> str:
    said = []
    for name in directions:
        theirs, own = other.measurement.value(name), record.measurement.value(name)
        if theirs is None or own is None:
            continue
        change = OBJECTIVES[name].show_change(theirs, against=own)
        said.append(f"{show_named(name, theirs)} ({change})")
    return ", ".join(said)


def _numbered(number: int, records: Sequence[Record]) -> Record:
    record = next((record for record in records if record.number == number), None)
    if record is None:
        known = [record.number for record in records]
        held = f"has trials {min(known)} to {max(known)}" if known else "has no trials yet"
        raise UserError([f"--pick: there is no trial {number}; the study {held}"])
    if record.state != "trained":
        why = f" ({record.measurement.reason})" if record.measurement.reason else ""
        raise UserError([f"--pick: trial {number} has no trained network: it is {record.state}{why}"])
    return record


def _place(record: Record, records: Sequence[Record], directions: Mapping[str, str]) -> str:
    """Say where a trial stands towards the front."""
    try:
        others, front = comparable(records, directions), pareto_front(records, directions)
    except UserError as error:
        return f"its place on the front is not known ({error})"
    if record.number in [each.number for each in front]:
        return f"it is on the front of {len(front)}"
    if record.number not in [each.number for each in others]:
        return f"it is on no front, as it lacks a value of {_listed(directions)}"
    own = losses([record], directions)[0]
    ahead = [
        each
        for each, point in zip(others, losses(others, directions), strict=True)
        if (point <= own).all() and (point < own).any()
    ]
    if not ahead:
        return "it equals a network of the front"
    together = f"is better in {_listed(directions)} taken together and worse in none"
    return f"it is not on the front: trial {ahead[0].number} {together}"


def _listed(directions: Mapping[str, str]) -> str:
    names = [OBJECTIVES[name].heading for name in directions]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
