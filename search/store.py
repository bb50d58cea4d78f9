"""An Optuna storage as a list of Records: the only file that knows its tables and attribute names.

A trial's architecture is written at once, as a running trial made from a template; a Record is one JSON attribute,
and all records are read by one query. `read_records` needs SQLAlchemy alone, so that looking at a study is quick.
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sql

from search.database import (
    GRPC,
    make_engine,
    patiently,
    require_database,
    shared_by_drivers,
    tune_sqlite,
    turn_to_ask,
)
from search.presence import Presence, driver_name
from search.records import Record
from search.study.mistakes import UserError

if TYPE_CHECKING:
    import optuna

RECORD = "voxnas:record"
STUDY = "voxnas:study"
REFERENCE = "voxnas:hypervolume_reference"
SCHEMA_VERSIONS = (12,)  # of Optuna's tables; another version is read through Optuna itself
MAKING_TRIES = 5
RECORDS = (
    "SELECT t.number, t.trial_id, t.state, a.value_json FROM trials t"
    " JOIN studies s ON s.study_id = t.study_id"
    " JOIN trial_user_attributes a ON a.trial_id = t.trial_id AND a.key = :record"
    " WHERE s.study_name = :name AND (t.number > :after OR t.number IN :also) ORDER BY t.number"
)
PARAMS = sql.text(
    "INSERT INTO trial_params (trial_id, param_name, param_value, distribution_json)"
    " VALUES (:trial, :name, :value, :text)"
)
STUDY_ATTRIBUTES = sql.text(
    "SELECT a.key, a.value_json FROM study_user_attributes a JOIN studies s ON s.study_id = a.study_id"
    " WHERE s.study_name = :name AND a.key LIKE :pattern"
)


@dataclass(frozen=True)
class Row:
    """A trial as the tables have it: `open` while Optuna holds it to be running."""

    number: int
    trial_id: int
    open: bool
    text: str

    @property
    def record(self) -> Record:
        """The record, under the number that the trial got."""
        return Record.from_values({**json.loads(self.text), "number": self.number})


def read_records(url: str, name: str) -> list[Record]:
    """Read all records of a study by one query, in the order of their numbers.

    Raises UserError where there is no such database or study.
    """
    with reading(url) as engine:
        return [row.record for row in read_rows(url, name, engine=engine)]


@contextmanager
def reading(url: str) -> Iterator[sql.Engine | None]:
    """Hold a database open for reading; None behind a proxy, where all goes through Optuna."""
    if url.startswith(GRPC):
        yield None
        return
    require_database(url)
    engine = make_engine(url)
    try:
        yield engine
    finally:
        engine.dispose()


def read_rows(
    url: str, name: str, *, engine: sql.Engine | None, after: int = -1, also: Sequence[int] = ()
) -> list[Row]:
    """Read the trials behind a number, and some before it."""
    if engine is not None:
        with engine.connect() as connection:
            if has_known_tables(connection):
                query = sql.text(RECORDS).bindparams(sql.bindparam("also", expanding=True))
                found = connection.execute(query, {"record": RECORD, "name": name, "after": after, "also": [*also]})
                return [Row(row[0], row[1], str(row[2]) == "RUNNING", row[3]) for row in found]
    import optuna

    with open_storage(url) as storage:
        trials = optuna.load_study(study_name=name, storage=storage).get_trials(deepcopy=False)
    return [
        Row(trial.number, trial._trial_id, not trial.state.is_finished(), json.dumps(trial.user_attrs[RECORD]))
        for trial in trials
        if RECORD in trial.user_attrs and (trial.number > after or trial.number in also)
    ]


def has_known_tables(connection: sql.Connection) -> bool:
    """Tell whether Optuna's tables are of a version that is read and written here directly.

    Raises UserError where they are not there (yet): reading never makes them, which a driver may be about to do.
    """
    try:
        version = connection.execute(sql.text("SELECT schema_version FROM version_info")).scalar()
    except (sql.exc.OperationalError, sql.exc.ProgrammingError) as error:
        if "version_info" not in str(error):
            raise
        version = None
    if version is None:
        raise UserError([f"nothing has run yet in {shown(str(connection.engine.url))}; start with `voxnas run`"])
    return version in SCHEMA_VERSIONS


def read_study_attribute(url: str, name: str, key: str) -> Any:
    """Return a study's attribute, None where it was never written."""
    return read_study_attributes(url, name, key).get(key)


def read_study_attributes(url: str, name: str, pattern: str) -> dict[str, Any]:
    """Return those attributes of a study whose names are like an SQL pattern."""
    with reading(url) as engine:
        if engine is None:
            import optuna

            with open_storage(url) as storage:
                attributes = optuna.load_study(study_name=name, storage=storage).user_attrs
            return {key: each for key, each in attributes.items() if key.startswith(pattern.rstrip("%"))}
        with engine.connect() as connection:
            rows = connection.execute(STUDY_ATTRIBUTES, {"name": name, "pattern": pattern})
            return {row[0]: json.loads(row[1]) for row in rows}


