"""A study's trials as compact columns: what figures and tables are worked out from, ten thousand trials at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import moocore
import numpy as np
import sqlalchemy as sql
from numpy.typing import NDArray

from search.analysis.confirmation import Confirmed, confirmed_front
from search.config import Study
from search.config.objectives import OBJECTIVES, per_device
from search.storage import CONTEXT, REFERENCE, Row, read_rows, read_study_attribute
from search.storage.database import GRPC, make_reader, require_database
from search.trials.pareto import volumes_so_far, worst_losses
from search.trials.records import Record, State
from space.architecture import Value
from space.canonical import Context

NEVER = 2**31 - 1  # behind every trial's number
Numbers = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Entry:
    """What is kept of a trial: values in the order of OBJECTIVES (NaN if unknown), its curve of Dice.

    `dice_so_far` is that of its last validated epoch, also of a trial that was stopped; times are seconds since 1970.
    """

    number: int
    state: State
    values: tuple[float, ...]
    dice_so_far: float
    iqr_s: float
    device: str
    network: str
    fingerprint: str
    decisions: Mapping[str, Value]
    reason: str
    started: float
    ended: float
    spent_s: float
    curve: tuple[tuple[int, float], ...]
    epochs: int


@dataclass(frozen=True)
class Sheet:
    """A study as it stands: entries of the search, records that confirm it, and what they are measured from.

    `label` names the study where several are shown.
    """

    study: Study
    folder: Path
    url: str
    entries: tuple[Entry, ...]
    confirmations: tuple[Record, ...]
    reference: Mapping[str, float]
    context: Context | None
    labels: tuple[str, ...]
    prepared: str
    fetch: Callable[[Sequence[int]], list[Record]]

    @property
    def label(self) -> str:
        """The study's name."""
        return self.study.name

    @property
    def objectives(self) -> list[str]:
        """The names of its objectives."""
        return list(self.study.directions)

    @cached_property
    def numbers(self) -> NDArray[np.int32]:
        """The trials' numbers."""
        return np.array([entry.number for entry in self.entries], dtype=np.int32)

    @cached_property
    def states(self) -> NDArray[np.str_]:
        """The trials' states."""
        return np.array([entry.state for entry in self.entries], dtype="U11")

    @cached_property
    def values(self) -> dict[str, Numbers]:
        """Each objective's values, NaN where a trial has none."""
        table = np.array([entry.values for entry in self.entries], dtype=float).reshape(-1, len(OBJECTIVES))
        return {name: table[:, column] for column, name in enumerate(OBJECTIVES)}

    @cached_property
    def devices(self) -> tuple[str, ...]:
        """Which devices, threads and precisions the trained trials' latencies belong to."""
        return tuple(sorted({each.device for each in self.entries if each.device and each.state == "trained"}))

    @cached_property
    def losses(self) -> Numbers:
        """One row a trial and a column an objective, all to be minimised; NaN where a trial has no place on a front."""
        columns = [OBJECTIVES[name].loss(self.values[name]) for name in self.study.directions]
        table = np.column_stack(columns) if columns else np.empty((len(self.entries), 0))
        table[(self.states != "trained") | np.isnan(table).any(axis=1)] = np.nan
        return table

    @cached_property
    def comparable(self) -> NDArray[np.bool_]:
        """Which trials were trained to their end and have every objective."""
        return np.asarray(~np.isnan(self.losses).any(axis=1))

    @property
    def is_mixed(self) -> bool:
        """Whether its latencies belong to several devices, so that there is no one front."""
        return per_device(self.study.directions) and len(self.devices) > 1

    @cached_property
    def front(self) -> NDArray[np.bool_]:
        """Which trials no other dominates."""
        found = np.zeros(len(self.entries), dtype=bool)
        rows = np.flatnonzero(self.comparable)
        if len(rows) and not self.is_mixed:
            found[rows[moocore.is_nondominated(self.losses[rows], keep_weakly=False)]] = True
        return found

    @cached_property
    def axes(self) -> dict[str, tuple[Value, ...]]:
        """The axes that differ between trials, with the values that were seen."""
        seen: dict[str, dict[Value, None]] = {}
        for entry in self.entries:
            for name, value in entry.decisions.items():
                seen.setdefault(name, {})[value] = None
        return {name: tuple(sorted(values, key=_order)) for name, values in seen.items() if len(values) > 1}

    def choices(self, axis: str) -> list[str]:
        """Return what each trial chose on an axis, as text; `not there` where the axis is closed."""
        return [str(each.decisions.get(axis, "not there")) for each in self.entries]

    @cached_property
    def progress(self) -> tuple[NDArray[np.int64], Numbers, Numbers]:
        """Rows in the order of their end, hours of trials until then, and the hypervolume reached."""
        order = np.array(sorted(range(len(self.entries)), key=lambda row: self._end(row)), dtype=int)
        ended = order[[self.entries[row].state != "running" for row in order]] if len(order) else order
        hours = np.cumsum([self.entries[row].spent_s for row in ended]) / 3600
        return ended, hours, self.volumes(ended, self.reference)

    def volumes(self, rows: NDArray[np.int64], reference: Mapping[str, float]) -> Numbers:
        """Return the hypervolume from a reference after each of these trials; 0 where there is no reference."""
        if not reference or self.is_mixed:
            return np.zeros(len(rows))
        points = np.where(np.isnan(self.losses[rows]), np.inf, self.losses[rows])
        return np.array(volumes_so_far(points, worst_losses(reference, self.study.directions)))

    def only(self, kept: NDArray[np.bool_]) -> Sheet:
        """Return the sheet of some of its trials, as if there were no others."""
        chosen = tuple(entry for entry, keep in zip(self.entries, kept, strict=True) if keep)
        return replace(self, entries=chosen)

    def _end(self, row: int) -> tuple[float, int]:
        return (self.entries[row].ended or np.inf, self.entries[row].number)

    @cached_property
    def confirmed(self) -> list[Confirmed]:
        """The front as confirmation left it; empty where nothing was confirmed."""
        if not self.confirmations:
            return []
        front = self.fetch([int(number) for number in self.numbers[self.front]])
        return confirmed_front(front, self.confirmations, self.study.directions)

    def record(self, number: int) -> Record | None:
        """Read a trial's whole record; None where there is no such trial."""
        found = self.fetch([number])
        return found[0] if found else None

    def row_of(self, number: int) -> int | None:
        """Return where a trial of the search stands; None where it does not."""
        rows = np.flatnonzero(self.numbers == number)
        return int(rows[0]) if len(rows) else None


