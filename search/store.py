"""An Optuna database as a list of Records: the only file that knows its tables and attribute names.

A trial's architecture is written at once, as a running trial made from a template; a Record is one JSON attribute,
and all records are read by one query. `read_records` needs SQLAlchemy alone, so that looking at a study is quick.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sql

from search.records import Record
from search.study.mistakes import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import optuna

RECORD = "voxnas:record"
STUDY = "voxnas:study"
REFERENCE = "voxnas:hypervolume_reference"
SCHEMA_VERSIONS = (12,)  # of Optuna's tables; another version is read through Optuna itself
ALL_RECORDS = sql.text(
    "SELECT t.number, t.state, a.value_json FROM trials t"
    " JOIN studies s ON s.study_id = t.study_id"
    " JOIN trial_user_attributes a ON a.trial_id = t.trial_id AND a.key = :record"
    " WHERE s.study_name = :name ORDER BY t.number"
)
STUDY_ATTRIBUTE = sql.text(
    "SELECT a.value_json FROM study_user_attributes a JOIN studies s ON s.study_id = a.study_id"
    " WHERE s.study_name = :name AND a.key = :key"
)
ALL_STUDIES = sql.text(
    "SELECT s.study_name, a.value_json FROM studies s JOIN study_user_attributes a ON a.study_id = s.study_id"
    " WHERE a.key = :key ORDER BY s.study_id"
)


def database_url(storage: str | None, run_folder: Path) -> str:
    """Return the study's database: what the file names, else `study.db` in the run's folder."""
    return storage or f"sqlite:///{run_folder / 'study.db'}"


@contextmanager
def _engine(url: str) -> Iterator[sql.Engine]:
    engine = sql.create_engine(url)
    try:
        yield engine
    finally:
        engine.dispose()


def read_records(url: str, name: str) -> list[Record]:
    """Read all records of a study by one query, in the order of their numbers.

    Raises UserError where there is no such database or study.
    """
    return [Record.from_values(json.loads(text)) for text in _read(url, name)]


def _read(url: str, name: str) -> list[str]:
    _require_database(url)
    with _engine(url) as engine, engine.connect() as connection:
        version = connection.execute(sql.text("SELECT schema_version FROM version_info")).scalar()
        if version not in SCHEMA_VERSIONS:
            return _read_through_optuna(url, name)
        return [row[2] for row in connection.execute(ALL_RECORDS, {"record": RECORD, "name": name})]


def _read_through_optuna(url: str, name: str) -> list[str]:
    import optuna

    study = optuna.load_study(study_name=name, storage=url)
    trials = study.get_trials(deepcopy=False)
    return [json.dumps(trial.user_attrs[RECORD]) for trial in trials if RECORD in trial.user_attrs]


def read_study_attribute(url: str, name: str, key: str) -> Any:
    """Return a study's attribute, None where it was never written."""
    _require_database(url)
    with _engine(url) as engine, engine.connect() as connection:
        text = connection.execute(STUDY_ATTRIBUTE, {"name": name, "key": key}).scalar()
    return json.loads(text) if text is not None else None


def read_studies(url: str) -> dict[str, dict[str, Any]]:
    """Return what each study of a database depends on, by the study's name; nothing where there is no database."""
    try:
        _require_database(url)
    except UserError:
        return {}
    with _engine(url) as engine, engine.connect() as connection:
        rows = connection.execute(ALL_STUDIES, {"key": STUDY})
        return {row[0]: json.loads(row[1]) for row in rows}


def _require_database(url: str) -> None:
    file = sql.make_url(url).database if url.startswith("sqlite") else None
    if file and file != ":memory:" and not Path(file).exists():
        raise UserError([f"nothing has run yet: {file} does not exist; start with `voxnas run`"])


@dataclass
class Store:
    """One study in its database: written by one driver."""

    study: optuna.Study
    url: str

    @staticmethod
    def open(url: str, name: str, *, directions: Mapping[str, str], values: Mapping[str, Any]) -> Store:
        """Create the study, or load it and check that its file still says the same.

        Raises UserError naming each changed key, with both values.
        """
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        storage = optuna.storages.RDBStorage(url)
        if url.startswith("sqlite"):
            sql.event.listen(storage.engine, "connect", tune_sqlite)
            storage.engine.dispose()  # connections made before are not tuned
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
        return Store(study, url)

    @property
    def reference(self) -> dict[str, float] | None:
        """The hypervolume's reference point, fixed when the study started."""
        found = self.study.user_attrs.get(REFERENCE)
        return dict(found) if found is not None else None

    @reference.setter
    def reference(self, point: Mapping[str, float]) -> None:
        self.study.set_user_attr(REFERENCE, dict(point))

    def records(self) -> list[Record]:
        """Read all records."""
        return read_records(self.url, self.study.study_name)

    def start(self, record: Record, *, choices: Mapping[str, Sequence[Any]]) -> Record:
        """Write a new running trial, its decisions as Optuna parameters; return it under the number it got."""
        import optuna

        params = {name: _plain(value) for name, value in record.decisions}
        distributions: dict[str, Any] = {
            name: optuna.distributions.CategoricalDistribution([_plain(choice) for choice in choices[name]])
            for name in params
        }
        template = optuna.trial.create_trial(
            state=optuna.trial.TrialState.RUNNING, params=params, distributions=distributions,
            user_attrs={RECORD: record.to_values()},
        )  # fmt: skip
        storage = self.study._storage
        trial_id = storage.create_new_trial(self.study._study_id, template_trial=template)
        number = storage.get_trial_number_from_id(trial_id)
        return record if number == record.number else self._renumber(trial_id, record, number)

    def _renumber(self, trial_id: int, record: Record, number: int) -> Record:
        renamed = replace(record, number=number)
        self.study._storage.set_trial_user_attr(trial_id, RECORD, renamed.to_values())
        return renamed

    def update(self, record: Record) -> None:
        """Write a running trial's record anew."""
        self.study._storage.set_trial_user_attr(self._trial_id(record.number), RECORD, record.to_values())

    def tell(self, record: Record, *, objectives: Sequence[str], budgets: Mapping[str, float]) -> None:
        """Write a finished trial: its record first, so that a fault in between is mended by telling again."""
        import optuna

        storage, trial_id = self.study._storage, self._trial_id(record.number)
        storage.set_trial_user_attr(trial_id, RECORD, record.to_values())
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

    def untold(self) -> list[int]:
        """Return the numbers of trials whose record is finished, but which Optuna still holds to be running."""
        with _engine(self.url) as engine, engine.connect() as connection:
            rows = connection.execute(ALL_RECORDS, {"record": RECORD, "name": self.study.study_name})
            running = [(row[0], row[2]) for row in rows if str(row[1]) == "RUNNING"]
        return [number for number, text in running if Record.from_values(json.loads(text)).state != "running"]

    def _trial_id(self, number: int) -> int:
        return self.study._storage.get_trial_id_from_study_id_trial_number(self.study._study_id, number)


def tune_sqlite(connection: Any, _: Any) -> None:
    """Let readers read while the driver writes, and don't wait for the disk at each of its writes."""
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "busy_timeout=30000"):
        connection.execute(f"PRAGMA {pragma}")


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
