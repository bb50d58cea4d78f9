"""The database of a study: its URL, connections, locks, and waiting while it is unavailable."""

from __future__ import annotations

import importlib.util
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import sqlalchemy as sql

from search.config.errors import UserError

GRPC = "grpc://"  # an Optuna storage behind its gRPC proxy, as grpc://HOST:PORT
POSTGRESQL = "postgresql+psycopg"
OUTAGE_S = 600.0  # a run ends after a longer outage; the same command resumes it
RETRY_S = 0.5
ASK_LOCK = 0x766F786E  # "voxn": the first half of the advisory lock's key; the study's number is the second
log = logging.getLogger(__name__)
Result = TypeVar("Result")


def database_url(storage: str | None, run_folder: Path) -> str:
    """Return the URL of the study's database: `storage` of the file, else `study.db` in the run's folder.

    Raises UserError for a password in the URL, an unknown kind of database, or a driver that is not installed.
    """
    url = storage or f"sqlite:///{run_folder / 'study.db'}"
    if url.startswith(GRPC):
        host, _, port = url.removeprefix(GRPC).rpartition(":")
        if not host or not port.isdigit():
            raise UserError([f"storage: {url!r} should be {GRPC}HOST:PORT"])
        return url
    try:
        parts = sql.make_url(url)
    except sql.exc.ArgumentError:
        raise UserError([f"storage: {url!r} is not a database URL such as sqlite:///FILE"]) from None
    if parts.password is not None or "password" in parts.query:
        raise UserError(["storage: remove the password from the URL; set it in PGPASSWORD or ~/.pgpass"])
    if parts.drivername not in ("sqlite", POSTGRESQL):
        allowed = f"sqlite:///FILE, {POSTGRESQL}://USER@HOST/NAME or {GRPC}HOST:PORT"
        raise UserError([f"storage: {parts.drivername!r} is not supported; write {allowed}"])
    if parts.drivername == POSTGRESQL and importlib.util.find_spec("psycopg") is None:
        raise UserError(["storage: PostgreSQL needs its driver: pip install 'voxnas[postgresql]'"])
    return url


def shared_by_drivers(url: str) -> bool:
    """Return whether several drivers may work on one study of this database at once."""
    return url.startswith(POSTGRESQL)


def lock_file(url: str, run_folder: Path, name: str) -> Path:
    """Return the lock file of a study, beside an SQLite database so that all its drivers use the same one."""
    file = sql.make_url(url).database if url.startswith("sqlite") else None
    return Path(f"{file}.{quote(name, safe='')}.lock") if file else run_folder / "driver.lock"


def make_engine(url: str) -> sql.Engine:
    """Return an engine that replaces connections that broke while idle."""
    engine = sql.create_engine(url, pool_pre_ping=not url.startswith("sqlite"))
    if url.startswith("sqlite"):
        sql.event.listen(engine, "connect", tune_sqlite)
    return engine


def make_reader(url: str) -> sql.Engine:
    """Return a read-only engine: the database itself refuses writes."""
    if not url.startswith("sqlite"):
        engine = sql.create_engine(url, pool_pre_ping=True)
        sql.event.listen(engine, "connect", _forbid_writing)
        return engine
    file = quote(str(Path(sql.make_url(url).database or "").resolve()))
    return sql.create_engine(f"sqlite:///file:{file}?mode=ro&uri=true", connect_args={"timeout": 30})


def _forbid_writing(connection: Any, _: Any) -> None:
    connection.read_only = True


def tune_sqlite(connection: Any, _: Any) -> None:
    """Allow reads during writes (WAL), and don't sync to disk at each write."""
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "busy_timeout=30000"):
        connection.execute(f"PRAGMA {pragma}")


def database_exists(url: str) -> bool:
    """Return whether a database exists; one behind a server is assumed to."""
    file = sql.make_url(url).database if url.startswith("sqlite") else None
    return not file or file == ":memory:" or Path(file).exists()


def require_database(url: str) -> None:
    """Raise UserError if an SQLite file does not exist."""
    if not database_exists(url):
        file = sql.make_url(url).database
        raise UserError([f"nothing has run yet: {file} does not exist; start with `voxnas run`"])


def retry_outages(work: Callable[[], Result], *, url: str) -> Result:
    """Run `work` on the database, and retry while it can't be reached.

    Raises UserError after an outage of ten minutes, or if the disk of an SQLite file is full.
    """
    end = time.monotonic() + OUTAGE_S
    while True:
        try:
            return work()
        except Exception as error:
            if is_full(error):
                raise UserError(
                    ["the disk of the study's database is full; free some space, then rerun the same command to resume"]
                ) from None
            if not is_outage(error, url):
                raise
            if time.monotonic() > end:
                raise UserError([f"the study's database can't be reached: {first_line(error)}"]) from None
            log.warning("the study's database can't be reached, trying again: %s", first_line(error))
            time.sleep(RETRY_S)


def causes(error: BaseException) -> Iterator[BaseException]:
    """Iterate over an error and its causes."""
    at: BaseException | None = error
    while at is not None:
        yield at
        at = at.__cause__


def is_outage(error: BaseException, url: str) -> bool:
    """Return whether an error means that the database is temporarily unavailable."""
    if url.startswith("sqlite"):
        return False
    for each in causes(error):
        if isinstance(each, sql.exc.DBAPIError) and (
            each.connection_invalidated or isinstance(each, (sql.exc.OperationalError, sql.exc.InterfaceError))
        ):
            return True
        if type(each).__module__.startswith("grpc") and "UNAVAILABLE" in str(each):
            return True
    return False


def is_full(error: BaseException) -> bool:
    """Return whether SQLite ran out of disk space."""
    return any(isinstance(each, sql.exc.OperationalError) and "disk is full" in str(each) for each in causes(error))


def first_line(error: BaseException) -> str:
    """Return the first line of the innermost error."""
    *_, root = causes(error)
    return (str(root).strip().splitlines() or [type(root).__name__])[0]


@contextmanager
def ask_lock(engine: sql.Engine | None, url: str, study_id: int) -> Iterator[None]:
    """Prevent other drivers of the study from asking within the context, on a database that several can share."""
    if engine is None or not shared_by_drivers(url):
        yield
        return
    key = {"one": ASK_LOCK, "two": study_id}

    def take() -> sql.Connection:
        connection = engine.connect()
        connection.execute(sql.text("SELECT pg_advisory_lock(:one, :two)"), key)
        return connection

    with retry_outages(take, url=url) as connection:
        try:
            yield
        finally:
            try:
                connection.execute(sql.text("SELECT pg_advisory_unlock(:one, :two)"), key)
            except sql.exc.DBAPIError:  # the server is gone, and its lock with it
                connection.invalidate()
