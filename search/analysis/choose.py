"""Choose a trial to export; explain the choice and compare it with its neighbours on the front."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from search.analysis.expected import with_expected
from search.config.errors import UserError, nearest
from search.config.objectives import OBJECTIVES, costs_among, primary, show, show_named
from search.config.units import counted
from search.trials.pareto import best, comparable, knee, latency_setting, losses, pareto_front
from search.trials.records import Record

RULES = ("knee", "best", "cheapest:dice>=0.85", "under:memory=4GiB,latency=30ms")
CHEAPEST = re.compile(r"cheapest:dice>=(0?\.\d+|[01](\.0*)?)")
LIMIT_PARSERS = {name: each.parse for name, each in OBJECTIVES.items() if each.parse}


@dataclass(frozen=True)
class Choice:
    """A record, the reason for choosing it, and a sentence on each neighbour on the front."""

    record: Record
    why: str
    neighbours: tuple[str, ...] = ()


def choose(
    pick: str, records: Sequence[Record], directions: Mapping[str, str], *, expected: Mapping[int, float] | None = None
) -> Choice:
    """Return the record that `pick` selects: by a rule of RULES, or by trial number.

    `expected` holds the expected Dice by trial number; where it is known, it counts in place of the measured Dice,
    which favours lucky trainings. Raises UserError for an invalid `pick`, for a missing or untrained trial, and if no
    trial satisfies the rule.
    """
    if not expected:
        return _choose(pick, records, directions)
    chosen = _choose(pick, with_expected(records, expected), directions)
    record = next(each for each in records if each.number == chosen.record.number)
    measured = show("dice", record.measurement.dice)
    note = f"Dice is the expected value over trainings; this training measured {measured}"
    return Choice(record, f"{chosen.why}. {note}", chosen.neighbours)


def _choose(pick: str, records: Sequence[Record], directions: Mapping[str, str]) -> Choice:
    if pick.isdecimal():
        record = _numbered(int(pick), records)
        why = f"selected by number; {_front_status(record, records, directions)}"
        return Choice(record, f"trial {record.number}, {why}", _neighbours(record, records, directions))
    rule = pick.partition(":")[0]
    if rule not in ("knee", "best", "cheapest", "under") or (pick != rule) != (rule in ("cheapest", "under")):
        raise UserError([f"--pick: {pick!r} is neither a trial number nor a rule{nearest(pick, RULES)}"])
    front = pareto_front(records, directions)
    record, why = _by_rule(pick, rule, front, directions)
    return Choice(record, f"trial {record.number}, {why}", _neighbours(record, records, directions))


def _by_rule(pick: str, rule: str, front: Sequence[Record], directions: Mapping[str, str]) -> tuple[Record, str]:
    size = f"a front of {counted(len(front), 'network')}"
    if rule == "knee":
        return knee(front, directions), f"the knee of {size}: closest to the best {_listed(directions)} combined"
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
    """Return the front's cheapest record with sufficient Dice, by the study's first cost, then by its other costs."""
    found = CHEAPEST.fullmatch(pick)
    costs = costs_among(directions)
    if not found:
        raise UserError([f"--pick: {pick!r} doesn't have the form cheapest:dice>=0.85"])
    if not costs:
        raise UserError(["--pick: cheapest needs a study with a cost among its objectives"])
    minimum = float(found[1])
    fit = [record for record in front if (record.measurement.dice or 0.0) >= minimum]
    if not fit:
        highest = max((record.measurement.dice or 0.0 for record in front), default=0.0)
        message = f"no network on the front has a Dice of at least {minimum:g}; the highest is {highest:.4f}"
        raise UserError([f"--pick: {message}"])
    record = min(fit, key=lambda each: losses([each], {name: directions[name] for name in costs})[0].tolist())
    cost = show_named(costs[0], record.measurement.value(costs[0]))
    why = f"the cheapest of {len(fit)} with a Dice of at least {minimum:g} on {size}: {cost}"
    return record, f"{why}, Dice {record.measurement.dice:.4f}"


def _under(pick: str, front: Sequence[Record], directions: Mapping[str, str], size: str) -> tuple[Record, str]:
    """Return the front's best record within cost limits."""
    limits, mistakes = {}, []
    for part in pick.partition(":")[2].split(","):
        name, equals, text = part.partition("=")
        if name not in LIMIT_PARSERS or not equals:
            hint = nearest(name, list(LIMIT_PARSERS))
            mistakes.append(f"--pick: {part!r} is not a limit such as memory=4GiB{hint}")
            continue
        try:
            limits[name] = float(LIMIT_PARSERS[name](text))
        except ValueError as error:
            mistakes.append(f"--pick: {name}: {error}")
    if mistakes:
        raise UserError(mistakes)
    fit = [record for record in front if all(_within(record, name, limit) for name, limit in limits.items())]
    bounds = " and ".join(f"{OBJECTIVES[name].heading} up to {show(name, limit)}" for name, limit in limits.items())
    if not fit:
        raise UserError([f"--pick: no network on the front has {bounds}"])
    record = best(fit, directions)
    name = primary(directions)
    value = show_named(name, record.measurement.value(name))
    return record, f"the best of {len(fit)} with {bounds} on {size}: {value}"


