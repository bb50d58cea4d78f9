"""Read a study's snapshot from its database; each record is read and parsed only once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sql

from search.analysis.snapshot import Snapshot
from search.analysis.trial import Trial
from search.config import LoadedStudy, Study, UserError
from search.config.blocks import VERSION_OF
from search.config.objectives import OBJECTIVES
from search.config.units import BASE_UNITS
from search.config.validate import read_as
from search.config.yaml_source import Source
from search.storage import CONTEXT, GOAL, REFERENCE, STUDY, Row, each_row, read_study_attribute
from search.storage.address import GRPC, database_url
from search.storage.database import make_reader, require_database
from search.storage.failures import explained, require_sqlite
from search.storage.identity import CONTENT
from search.trials.epochs import Epochs
from search.trials.files import run_folder
from search.trials.records import Record
from space.canonical import Context

NEVER = 2**31 - 1  # above every trial number


def open_reader(study: Study, folder: Path) -> SnapshotReader:
    """Return a reader of the database of a study's run folder. Raises UserError if there is none."""
    return SnapshotReader(study, folder, database_url(study.storage, folder))


def read_snapshot(study: Study, folder: Path) -> Snapshot:
    """Read a study's snapshot from its run folder. Raises UserError if nothing has run yet."""
    reader = open_reader(study, folder)
    try:
        return reader.read()
    finally:
        reader.close()


def snapshot_of(loaded: LoadedStudy, *, runs: Path) -> Snapshot:
    """Read the snapshot of a study file from the runs folder. Raises UserError if nothing has run yet."""
    return read_snapshot(loaded.study, run_folder(runs, loaded.study))


def stored_study(url: str, name: str, *, storage: str | None = None) -> Study | None:
    """Return a study as stored in its database, including overrides; None if none was started there.

    Raises UserError if another version or another program wrote the study.
    """
    values = read_study_attribute(url, name, STUDY)
    if not isinstance(values, dict):
        return None
    values = {key: value for key, value in values.items() if not key.startswith(VERSION_OF)}
    sections = {key: section for key, section in values.items() if isinstance(section, dict)}
    values.pop(CONTENT, None)
    sections.get("data", {}).pop("cases", None)  # of earlier versions
    if "objectives" in sections:
        values["objectives"] = {
            key: _with_unit(each, OBJECTIVES[key].parse if key in OBJECTIVES else None)
            for key, each in sections["objectives"].items()
            if each is not None
        }
    deadline = sections.get("training", {}).get("deadline")
    if deadline is not None:
        sections["training"]["deadline"] = f"{deadline} s"
    source = Source(f"study {name!r} in its database", {**values, "name": "study", "storage": storage})
    study, mistakes = read_as(Study, source)
    if study is None:
        raise UserError([*mistakes, f"this version of voxnas can't read study {name!r}: another one wrote it"])
    return replace(study, name=name)  # an ablation's settings have names that no file could give


def _with_unit(goal: Any, parse: Callable[[Any], float] | None) -> Any:
    """Return a stored objective with its budget as a file has it: a number with its unit."""
    if not isinstance(goal, dict) or goal.get("budget") is None or parse is None:
        return goal
    return {**goal, "budget": f"{goal['budget']} {BASE_UNITS[parse]}".strip()}


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp() if text else 0.0


def trial_of(record: Record, known: dict[Any, Any]) -> Trial:
    """Return a record's summary; values that many trials share are stored only once, in `known`."""
    measurement = record.measurement
    latency = measurement.latency
    device = latency.setting if latency else ""
    validated = [dice for dice in measurement.first_dice if dice is not None]
    values = [measurement.value(name) for name in OBJECTIVES]
    decisions = {
        known.setdefault(name, name): known.setdefault((type(each), each), each) for name, each in record.decisions
    }
    return Trial(
        number=record.number,
        state=record.state,
        values=tuple(np.nan if each is None else each for each in values),
        dice_so_far=validated[-1] if validated else np.nan,
        dice_sd=np.nan if measurement.dice_sd is None else measurement.dice_sd,
        iqr_s=latency.iqr_s if latency else np.nan,
        device=known.setdefault(device, device),
        network=record.architecture.describe(),
        fingerprint=record.architecture.fingerprint,
        decisions=decisions,
        reason=measurement.reason,
        started=_seconds(record.started),
        ended=_seconds(record.ended),
        spent_s=measurement.spent_s,
        epochs=Epochs.of(measurement.epochs),
        driver=known.setdefault(record.driver, record.driver),
        attempts=record.attempts,
        machine=known.setdefault(measurement.machine, measurement.machine),
    )


