"""Read Optuna's tables with one query each, or through Optuna; `read_records` imports SQLAlchemy but not Optuna."""

from __future__ import annotations

import re
import shlex
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import sqlalchemy as sql

from search.config.errors import UserError
from search.files.digests import DigestError, unsealed, unsealed_text
from search.storage.address import GRPC, show_url
from search.storage.database import engine_options, make_reader, require_database, tune_sqlite
from search.storage.failures import explained, require_sqlite
from search.storage.tables import create_tables
from search.trials.records import Record

if TYPE_CHECKING:
    import optuna

RECORD = "voxnas:record"
SCHEMA_VERSIONS = (12,)  # of Optuna's tables; other versions are read through Optuna
MAKING_TRIES = 5
RUNNING, WAITING = "RUNNING", "WAITING"  # Optuna's states of trials that have not ended
DAMAGED = "the database was damaged, or changed by another program; restore a copy of it"
DISCARDED = {"discarded": True}  # in place of a damaged record, once the user has discarded the trial
FETCHED = 100  # records that are fetched at once
RECORDS = (
    "SELECT t.number, t.trial_id, t.state, a.value_json FROM trials t"
    " JOIN studies s ON s.study_id = t.study_id"
    " LEFT JOIN trial_user_attributes a ON a.trial_id = t.trial_id AND a.key = :record"
    " WHERE s.study_name = :name AND (t.number > :after OR t.number IN :also) ORDER BY t.number"
)


@dataclass(frozen=True)
class Row:
    """A trial as stored in the tables, its record with the trial's number; `open` while it is running for Optuna."""

    number: int
    trial_id: int
    open: bool
    record: Record


def read_records(url: str, name: str) -> list[Record]:
    """Read all records of a study by one query, in the order of their numbers.

    Raises UserError if there is no such database.
    """
    with reading(url) as engine:
        return [row.record for row in read_rows(url, name, engine=engine)]


@contextmanager
def reading(url: str) -> Iterator[sql.Engine | None]:
    """Open a database for reading within the context; None for a proxy, which is read through Optuna."""
    if url.startswith(GRPC):
        with explained(url):
            yield None
        return
    require_database(url)
    require_sqlite(url)
    engine = make_reader(url)
    try:
        with explained(url):
            yield engine
    finally:
        engine.dispose()


def read_rows(
    url: str, name: str, *, engine: sql.Engine | None, after: int = -1, also: Sequence[int] = ()
) -> list[Row]:
    """Read the trials after a number, and those in `also`. Raises UserError that names a damaged one."""
    return list(each_row(url, name, engine=engine, after=after, also=also))


def each_row(
    url: str, name: str, *, engine: sql.Engine | None, after: int = -1, also: Sequence[int] = ()
) -> Iterator[Row]:
    """Iterate over the rows of `read_rows`.

    Each record is parsed before the next one is fetched: 10,000 trials have 200 MB of text, and as much as records.
    """
    if engine is not None:
        with engine.connect() as connection:
            if has_known_tables(connection):
                query = sql.text(RECORDS).bindparams(sql.bindparam("also", expanding=True))
                found = connection.execution_options(yield_per=FETCHED).execute(
                    query, {"record": RECORD, "name": name, "after": after, "also": [*also]}
                )
                yield from _rows(((row[0], row[1], str(row[2]), row[3]) for row in found), after, url=url, name=name)
                return
    import optuna

    with open_storage(url) as storage:
        trials = optuna.load_study(study_name=name, storage=storage).get_trials(deepcopy=False)
    wanted = (each for each in trials if each.number > after or each.number in also)
    listed = ((each.number, each._trial_id, each.state.name, each.user_attrs.get(RECORD)) for each in wanted)
    yield from _rows(listed, after, url=url, name=name)


def _rows(found: Iterable[tuple[int, int, str, Any]], after: int, *, url: str, name: str) -> Iterator[Row]:
    """Iterate over the rows of trials, given in the order of their numbers: those after a number without a gap."""
    expected = after + 1
    for number, trial_id, state, written in found:
        if number > after and number != expected:
            what = f"trial {expected} is missing" if number > expected else f"two trials have the number {number}"
            raise UserError([f"{what}: {DAMAGED}"])
        expected += number > after
        if written is None and state in (RUNNING, WAITING):
            continue
        try:
            record = _record(number, written, state)
        except ValueError as error:
            raise DamagedRecordError([f"{error}, or {_how_to_discard(url, name, number)}"]) from error
        if record is not None:
            yield Row(number, trial_id, state == RUNNING, record)


class DamagedRecordError(UserError):
    """Raised for a trial whose record is damaged, with what is wrong with it and what to do."""


