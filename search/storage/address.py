"""The address of a database: a URL, and the file of SQLite behind it, for paths with any characters."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import sqlalchemy as sql

from search.config.errors import UserError
from search.config.secrets import without_secret

GRPC = "grpc://"  # an Optuna storage behind its gRPC proxy, as grpc://HOST:PORT
POSTGRESQL = "postgresql+psycopg"
HIGHEST_PORT = 65535


def sqlite_url(file: Path) -> str:
    """Return the URL of an SQLite file; characters that mean something in a URL are escaped."""
    return sql.URL.create("sqlite", database=str(file)).render_as_string(hide_password=False)


def sqlite_file(url: str) -> Path | None:
    """Return the file behind a URL; None for a server or a database in memory."""
    if not url.startswith("sqlite"):
        return None
    database = sql.make_url(url).database
    return Path(database) if database and database != ":memory:" else None


def show_url(url: str) -> str:
    """Return a database's address for messages: the file, or the URL without a password."""
    file = sqlite_file(url)
    if file is not None:
        return str(file)
    return url if url.startswith(GRPC) else sql.make_url(url).render_as_string(hide_password=True)


def database_url(storage: str | None, run_folder: Path) -> str:
    """Return the URL of the study's database: `storage` of the file, else `study.db` in the run's folder.

    Raises UserError for a password in the URL, an unknown kind of database, or a driver that is not installed.
    """
    if not storage:
        return sqlite_url(run_folder / "study.db")
    require_address(storage)
    if storage.startswith(GRPC) and importlib.util.find_spec("grpc") is None:
        raise UserError(["storage: a gRPC proxy needs grpcio: pip install 'voxnas[cluster]'"])
    if storage.startswith(POSTGRESQL) and importlib.util.find_spec("psycopg") is None:
        raise UserError(["storage: PostgreSQL needs its driver: pip install 'voxnas[postgresql]'"])
    return storage


def require_address(storage: str) -> None:
    """Raise UserError for a password in a database's URL, or an unknown kind of database."""
    named = repr(without_secret(storage))
    if storage.startswith(GRPC):
        host, _, port = storage.removeprefix(GRPC).rpartition(":")
        if not host or "@" in host or not _is_port(port):
            raise UserError([f"storage: {named} should be {GRPC}HOST:PORT, with a port from 1 to {HIGHEST_PORT}"])
        return
    try:
        parts = sql.make_url(storage)
    except (sql.exc.ArgumentError, ValueError):
        raise UserError([f"storage: {named} is not a database URL such as sqlite:///FILE"]) from None
    if parts.password is not None or any("pass" in key.casefold() for key in parts.query):
        raise UserError(["storage: remove the password from the URL; set it in PGPASSWORD or ~/.pgpass"])
    if parts.drivername not in ("sqlite", POSTGRESQL):
        allowed = f"sqlite:///FILE, {POSTGRESQL}://USER@HOST/NAME or {GRPC}HOST:PORT"
        raise UserError([f"storage: {parts.drivername!r} is not supported; write {allowed}"])
    if parts.drivername == "sqlite" and sqlite_file(storage) is None:
        raise UserError([f"storage: {named} names no file; write sqlite:///FILE"])


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and 1 <= int(text) <= HIGHEST_PORT


def named_database(named: str, run_folder: Path) -> str:
    """Return the URL of a database that a person named by its file or its URL."""
    return database_url(named, run_folder) if "://" in named else sqlite_url(Path(named))
