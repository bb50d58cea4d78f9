"""The database of a study: connections, locks, and waiting while it is unavailable."""

from __future__ import annotations

import logging
import os
import resource
import shutil
import subprocess
import tempfile
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import sqlalchemy as sql

from search.config.errors import RunError, UserError
from search.config.secrets import without_secret
from search.storage.address import POSTGRESQL, show_url, sqlite_file

READ_TIMEOUT_S = 10  # of waiting for another program's lock
OUTAGE_S = 600.0  # a run ends after a longer outage; the same command resumes it
START_S = 20.0  # a run that can't reach its database from the start ends after this time
BESIDE_BYTES = 1 << 20  # that SQLite may need beside a file in WAL mode
CONNECT_S = 10  # of waiting for a server's answer
PERMANENT = ("authentication failed", "does not exist", "no pg_hba.conf entry", "no password supplied")
RETRY_S = 0.5
ASK_LOCK = 0x766F786E  # "voxn": the first half of the advisory lock's key; the study's number is the second
log = logging.getLogger(__name__)
Result = TypeVar("Result")


def shared_by_drivers(url: str) -> bool:
    """Return whether several drivers may work on one study of this database at once."""
    return url.startswith(POSTGRESQL)


def lock_file(url: str, run_folder: Path, name: str) -> Path:
    """Return the lock file of a study, beside an SQLite database so that all its drivers use the same one."""
    file = sqlite_file(url)
    return Path(f"{file}.{quote(name, safe='')}.lock") if file else run_folder / "driver.lock"


def make_engine(url: str) -> sql.Engine:
    """Return an engine that replaces connections that broke while idle."""
    engine = sql.create_engine(url, **engine_options(url))
    if url.startswith("sqlite"):
        sql.event.listen(engine, "connect", tune_sqlite)
    return engine


def engine_options(url: str) -> dict[str, Any]:
    """Return the options of an engine: a server is tested before each use, and has to answer in time."""
    if url.startswith("sqlite"):
        return {}
    timed = "connect_timeout" in sql.make_url(url).query or "PGCONNECT_TIMEOUT" in os.environ
    return {"pool_pre_ping": True, "connect_args": {} if timed else {"connect_timeout": CONNECT_S}}


def make_reader(url: str) -> sql.Engine:
    """Return a read-only engine: the database itself refuses writes.

    SQLite needs to write beside a file in WAL mode even to read it. In a folder that this user can't write to, or on a
    full disk, the file is read as immutable, or, while its log holds more than the file, from a copy that is deleted
    with the engine.
    """
    file = sqlite_file(url)
    if file is None:
        engine = sql.create_engine(url, **engine_options(url))
        sql.event.listen(engine, "connect", _forbid_writing)
        return engine
    if _can_write_beside(file.resolve().parent):
        journal = file.with_name(f"{file.name}-journal")
        if journal.exists() and journal.stat().st_size:  # of a process that died: SQLite has to roll it back first
            engine = _read_only(file, mode="rw")
            sql.event.listen(engine, "connect", _query_only)
            return engine
        return _read_only(file, mode="ro")
    log_file = file.with_name(f"{file.name}-wal")
    if not (log_file.exists() and log_file.stat().st_size):
        return _read_only(file, immutable="1")
    folder = tempfile.TemporaryDirectory(prefix="voxnas-reader-")
    _copy((file, log_file), Path(folder.name))
    engine = _read_only(Path(folder.name) / file.name, mode="ro")
    weakref.finalize(engine, folder.cleanup)
    return engine


def _can_write_beside(folder: Path) -> bool:
    """Return whether SQLite may write what it needs beside a file in a folder."""
    limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    limited = limit != resource.RLIM_INFINITY and limit < BESIDE_BYTES
    return (
        not limited and os.access(folder, os.W_OK, effective_ids=True) and shutil.disk_usage(folder).free > BESIDE_BYTES
    )


def _copy(files: Sequence[Path], folder: Path) -> None:
    """Copy files in a process of their own: closing them here would drop this process's locks on the database."""
    done = subprocess.run(["cp", "--", *map(str, files), str(folder)], capture_output=True, text=True)
    if done.returncode:
        raise OSError(done.stderr.strip())


def _read_only(file: Path, **options: str) -> sql.Engine:
    url = sql.URL.create("sqlite", database=f"file:{quote(str(file.resolve()))}", query={**options, "uri": "true"})
    return sql.create_engine(url, connect_args={"timeout": READ_TIMEOUT_S})


def _query_only(connection: Any, _: Any) -> None:
    connection.execute("PRAGMA query_only=ON")


def _forbid_writing(connection: Any, _: Any) -> None:
    connection.read_only = True


def tune_sqlite(connection: Any, _: Any) -> None:
    """Allow reads during writes (WAL), and don't sync to disk at each write."""
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "busy_timeout=30000"):
        connection.execute(f"PRAGMA {pragma}")


def database_exists(url: str) -> bool:
    """Return whether a database exists; one behind a server is assumed to."""
    file = sqlite_file(url)
    return file is None or file.exists()


def require_database(url: str) -> None:
    """Raise UserError if an SQLite file does not exist."""
    file = sqlite_file(url)
    if file is not None and not file.exists() and file.is_symlink():
        raise UserError([f"{file} is a link that leads to no file"])
    if not database_exists(url):
        raise UserError([f"nothing has run yet: {sqlite_file(url)} does not exist; start with `voxnas run`"])


def retry_outages(work: Callable[[], Result], *, url: str, starting: bool = False) -> Result:
    """Run `work` on the database, and retry while it can't be reached.

    Raises RunError after an outage of ten minutes, or of 20 seconds while a run is starting.
    """
    end = time.monotonic() + (START_S if starting else OUTAGE_S)
    while True:
        try:
            return work()
        except Exception as error:
            if not is_outage(error, url):
                raise
            said = without_secret(first_line(error))
            if time.monotonic() > end:
                raise RunError([f"{show_url(url)}: the study's database can't be reached: {said}"]) from None
            log.warning("the study's database can't be reached, trying again: %s", said)
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
    if any(words in str(error) for words in PERMANENT):
        return False
    for each in causes(error):
        if isinstance(each, sql.exc.DBAPIError) and (
            each.connection_invalidated or isinstance(each, (sql.exc.OperationalError, sql.exc.InterfaceError))
        ):
            return True
        if type(each).__module__.startswith("grpc") and "UNAVAILABLE" in str(each):
            return True
    return False


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
