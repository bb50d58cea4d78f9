"""What a database's error means, as a sentence for the person who runs or reads a study."""

from __future__ import annotations

import errno
import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sql

from search.config.errors import RunError, UserError
from search.config.secrets import without_secret
from search.storage.address import GRPC, show_url, sqlite_file
from search.storage.database import causes, first_line, is_outage

HEADER_BYTES = 16  # of an SQLite database, which name its format
RESUME = "then rerun the same command to resume"
FULL = ("SQLITE_FULL", "SQLITE_IOERR_WRITE", "SQLITE_IOERR_TRUNCATE", "SQLITE_IOERR_FSYNC", "SQLITE_IOERR_SHMSIZE")


@contextmanager
def explained(url: str) -> Iterator[None]:
    """Raise an error of the database within the context as a UserError or RunError, with the original as its cause."""
    try:
        yield
    except UserError:
        raise
    except json.JSONDecodeError as error:
        raise UserError([f"{show_url(url)} is damaged (an attribute is no JSON: {error}); restore a copy"]) from error
    except Exception as error:
        found = next((each for each in causes(error) if isinstance(each, sql.exc.DBAPIError)), None)
        if found is not None:
            kind = RunError if is_fault(found, url) else UserError
            raise kind([explanation(found, url)]) from error
        if url.startswith(GRPC) and is_outage(error, url):
            raise RunError([f"{show_url(url)} can't be reached: {without_secret(first_line(error))}"]) from error
        raise


def is_fault(error: sql.exc.DBAPIError, url: str) -> bool:
    """Return whether an error is a fault of the disk, of the server or of another program, not the user's mistake."""
    if sqlite_file(url) is None:
        return not isinstance(error, sql.exc.ProgrammingError)
    said = str(error.orig)
    return _sqlite_name(error) in FULL or any(part in said for part in ("locked", "busy")) or _is_disk_fault(error)


def _sqlite_name(error: sql.exc.DBAPIError) -> str:
    return str(getattr(error.orig, "sqlite_errorname", ""))


def _is_disk_fault(error: sql.exc.DBAPIError) -> bool:
    """Return whether a disk or a file system failed; a file that ends too early is damaged instead."""
    name = _sqlite_name(error)
    return name.startswith("SQLITE_IOERR") and name != "SQLITE_IOERR_SHORT_READ"


def explanation(error: sql.exc.DBAPIError, url: str) -> str:
    """Return a sentence that says what is wrong with a database, and what to do."""
    where, said = show_url(url), without_secret((str(error.orig).strip().splitlines() or [type(error).__name__])[0])
    file = sqlite_file(url)
    if file is None:
        if isinstance(error, sql.exc.ProgrammingError):
            return f"{where} is not a database of studies: {said}"
        return f"{where} can't be reached: {said}"
    if _sqlite_name(error) in FULL or "disk is full" in said:
        limit = "its disk is full, or a limit on the size of files is reached; free some space or raise the limit"
        return f"{where} can't be written ({said}): {limit}, {RESUME}"
    if "locked" in said or "busy" in said:
        return f"{where} is locked by another program; wait until that ends, or stop it, and try again"
    if _is_disk_fault(error):
        name = _sqlite_name(error)
        return f"{where}: its disk or file system failed ({said}, {name}); check them, {RESUME}"
    if "not a database" in said:
        return f"{where} is not an SQLite database"
    if "malformed" in said or "disk I/O" in said or "truncated" in said:
        return f"{where} is damaged ({said}); restore a copy, or try `sqlite3 {file.name} .recover`"
    if "no such table" in said or "no such column" in said:
        return f"{where} is an SQLite database, but not one of studies ({said})"
    if "readonly" in said or "read-only" in said:
        return f"{where} can't be written: the file or its folder is read-only for this user"
    if "unable to open" in said:
        return f"{where} can't be opened; check that this user may read the file and its folder"
    return f"{where}: {said}"


def require_sqlite(url: str, *, empty: bool = False) -> None:
    """Raise UserError if the file behind a URL is there but is no SQLite database; `empty` allows an empty file."""
    file = sqlite_file(url)
    if file is None or not file.exists():
        return
    if not file.is_file() and not file.is_dir():  # opening a pipe would wait for ever
        raise UserError([f"{file} is a pipe, a socket or a device, not an SQLite database"])
    if file.is_dir() or not os.access(file, os.R_OK, effective_ids=True):
        why = errno.EISDIR if file.is_dir() else errno.EACCES
        raise UserError([f"{file}: can't be read: {os.strerror(why)}"])
    size = file.stat().st_size
    if not size and empty:
        return
    if not size:
        raise UserError([f"nothing has run yet: {file} is empty; start with `voxnas run`"])
    if size < HEADER_BYTES or not _has_sqlite_header(file):
        raise UserError([f"{file} is not an SQLite database"])


def _has_sqlite_header(file: Path) -> bool:
    """Return whether a file begins as an SQLite database does.

    SQLite itself reads it: if Python closed the file, this process would lose all locks on it, also those of a
    connection that writes. The next process that closes the database would then take itself for the last one and delete
    the log of writes, and with it what this process writes from then on.
    """
    connection = sqlite3.connect(f"{file.absolute().as_uri()}?immutable=1", uri=True)
    try:
        connection.execute("PRAGMA schema_version")
    except sqlite3.Error as error:
        return error.sqlite_errorname != "SQLITE_NOTADB"  # whoever opens the database explains what else is wrong
    finally:
        connection.close()
    return True