def optuna_storage(url: str) -> optuna.storages.BaseStorage:
    """Return Optuna's storage at a URL. Raises UserError where its tables are of another version."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if url.startswith(GRPC):
        host, _, port = url.removeprefix(GRPC).rpartition(":")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return optuna.storages.GrpcStorageProxy(host=host, port=int(port))
    try:
        storage = optuna.storages.RDBStorage(url, engine_kwargs={"pool_pre_ping": not url.startswith("sqlite")})
    except RuntimeError as error:
        if "table schema" not in str(error):
            raise
        mend = f"voxnas studies {shown(url)} --upgrade"
        raise UserError([f"{shown(url)} was written by an older version; `{mend}` brings it up to date"]) from None
    if url.startswith("sqlite"):
        sql.event.listen(storage.engine, "connect", tune_sqlite)
        storage.engine.dispose()  # connections made before are not tuned
    return storage


@contextmanager
def open_storage(url: str) -> Iterator[optuna.storages.BaseStorage]:
    """Hold Optuna's storage at a URL open."""
    storage = optuna_storage(url)
    try:
        yield storage
    finally:
        close_storage(storage)


def close_storage(storage: optuna.storages.BaseStorage) -> None:
    """Let a storage's connections go."""
    kept: Any = getattr(storage, "_backend", storage)
    storage.remove_session()
    if hasattr(kept, "engine"):
        kept.engine.dispose()


def shown(url: str) -> str:
    """Write a database for people."""
    return url.removeprefix("sqlite:///")


@dataclass
class Store:
    """One study in its database, as one driver sees and writes it; `me` names that driver.

    What was read once is kept: asking for the records again reads only what is new, and trials of other drivers
    that still run. `mine` are the open trials of this driver, `others` those that it left to others.
    """

    study: optuna.Study
    url: str
    me: str
    engine: sql.Engine | None
    kept: dict[int, Record] = field(default_factory=dict)
    ids: dict[int, int] = field(default_factory=dict)
    mine: set[int] = field(default_factory=set)
    others: set[int] = field(default_factory=set)
    presence: Presence = field(init=False)

    @staticmethod
    def open(url: str, name: str, *, directions: Mapping[str, str], values: Mapping[str, Any]) -> Store:
        """Create the study, or load it and check that its file still says the same.

        Raises UserError naming each changed key, with both values.
        """
        import optuna

        if url.startswith("sqlite"):
            Path(sql.make_url(url).database or "").parent.mkdir(parents=True, exist_ok=True)
        storage = patiently(lambda: _made_by_one(url), url=url)
        study = optuna.create_study(
            study_name=name, storage=storage, directions=optuna_directions(directions), load_if_exists=True
        )
        known = study.user_attrs.get(STUDY)
        if known is None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                study.set_metric_names(list(directions))
            study.set_user_attr(STUDY, json.loads(json.dumps(values)))
        else:
            _refuse_changes(name, known, json.loads(json.dumps(values)))
        return Store(study, url, driver_name(), None if url.startswith(GRPC) else make_engine(url))

    def __post_init__(self) -> None:
        self.presence = Presence(self)

    @cached_property
    def is_known(self) -> bool:
        """Whether the tables are of a version that is written here directly."""
        if self.engine is None:
            return False
        with self.engine.connect() as connection:
            return has_known_tables(connection)

    @property
    def reference(self) -> dict[str, float] | None:
        """The hypervolume's reference point, fixed when the study started."""
        if self._reference is None:
            found = patiently(lambda: self.study.user_attrs.get(REFERENCE), url=self.url)
            self._reference = dict(found) if found is not None else None
        return self._reference

    @reference.setter
    def reference(self, point: Mapping[str, float]) -> None:
        self.study.set_user_attr(REFERENCE, dict(point))

    _reference: dict[str, float] | None = field(default=None, init=False)

    def records(self) -> list[Record]:
        """Return all records, in the order of their numbers; read what is new."""
        if not self.kept or shared_by_drivers(self.url):
            self._read(also=sorted(self.others))
        return list(self.kept.values())

    def _read(self, also: Sequence[int] = ()) -> None:
        after = max(self.kept, default=-1)
        rows = patiently(
            lambda: read_rows(self.url, self.study.study_name, engine=self.engine, after=after, also=also), url=self.url
        )
        for row in rows:
            self.kept[row.number], self.ids[row.number] = row.record, row.trial_id
            if row.number not in self.mine:
                (self.others.add if row.open else self.others.discard)(row.number)

    def turn(self) -> AbstractContextManager[None]:
        """Keep other drivers from asking meanwhile, so that none asks for the same or for too much."""
        return turn_to_ask(self.engine, self.url, self.study._study_id)

    def close(self) -> None:
        """Let the database go."""
        close_storage(self.study._storage)
        if self.engine is not None:
            self.engine.dispose()

    def present(self) -> AbstractContextManager[Presence]:
        """Let others see, while this lasts, that this driver works on the study."""
        return self.presence

    def start(self, record: Record, *, choices: Mapping[str, Sequence[Any]]) -> Record:
        """Write a new running trial at once, its decisions as Optuna parameters; return it with the number it got."""
        import optuna

        params = {name: _plain(value) for name, value in record.decisions}
        distributions: dict[str, Any] = {
            name: optuna.distributions.CategoricalDistribution([_plain(choice) for choice in choices[name]])
            for name in params
        }
        at_once = self.is_known
        template = optuna.trial.create_trial(
            state=optuna.trial.TrialState.RUNNING, user_attrs={RECORD: record.to_values()},
            params={} if at_once else params, distributions={} if at_once else distributions,
        )  # fmt: skip

        def write() -> Record:
            before = set(self.kept)
            self._read()  # an outage may have hidden that an earlier try had been written
            found = [each for number, each in self.kept.items() if number not in before and self._is(each, record)]
            if found:
                return found[0]
            trial_id = self.study._storage.create_new_trial(self.study._study_id, template_trial=template)
            if at_once:
                self._write_params(trial_id, params, distributions)
            self._read()
            return next(each for each in reversed(self.kept.values()) if self._is(each, record))

        written = patiently(write, url=self.url)
        self.mine.add(written.number)
        self.others.discard(written.number)
        return written

    def _write_params(self, trial_id: int, params: Mapping[str, Any], distributions: Mapping[str, Any]) -> None:
        """Write all parameters by one statement; Optuna itself takes two queries for each."""
        import optuna

        rows = [
            {"trial": trial_id, "name": name, "value": distributions[name].to_internal_repr(value),
             "text": optuna.distributions.distribution_to_json(distributions[name])}
            for name, value in params.items()
        ]  # fmt: skip
        if self.engine is not None and rows:
            with self.engine.begin() as connection:
                connection.execute(PARAMS, rows)

    def _is(self, one: Record, other: Record) -> bool:
        return replace(one, number=0) == replace(other, number=0) and one.number not in self.mine

    def update(self, record: Record) -> None:
        """Write a running trial's record anew; it is this driver's from here on."""
        patiently(lambda: self._write(record), url=self.url)
        self.mine.add(record.number)
        self.others.discard(record.number)

    def _write(self, record: Record) -> None:
        self.study._storage.set_trial_user_attr(self.ids[record.number], RECORD, record.to_values())
        self.kept[record.number] = record

    def tell(self, record: Record, *, objectives: Sequence[str], budgets: Mapping[str, float]) -> None:
        """Write a finished trial: its record first, so that a fault in between is mended by telling again.

        A trial that was finished already, by a driver that took it over say, stays as it is.
        """
        import optuna

        try:
            patiently(lambda: self._tell(record, objectives, budgets), url=self.url)
        except optuna.exceptions.UpdateFinishedTrialError:
            self._read(also=[record.number])
        self.mine.discard(record.number)
        self.others.discard(record.number)

    def _tell(self, record: Record, objectives: Sequence[str], budgets: Mapping[str, float]) -> None:
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

    def left_behind(self) -> Record | None:
        """Return an open trial whose driver is gone: running, or finished but not told; None where there is none."""
        self.records()
        for number in sorted(self.others):
            if not self.presence.is_alive(self.kept[number].driver):
                return self.kept[number]
        return None