def _within(record: Record, name: str, limit: float) -> bool:
    value = record.measurement.value(name)
    return value is not None and value <= limit


def _neighbours(record: Record, records: Sequence[Record], directions: Mapping[str, str]) -> tuple[str, ...]:
    """Describe a record's neighbours on the front relative to it; empty if the record is not on the front."""
    front = pareto_front(records, directions)
    position = next((index for index, each in enumerate(front) if each.number == record.number), None)
    if position is None:
        return ()
    adjacent = [front[index] for index in (position - 1, position + 1) if 0 <= index < len(front)]
    return tuple(f"trial {each.number} would give {_relative_to(record, each, directions)}" for each in adjacent)


def _relative_to(record: Record, other: Record, directions: Mapping[str, str]) -> str:
    """List the objectives of another record, each with its change relative to this record."""
    changes = []
    for name in directions:
        theirs, own = other.measurement.value(name), record.measurement.value(name)
        if theirs is None or own is None:
            continue
        change = OBJECTIVES[name].show_change(theirs, against=own)
        changes.append(f"{show_named(name, theirs)} ({change})")
    return ", ".join(changes)


def _numbered(number: int, records: Sequence[Record]) -> Record:
    record = next((record for record in records if record.number == number), None)
    if record is None:
        known = [record.number for record in records]
        existing = f"has trials {min(known)} to {max(known)}" if known else "has no trials yet"
        raise UserError([f"--pick: there is no trial {number}; the study {existing}"])
    if record.state != "trained":
        why = f" ({record.measurement.reason})" if record.measurement.reason else ""
        raise UserError([f"--pick: trial {number} has no trained network: it is {record.state}{why}"])
    return record


def _front_status(record: Record, records: Sequence[Record], directions: Mapping[str, str]) -> str:
    """Describe a trial's position relative to the front."""
    others, front = comparable(records, directions), pareto_front(records, directions)
    if record.number in [each.number for each in front]:
        return f"on the front of {counted(len(front), 'network')}"
    if record.number not in [each.number for each in others]:
        if None in [record.measurement.value(name) for name in directions]:
            return f"it can't be on the front without values of {_listed(directions)}"
        return f"not comparable with the front, whose latencies belong to {latency_setting(others[0])}"
    own = losses([record], directions)[0]
    ahead = [
        each
        for each, point in zip(others, losses(others, directions), strict=True)
        if (point <= own).all() and (point < own).any()
    ]
    if not ahead:
        return "equal to a network on the front"
    return f"not on the front: dominated by trial {ahead[0].number} in {_listed(directions)}"


def _listed(directions: Mapping[str, str]) -> str:
    names = [OBJECTIVES[name].heading for name in directions]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