def _order(value: Value) -> tuple[bool, Any]:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return (not is_number, value if is_number else str(value))


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp() if text else 0.0


def entry_of(record: Record, known: dict[Any, Any]) -> Entry:
    """Return what is kept of a record; texts that many trials share are kept once, in `known`."""
    measurement = record.measurement
    latency = measurement.costs.latency if measurement.costs else None
    device = f"{latency.device}, {latency.threads} threads, {latency.precision}" if latency else ""
    curve = tuple((epoch.number, epoch.dice) for epoch in measurement.epochs if epoch.dice is not None)
    values = [measurement.value(name) for name in OBJECTIVES]
    decisions = {
        known.setdefault(name, name): known.setdefault((type(each), each), each) for name, each in record.decisions
    }
    return Entry(
        number=record.number,
        state=record.state,
        values=tuple(np.nan if each is None else each for each in values),
        dice_so_far=curve[-1][1] if curve else np.nan,
        iqr_s=latency.iqr_s if latency else np.nan,
        device=known.setdefault(device, device),
        network=record.architecture.describe(),
        fingerprint=record.architecture.fingerprint,
        decisions=decisions,
        reason=measurement.reason,
        started=_seconds(record.started),
        ended=_seconds(record.ended),
        spent_s=measurement.spent_s,
        curve=curve,
        epochs=len(measurement.epochs),
    )


@dataclass
class SheetReader:
    """Reads one study of one database, each time only what is new or was still running; never writes.

    `read` may be called by several threads. Raises UserError where there is no such database.
    """

    study: Study
    folder: Path
    url: str
    engine: sql.Engine | None = field(init=False)
    lock: threading.Lock = field(default_factory=threading.Lock)
    entries: dict[int, Entry] = field(default_factory=dict)
    confirmations: dict[int, Record] = field(default_factory=dict)
    open: set[int] = field(default_factory=set)
    known: dict[Any, Any] = field(default_factory=dict)
    said: dict[str, Any] = field(default_factory=dict)
    sheet: Sheet | None = None

    def __post_init__(self) -> None:
        if not self.url.startswith(GRPC):
            require_database(self.url)
        self.engine = None if self.url.startswith(GRPC) else make_reader(self.url)

    def read(self) -> Sheet:
        """Return the study as it stands now; the same sheet as before where nothing changed."""
        with self.lock:
            after = max([*self.entries, *self.confirmations], default=-1)
            rows = self._rows(after=after, also=sorted(self.open))
            changed = [self._take(row) for row in rows]
            if self.sheet is None or any(changed):
                self.sheet = self._sheet()
            return self.sheet

    def close(self) -> None:
        """Close the connections; a later read opens them again."""
        if self.engine is not None:
            self.engine.dispose()

    def _rows(self, *, after: int, also: Sequence[int]) -> list[Row]:
        return read_rows(self.url, self.study.name, engine=self.engine, after=after, also=also)

    def _take(self, row: Row) -> bool:
        record = row.record
        (self.open.add if row.open else self.open.discard)(row.number)
        if (record.seed, record.fold) != (self.study.search.seed, self.study.data.fold):
            before = self.confirmations.get(row.number)
            self.confirmations[row.number] = record
            return before != record
        entry = entry_of(record, self.known)
        before_entry = self.entries.get(row.number)
        self.entries[row.number] = entry
        return before_entry is None or (before_entry.state, before_entry.epochs) != (entry.state, entry.epochs)

    def _sheet(self) -> Sheet:
        reference = self.sheet.reference if self.sheet else {}
        said = self.said or self._attribute(CONTEXT)
        self.said = said
        context = None
        if said:
            context = Context(tuple(said["patch"]), tuple(said["spacing"]), said["in_channels"], said["classes"])
        return Sheet(
            self.study,
            self.folder,
            self.url,
            tuple(self.entries.values()),
            tuple(self.confirmations.values()),
            reference or self._attribute(REFERENCE),
            context,
            tuple(said.get("labels", ())),
            said.get("prepared", ""),
            self.fetch,
        )

    def _attribute(self, key: str) -> dict[str, Any]:
        found: dict[str, Any] = read_study_attribute(self.url, self.study.name, key) or {}
        return found

    def fetch(self, numbers: Sequence[int]) -> list[Record]:
        """Read the whole records of some trials, in the order of their numbers."""
        return [row.record for row in self._rows(after=NEVER, also=numbers)]
