"""Which trial to export, and why that one, in a sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from search.objectives import HEADINGS, show
from search.pareto import best, comparable, knee, losses, pareto_front
from search.records import Record
from search.study.mistakes import UserError, nearest

RULES = ("knee", "best")


def choose(pick: str, records: Sequence[Record], directions: Mapping[str, str]) -> tuple[Record, str]:
    """Return the record that `pick` (knee, best or a trial's number) means, and the reason to take it.

    Raises UserError for anything else, for a trial that isn't there, and for one that was not trained.
    """
    if pick.isdecimal():
        record = _numbered(int(pick), records)
        place = _place(record, records, directions)
        return record, f"trial {record.number}, asked for by its number; {place}"
    if pick not in RULES:
        raise UserError([f"--pick: {pick!r} is neither a trial's number nor a rule{nearest(pick, RULES)}"])
    front = pareto_front(records, directions)
    size = f"a front of {len(front)} network{'' if len(front) == 1 else 's'}"
    if pick == "knee":
        record = knee(front, directions)
        near = f"nearest to the best {_listed(directions)} at once"
        return record, f"trial {record.number}, the knee of {size}: {near}"
    record = best(front, directions)
    name = "dice" if "dice" in directions else next(iter(directions))
    extreme = "highest" if directions[name] == "maximize" else "lowest"
    value = show(name, record.measurement.value(name))
    return record, f"trial {record.number}, the best of {size}: the {extreme} {HEADINGS[name]}, {value}"


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
        return f"it stands on the front of {len(front)}"
    if record.number not in [each.number for each in others]:
        return f"it is on no front, as it lacks a value of {_listed(directions)}"
    own = losses([record], directions)[0]
    ahead = [each for each, point in zip(others, losses(others, directions), strict=True)
             if (point <= own).all() and (point < own).any()]  # fmt: skip
    if not ahead:
        return "it equals a network of the front"
    together = f"is better in {_listed(directions)} taken together and worse in none"
    return f"it is not on the front: trial {ahead[0].number} {together}"


def _listed(directions: Mapping[str, str]) -> str:
    names = [HEADINGS[name] for name in directions]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
