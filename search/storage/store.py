"""A driver's view of one study in its database: records are kept in memory, each change is written immediately."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import sqlalchemy as sql

from search.config.errors import UserError
from search.files.digests import sealed, sealed_value
from search.storage.address import GRPC, show_url, sqlite_file
from search.storage.begun import created_again, has_begun
from search.storage.database import ask_lock, make_engine, retry_outages, shared_by_drivers
from search.storage.failures import explained, require_sqlite
from search.storage.heartbeat import Heartbeat, driver_name
from search.storage.identity import plain, refuse_changes
from search.storage.optuna_values import excesses, optuna_directions, plain_choice
from search.storage.reader import RECORD, close_storage, has_known_tables, read_rows, storage_made_by_one
from search.storage.study_attributes import (
    CONTEXT,
    GOAL,
    LEARNED_FROM,
    REFERENCE,
    REFERENCES,
    RETIMED_BY,
    SOURCE_WEIGHTS,
    STUDY,
    STUDY_ID,
    TIMED,
    attribute_value,
)
from search.storage.trial_rows import insert_trial, update_costs
from search.trials.records import Record

if TYPE_CHECKING:
    import optuna


@dataclass
class Store:
    """One study in its database, as the driver `me` reads and writes it.

    Records are read once and cached; later reads fetch only new ones and running trials of other drivers. `mine` are
    the open trials of this driver, `others` those of other drivers.
    """

    study: optuna.Study
    study_id: str
    url: str
    me: str
    engine: sql.Engine | None
    kept: dict[int, Record] = field(default_factory=dict)
    ids: dict[int, int] = field(default_factory=dict)
    mine: set[int] = field(default_factory=set)
    others: set[int] = field(default_factory=set)
    heartbeat: Heartbeat = field(init=False)

    @staticmethod
    def open(url: str, name: str, *, directions: Mapping[str, str], values: Mapping[str, Any]) -> Store:
        """Create the study, or load it and compare its identity; one that has not begun takes the new values.

        Raises UserError that names each change.
        """
        import optuna

        if (file := sqlite_file(url)) is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            require_sqlite(url, empty=True)
        with explained(url):
            storage = retry_outages(lambda: storage_made_by_one(url), url=url, starting=True)
            study = optuna.create_study(
                study_name=name, storage=storage, directions=optuna_directions(directions), load_if_exists=True
            )
        known, given = attribute_value(study.user_attrs.get(STUDY), key=STUDY, url=url), plain(values)
        if known is not None and known != given and not has_begun(url, name):
            study, known = created_again(study, storage, directions), None
        study_id = study.user_attrs.get(STUDY_ID)
        if study_id is None:
            study_id = uuid4().hex
            study.set_user_attr(STUDY_ID, study_id)
        if known is None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                study.set_metric_names(list(directions))
            study.set_user_attr(STUDY, sealed(given))
        else:
            refuse_changes(name, known, given)
        return Store(study, study_id, url, driver_name(), None if url.startswith(GRPC) else make_engine(url))

    def __post_init__(self) -> None:
        self.heartbeat = Heartbeat(self.study, self.url, self.me)

    @cached_property
    def is_known(self) -> bool:
        """Whether the tables have a version that voxnas writes directly."""
        if self.engine is None:
            return False
        with self.engine.connect() as connection:
            return has_known_tables(connection)

    def _attribute(self, key: str) -> Any:
        """Return an attribute of the study; None if it was never written."""
        found = retry_outages(lambda: self.study.user_attrs.get(key), url=self.url)
        return attribute_value(found, key=key, url=self.url)

    def _write_attribute(self, key: str, value: Any) -> None:
        retry_outages(lambda: self.study.set_user_attr(key, sealed_value(value)), url=self.url)

    @property
    def reference(self) -> dict[str, float] | None:
        """The hypervolume's reference point, written when the study starts."""
        if self._reference is None:
            found = self._attribute(REFERENCE)
            self._reference = dict(found) if found is not None else None
        return self._reference

    @property
    def begun(self) -> bool:
        """Whether the study has a reference point or a trial."""
        return self.reference is not None or bool(self.records())

    @property
    def timed(self) -> dict[str, float]:
        """Latencies measured when the study started, in seconds by fingerprint."""
        return dict(self._attribute(TIMED) or {})

    def write_reference(self, point: Mapping[str, float], *, timed: Mapping[str, float] | None = None) -> None:
        """Write the hypervolume's reference point, and before it the latencies that were measured for it."""
        self._write_attribute(TIMED, dict(timed or {}))
        self._write_attribute(REFERENCE, dict(point))
        self._reference = dict(point)

    def write_retimed_by(self, driver: str) -> None:
        """Write which driver measures all latencies again, or an empty string once it has."""
        self._write_attribute(RETIMED_BY, driver)

    def write_goal(self, trials: int, *, ended: str = "") -> None:
        """Write the number of trials that a run is to reach; once it has ended by itself, also why."""
        self._write_attribute(GOAL, {"trials": trials, "ended": ended})

    _reference: dict[str, float] | None = field(default=None, init=False)

    @property
    def default_references(self) -> tuple[str, ...]:
        """The reference networks that were chosen when the study started; empty for a study of an earlier version."""
        return tuple(self._attribute(REFERENCES) or ())

    def write_default_references(self, names: Sequence[str]) -> None:
        """Write the reference networks that this study trains without being asked to."""
        self._write_attribute(REFERENCES, list(names))

    def write_sources(self, values: Sequence[Mapping[str, Any]]) -> None:
        """Write the earlier studies and tables that this study learns from; before the reference point."""
        self._write_attribute(LEARNED_FROM, list(values))

    def write_source_weights(self, weights: Sequence[float]) -> None:
        """Write the weights of these sources."""
        self._write_attribute(SOURCE_WEIGHTS, list(weights))

    def write_context(self, values: Mapping[str, Any]) -> None:
        """Write the context of the study's networks, its classes, and the name of its prepared data."""
        if CONTEXT not in self.study.user_attrs:
            self._write_attribute(CONTEXT, plain(values))

    def records(self) -> list[Record]:
        """Return all records, in the order of their numbers."""
        if not self.kept or shared_by_drivers(self.url):
            self._read(also=sorted(self.others))
        return list(self.kept.values())

    def _read(self, also: Sequence[int] = ()) -> None:
        after = max(self.kept, default=-1)
        rows = retry_outages(
            lambda: read_rows(self.url, self.study.study_name, engine=self.engine, after=after, also=also), url=self.url
        )
        for row in rows:
            self.kept[row.number], self.ids[row.number] = row.record, row.trial_id
            if row.number not in self.mine:
                (self.others.add if row.open else self.others.discard)(row.number)

    def exclusive_ask(self) -> AbstractContextManager[None]:
        """Prevent other drivers from asking within the context, so no network is trained twice, and not too many."""
        return ask_lock(self.engine, self.url, self.study._study_id)

    def close(self) -> None:
        """Close the database's connections."""
        close_storage(self.study._storage)
        if self.engine is not None:
            self.engine.dispose()

    def write_new(self, record: Record, *, choices: Mapping[str, Sequence[Any]]) -> Record:
        """Write a new running trial and its decisions as Optuna parameters; return it with its number.

        The trial, its record and its parameters are written in one transaction: all of them or none.
        """
        import optuna

        params = {name: plain_choice(value) for name, value in record.decisions}
        distributions: dict[str, Any] = {
            name: optuna.distributions.CategoricalDistribution([plain_choice(choice) for choice in choices[name]])
            for name in params
        }

        def write() -> Record:
            before = set(self.kept)
            self._read()  # after an outage an earlier try may turn out to have been written
            found = [each for number, each in self.kept.items() if number not in before and self._is(each, record)]
            if found:
                return found[0]
            if self.engine is not None and self.is_known:
                insert_trial(
                    self.engine,
                    self.study._study_id,
                    record,
                    params,
                    distributions,
                    locked=shared_by_drivers(self.url),
                )
            else:
                template = optuna.trial.create_trial(
                    state=optuna.trial.TrialState.RUNNING,
                    user_attrs={RECORD: sealed(record.to_values())},
                    params=params,
                    distributions=distributions,
                )
                self.study._storage.create_new_trial(self.study._study_id, template_trial=template)
            self._read()
            return next(each for each in reversed(self.kept.values()) if self._is(each, record))

        written = retry_outages(write, url=self.url)
        self.mine.add(written.number)
        self.others.discard(written.number)
        return written

    def _is(self, one: Record, other: Record) -> bool:
        return replace(one, number=0) == replace(other, number=0) and one.number not in self.mine

    def write_progress(self, record: Record) -> None:
        """Write a running trial's record; the trial belongs to this driver from now on."""
        retry_outages(lambda: self._write(record), url=self.url)
        self.mine.add(record.number)
        self.others.discard(record.number)

    def _write(self, record: Record) -> None:
        """Write a record, and before it the Dice of its new epochs as Optuna's intermediate values."""
        storage, known = self.study._storage, self.kept[record.number].measurement
        for epoch in record.measurement.first_epochs[len(known.first_epochs) :]:
            if epoch.dice is not None:
                storage.set_trial_intermediate_value(self.ids[record.number], epoch.number, epoch.dice)
        storage.set_trial_user_attr(self.ids[record.number], RECORD, sealed(record.to_values()))
        self.kept[record.number] = record

    def write_finished(self, record: Record, *, objectives: Sequence[str], budgets: Mapping[str, float]) -> None:
        """Write a finished trial, its record first: after a fault in between, the next driver finishes it.

        A trial that another driver has finished already stays as it is.
        """
        import optuna

        try:
            retry_outages(lambda: self._finish(record, objectives, budgets), url=self.url)
        except optuna.exceptions.UpdateFinishedTrialError:
            self._read(also=[record.number])
        self.mine.discard(record.number)
        self.others.discard(record.number)

    def _finish(self, record: Record, objectives: Sequence[str], budgets: Mapping[str, float]) -> None:
        import optuna

        self._write(record)
        storage, trial_id = self.study._storage, self.ids[record.number]
        for name, excess in excesses(record, budgets).items():
            storage.set_trial_system_attr(trial_id, f"constraints:{name}", excess)
        values = [record.measurement.value(name) for name in objectives]
        state = optuna.trial.TrialState
        if record.state == "trained" and None not in values:
            storage.set_trial_state_values(
                trial_id, state.COMPLETE, [float(value) for value in values if value is not None]
            )
        else:
            pruned = record.state in ("over budget", "stopped")
            storage.set_trial_state_values(trial_id, state.PRUNED if pruned else state.FAIL)

    def write_costs(self, record: Record, *, objectives: Sequence[str]) -> None:
        """Write a finished trial's costs again, in its record and among Optuna's values, in one transaction.

        Raises UserError for a database whose tables voxnas doesn't write directly.
        """
        if self.engine is None or not self.is_known:
            raise UserError([f"{show_url(self.url)}: costs of finished trials can't be changed through a proxy"])
        values = [record.measurement.value(name) for name in objectives] if record.state == "trained" else []
        update_costs(self.engine, self.ids[record.number], record, values)
        self.kept[record.number] = record

    def orphaned_trial(self) -> Record | None:
        """Return an open trial whose driver has ended: running, or finished but open in Optuna; None if none is."""
        self.records()
        for number in sorted(self.others):
            if not self.heartbeat.is_alive(self.kept[number].driver):
                return self.kept[number]
        return None


def now() -> str:
    """Return the current time as stored in records: UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