@dataclass
class SnapshotReader:
    """Reads one study of one database; each read fetches only trials that are new or were still running.

    It never writes. `read` is thread-safe. Raises UserError if there is no such database.
    """

    study: Study
    folder: Path
    url: str
    engine: sql.Engine | None = field(init=False)
    lock: threading.Lock = field(default_factory=threading.Lock)
    trials: dict[int, Trial] = field(default_factory=dict)
    confirmations: dict[int, Record] = field(default_factory=dict)
    networks: dict[int, Record] = field(default_factory=dict)
    open: set[int] = field(default_factory=set)
    known: dict[Any, Any] = field(default_factory=dict)
    kept: dict[str, Any] = field(default_factory=dict)
    goal: dict[str, Any] = field(default_factory=dict)
    last: Snapshot | None = None
    changed: bool = False  # since the last snapshot, also by a read that failed half-way

    def __post_init__(self) -> None:
        if not self.url.startswith(GRPC):
            require_database(self.url)
            require_sqlite(self.url)
        self.engine = None if self.url.startswith(GRPC) else make_reader(self.url)

    def read(self) -> Snapshot:
        """Return the current snapshot; the same object as before if nothing changed."""
        with self.lock, explained(self.url):
            after = max([*self.trials, *self.confirmations, *self.networks], default=-1)
            for row in self._rows(after=after, also=sorted(self.open)):
                self.changed |= self._take(row)
            goal_before, self.goal = self.goal, self._attribute(GOAL)
            if self.last is None or self.changed or self.goal != goal_before:
                self.last, self.changed = self._snapshot(), False
            return self.last

    def close(self) -> None:
        """Close the connections; a later read opens them again."""
        if self.engine is not None:
            self.engine.dispose()

    def _rows(self, *, after: int, also: Sequence[int]) -> Iterator[Row]:
        return each_row(self.url, self.study.name, engine=self.engine, after=after, also=also)

    def _take(self, row: Row) -> bool:
        record = row.record
        (self.open.add if row.open else self.open.discard)(row.number)
        if (record.seed, record.fold) != (self.study.search.seed, self.study.data.fold):
            before = self.confirmations.get(row.number)
            self.confirmations[row.number] = record
            return before != record
        if record.reference:
            before, self.networks[row.number] = self.networks.get(row.number), record
            if record.is_outside:
                return before != record
        trial = trial_of(record, self.known)
        if self.trials.get(row.number) == trial:
            return False
        self.trials[row.number] = trial
        return True

    def _snapshot(self) -> Snapshot:
        reference = self.last.reference if self.last else {}
        kept = self.kept or self._attribute(CONTEXT)
        self.kept = kept
        context = None
        if kept:
            context = Context(tuple(kept["patch"]), tuple(kept["spacing"]), kept["in_channels"], kept["classes"])
        return Snapshot(
            self.study,
            self.folder,
            self.url,
            tuple(self.trials.values()),
            tuple(self.confirmations.values()),
            reference or self._attribute(REFERENCE),
            context,
            tuple(kept.get("labels", ())),
            kept.get("prepared", ""),
            kept.get("kind", "cpu"),
            self.goal.get("trials", self.study.search.trials),
            self.goal.get("ended", ""),
            self.fetch,
            tuple(self.networks.values()),
        )

    def _attribute(self, key: str) -> dict[str, Any]:
        found: dict[str, Any] = read_study_attribute(self.url, self.study.name, key) or {}
        return found

    def fetch(self, numbers: Sequence[int] | None) -> list[Record]:
        """Read the full records of some trials, or of all (None), in the order of their numbers."""
        with explained(self.url):
            rows = self._rows(after=-1, also=()) if numbers is None else self._rows(after=NEVER, also=numbers)
            return [row.record for row in rows]