def _record(number: int, written: str | dict[str, Any] | None, state: str) -> Record | None:
    """Return the record of a trial from its text, or from its values; None if the user has discarded the trial.

    Raises ValueError that says what is damaged.
    """
    if written is None:
        raise ValueError(f"trial {number} has ended without a record: {DAMAGED}")
    try:
        values = unsealed_text(written) if isinstance(written, str) else unsealed(written)
        if values == DISCARDED:
            return None
        record = Record.from_values({**values, "number": number})
        if record.state != "running" and values["number"] != number:
            raise ValueError(f"it is that of trial {values['number']}")
    except DigestError:
        raise ValueError(f"the record of trial {number} is not what was written: {DAMAGED}") from None
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        why = f"{type(error).__name__}: {error}".splitlines()[0]
        hint = "it is damaged, or a newer version of voxnas wrote it; upgrade voxnas, or restore a copy"
        raise ValueError(f"the record of trial {number} can't be read ({why}): {hint}") from error
    if record.state == "running" and state != RUNNING:
        raise ValueError(f"trial {number} has ended, but its record says that it is running: {DAMAGED}")
    return record


def _how_to_discard(url: str, name: str, number: int) -> str:
    """Return the command that leaves a damaged trial out of its study."""
    if url.startswith(GRPC):
        return "discard the trial where the database is (`voxnas studies --discard`)"
    command = shlex.join(["voxnas", "studies", show_url(url), "--discard", name, str(number)])
    return f"go on without this trial: `{command}`"


def has_known_tables(connection: sql.Connection) -> bool:
    """Return whether Optuna's tables have a version that voxnas reads and writes directly.

    Raises UserError if there are no such tables: readers never create them, because a driver may be doing so.
    """
    try:
        version = connection.execute(sql.text("SELECT schema_version FROM version_info")).scalar()
    except (sql.exc.OperationalError, sql.exc.ProgrammingError) as error:
        if "version_info" not in str(error):
            raise
        connection.rollback()  # PostgreSQL answers nothing else in a transaction with an error
        version = None
    if version is None:
        where = unquote(show_url(str(connection.engine.url)).removeprefix("file:"))
        if tables := sql.inspect(connection).get_table_names():
            named = ", ".join(tables[:3])
            raise UserError([f"{where} is a database of another program, not one of studies (its tables: {named})"])
        raise UserError([f"nothing has run yet in {where}; start with `voxnas run`"])
    return version in SCHEMA_VERSIONS


def optuna_storage(url: str) -> optuna.storages.BaseStorage:
    """Return Optuna's storage at a URL. Raises UserError if its tables have another version."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if url.startswith(GRPC):
        host, _, port = url.removeprefix(GRPC).rpartition(":")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return optuna.storages.GrpcStorageProxy(host=host, port=int(port))
    if url.startswith("sqlite"):
        _create_tables(url)
    try:
        storage = optuna.storages.RDBStorage(url, engine_kwargs=engine_options(url))
    except RuntimeError as error:
        if "table schema" not in str(error):
            raise
        raise UserError([_other_version(url)]) from None
    if url.startswith("sqlite"):
        sql.event.listen(storage.engine, "connect", tune_sqlite)
        storage.engine.dispose()  # earlier connections are not tuned
    return storage


def _create_tables(url: str) -> None:
    engine = sql.create_engine(url)
    try:
        create_tables(engine)
    finally:
        engine.dispose()


@contextmanager
def open_storage(url: str) -> Iterator[optuna.storages.BaseStorage]:
    """Open Optuna's storage at a URL within the context."""
    storage = optuna_storage(url)
    try:
        yield storage
    finally:
        close_storage(storage)


def close_storage(storage: optuna.storages.BaseStorage) -> None:
    """Close a storage's connections."""
    kept: Any = getattr(storage, "_backend", storage)
    storage.remove_session()
    if hasattr(kept, "engine"):
        kept.engine.dispose()


def _other_version(url: str) -> str:
    """Return what to do about tables that another version of Optuna wrote."""
    import optuna

    with reading(url) as engine:
        if engine is None:
            return f"{show_url(url)} was written by another version of Optuna"
        with engine.connect() as connection:
            wrote = str(connection.execute(sql.text("SELECT library_version FROM version_info")).scalar())
    numbers, ours = ([int(part) for part in re.findall(r"\d+", each)[:3]] for each in (wrote, optuna.__version__))
    if numbers > ours:
        return f"{show_url(url)} was written by Optuna {wrote}, but {optuna.__version__} is installed; upgrade optuna"
    return f"{show_url(url)} was written by an older version; `voxnas studies {show_url(url)} --upgrade` upgrades it"


def storage_made_by_one(url: str) -> optuna.storages.BaseStorage:
    """Return Optuna's storage; wait if another driver is creating its tables."""
    for _ in range(MAKING_TRIES):
        try:
            return optuna_storage(url)
        except (sql.exc.IntegrityError, sql.exc.ProgrammingError):
            time.sleep(1.0)
    return optuna_storage(url)