def _made_by_one(url: str) -> optuna.storages.BaseStorage:
    """Return Optuna's storage; where another driver makes its tables at this moment, once they are there."""
    for _ in range(MAKING_TRIES):
        try:
            return optuna_storage(url)
        except (sql.exc.IntegrityError, sql.exc.ProgrammingError):
            time.sleep(1.0)
    return optuna_storage(url)


def optuna_directions(directions: Mapping[str, str]) -> list[optuna.study.StudyDirection]:
    """Return Optuna's words for maximize and minimize."""
    import optuna

    return [optuna.study.StudyDirection[direction.upper()] for direction in directions.values()]


def excesses(record: Record, budgets: Mapping[str, float]) -> dict[str, float]:
    """Return by how much each budgeted cost is over its limit (negative: under), as a share of the limit."""
    found = {name: record.measurement.value(name) for name in budgets}
    return {name: value / budgets[name] - 1.0 for name, value in found.items() if value is not None}


def now() -> str:
    """The time as records keep it: UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _plain(value: Any) -> Any:
    """Optuna's categories are scalars."""
    return json.dumps(value) if isinstance(value, tuple) else value


def _refuse_changes(name: str, known: Any, given: Any) -> None:
    changes = [
        f"{key}: the study began with {was!r}, the file now says {now_!r}" for key, was, now_ in _changes(known, given)
    ]
    if changes:
        hint = f"study {name!r} has records already; give the changed file another name, or take the change back"
        raise UserError([*changes, hint])


def _changes(known: Any, given: Any, path: str = "") -> list[tuple[str, Any, Any]]:
    if isinstance(known, dict) and isinstance(given, dict):
        keys = dict.fromkeys((*known, *given))
        return [
            change
            for key in keys
            for change in _changes(known.get(key), given.get(key), f"{path}.{key}" if path else str(key))
        ]
    return [] if known == given else [(path, known, given)]
