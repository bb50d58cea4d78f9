"""The earlier studies and tables that a study learns from: found when it starts, and pinned by their digests.

A study that resumes reads the same trainings again. If they have changed, it is refused like one whose data changed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from search.config.errors import Mistake, UserError
from search.config.units import counted
from search.proposers.observations import FEWEST
from search.proposers.sources import Source, shared_axes, source_of_records, source_of_table
from search.runner.plan import Plan
from search.storage import GOAL, REFERENCE, read_records, read_study_attributes, stored_values
from search.storage.address import sqlite_file
from search.storage.heartbeat import DRIVER, is_present
from search.storage.ownership import read_owner
from search.storage.study_attributes import LEARNED_FROM, SOURCE_WEIGHTS, stored_attribute
from search.trials.records import Record
from search.trials.table_file import read_trainings

AUTO = "auto"
KEY = "search.learn_from"
LEARNS = "known-cost"  # the proposer that learns from sources


@dataclass(frozen=True)
class Pinned:
    """A source as the study stores it: its place, and the number and digest of the trainings that it had.

    `records` are the numbers of a study's trials, so that trials which it runs later do not count; empty for a table.
    """

    name: str
    place: str
    trainings: int
    digest: str
    records: tuple[int, ...] = ()


@dataclass(frozen=True)
class Learned:
    """A source of a study: pinned, read, and with its weight at the end of the last run."""

    pinned: Pinned
    source: Source = field(repr=False, compare=False)
    axes: tuple[str, ...]
    weight: float | None = None

    def __str__(self) -> str:
        weight = "" if self.weight is None else f", weight {self.weight:.2f}"
        shared = counted(len(self.axes), "shared axis", plural="shared axes")
        return f"{self.pinned.name} ({counted(len(self.source.trainings), 'training')}, {shared}{weight})"


def learned_from(plan: Plan) -> tuple[Learned, ...]:
    """Return the sources of a study: those it started with, or those it would start with now.

    Raises UserError for each source that can't be used, and for each that has changed since the study started.
    """
    name = plan.study.name
    if stored_attribute(plan.url, name, REFERENCE) is None:
        return _first(plan)
    stored = stored_attribute(plan.url, name, LEARNED_FROM) or []  # studies of earlier versions have none
    weights = stored_attribute(plan.url, name, SOURCE_WEIGHTS) or [None] * len(stored)
    pinned = [Pinned(**{**each, "records": tuple(each["records"])}) for each in stored]
    return _all(lambda both: _again(plan, *both), list(zip(pinned, weights, strict=True)), name=name)


def pinned_values(learned: Sequence[Learned]) -> list[dict[str, Any]]:
    """Return what a study stores about its sources."""
    return [asdict(each.pinned) for each in learned]


def describe_sources(plan: Plan, learned: Sequence[Learned]) -> str:
    """Return a line about the sources; empty if the study names none and there are none."""
    if learned:
        return f"Learns from {', '.join(map(str, learned))}."
    if plan.study.search.learn_from != AUTO or plan.study.search.proposer != LEARNS or "dice" not in plan.directions:
        return ""
    needed = f"none in {plan.runs} has ended with {FEWEST} or more trained networks and varies an axis of this one"
    return f"Learns from no earlier study: {needed}."


def _first(plan: Plan) -> tuple[Learned, ...]:
    """Return the sources of a study that has not started."""
    search = plan.study.search
    learns = search.proposer == LEARNS and "dice" in plan.directions
    if search.learn_from == AUTO:
        return _automatic(plan) if learns else ()
    if search.learn_from and not learns:
        needed = f"only the proposer {LEARNS} learns from earlier studies, and only with the objective dice"
        raise UserError([f"{KEY}: {needed}; remove the key"])
    return _all(lambda named: _named(plan, named), search.learn_from)


def _all(read: Callable[[Any], Learned], items: Sequence[Any], *, name: str = "") -> tuple[Learned, ...]:
    """Read all sources, and raise UserError with the mistakes of all of them; `name` is that of a started study."""
    found: list[Learned] = []
    mistakes: list[Mistake | str] = []
    for each in items:
        try:
            found.append(read(each))
        except UserError as error:
            mistakes += error.mistakes
    if mistakes:
        hint = f"study {name!r} already has records that depend on this; undo the change, or use another study name"
        raise UserError([*mistakes, *([hint] if name else [])])
    return tuple(found)


def _automatic(plan: Plan) -> tuple[Learned, ...]:
    """Return the finished studies of the runs folder that vary an axis of the new study."""
    found = []
    for folder in sorted(plan.runs.glob("*/study.db")):
        try:
            study = _study(folder.parent)
            if study.ended and not study.running and folder.parent.resolve() != plan.folder.resolve():
                found.append(_usable(plan, study.place, *study.trainings()))
        except UserError:  # not a study, of another version, or of no use here
            continue
    return tuple(found)


def _named(plan: Plan, named: str) -> Learned:
    """Return a source of the study file. Raises UserError."""
    places = [plan.loaded.file.parent / named, Path(named), plan.runs / named]
    place = next((each for each in places if each.exists()), None)
    if place is None:
        looked = ", ".join(dict.fromkeys(str(each) for each in places))
        raise UserError([f"{KEY}: no such study or file: {named} (looked for {looked})"])
    if place.is_dir():
        study = _study(place)
        if place.resolve() == plan.folder.resolve():
            raise UserError([f"{KEY}: {named} is this study itself"])
        if study.running:
            raise UserError([f"{KEY}: {named} is running; wait for its end, or leave it out"])
        return _usable(plan, place, *study.trainings())
    return _usable(plan, place, _table(place), ())


def _again(plan: Plan, pinned: Pinned, weight: float | None) -> Learned:
    """Read a source of a study that has started. Raises UserError if it is missing or has changed."""
    places = [Path(pinned.place), plan.runs / pinned.name]
    place = next((each for each in places if each.exists()), None)
    if place is None:
        raise UserError([f"{KEY}: {pinned.name} was there when the study began; now there is no {pinned.place}"])
    source = _study(place).trainings(pinned.records)[0] if place.is_dir() else _table(place)
    if source.digest != pinned.digest:
        raise UserError([f"{KEY}: the trainings of {pinned.name} have changed since the study began"])
    return Learned(pinned, source, shared_axes(plan.space, source), weight)


def _usable(plan: Plan, place: Path, source: Source, records: tuple[int, ...]) -> Learned:
    """Return a source that is of use to a new study. Raises UserError."""
    trained = len({each.network for each in source.trainings if each.state == "trained"})
    if trained < FEWEST:
        least = f"a study learns from {FEWEST} or more"
        raise UserError([f"{KEY}: {source.name} has {counted(trained, 'trained network')}; {least}"])
    axes = shared_axes(plan.space, source)
    if not axes:
        own = ", ".join(axis.name for axis in plan.space.axes if len(axis.choices) > 1)
        theirs = ", ".join(source.axes) or "nothing"
        raise UserError([f"{KEY}: {source.name} shares no axis with this study: it varies {theirs}; here {own} vary"])
    pinned = Pinned(source.name, str(place.resolve()), len(source.trainings), source.digest, records)
    return Learned(pinned, source, axes)


@dataclass(frozen=True)
class _Study:
    """An earlier study in its folder."""

    place: Path
    url: str
    name: str
    ended: bool
    running: bool

    def trainings(self, numbers: Sequence[int] | None = None) -> tuple[Source, tuple[int, ...]]:
        """Return the study's trainings on its own fold, or some of them, and their numbers. Raises UserError."""
        try:
            records = read_records(self.url, self.name)
        except UserError as error:
            raise UserError([f"{KEY}: {self.place}: {each}" for each in error.mistakes]) from None
        fold = (stored_values(self.url, self.name) or {}).get("data", {}).get("fold", 0)
        wanted = None if numbers is None else set(numbers)
        used = [each for each in records if _counts(each, fold) and (wanted is None or each.number in wanted)]
        return source_of_records(self.place.name, used), tuple(each.number for each in used)


def _counts(record: Record, fold: int) -> bool:
    return record.fold == fold and not record.is_outside and record.state in ("trained", "stopped")


def _study(place: Path) -> _Study:
    """Return the study of a run's folder. Raises UserError if there is none that can be read from local files."""
    owner = read_owner(place)
    if owner is None:
        raise UserError([f"{KEY}: {place} is not the folder of a study"])
    url = owner.url(place)
    if sqlite_file(url) is None:
        raise UserError([f"{KEY}: {place} keeps its records on a database server; a study learns from local files"])
    try:
        attributes = read_study_attributes(url, owner.study, "voxnas:%")
    except UserError as error:
        raise _of_key(error) from None
    running = any(is_present(beat) for key, beat in attributes.items() if key.startswith(DRIVER))
    return _Study(place, url, owner.study, bool(attributes.get(GOAL, {}).get("ended")), running)


def _of_key(error: UserError) -> UserError:
    return UserError([f"{KEY}: {each}" for each in error.mistakes])


def _table(file: Path) -> Source:
    try:
        return source_of_table(file.name, read_trainings(file))
    except UserError as error:
        raise _of_key(error) from None
