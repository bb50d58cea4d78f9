"""`voxnas studies`: rename, copy and delete the studies of a database, free their disk space, upgrade it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import sqlalchemy as sql

from search.config.errors import UserError, nearest
from search.config.schema import NAME_PATTERN
from search.config.units import show_bytes
from search.config.validate import PATTERNS
from search.files.digests import sealed
from search.storage import (
    STUDY,
    STUDY_ID,
    close_storage,
    open_storage,
    read_records,
    read_rows,
    read_study_attribute,
    read_study_names,
    reading,
    show_url,
)
from search.storage.address import database_url, named_database, sqlite_file, sqlite_url
from search.storage.database import engine_options, make_engine, require_database
from search.storage.failures import explained, require_sqlite
from search.storage.lock import hold_lock
from search.storage.ownership import DATABASE, OWNER, claim_folder, holds_database, is_folder_name, owned_folder
from search.storage.reader import DamagedRecordError
from search.storage.trial_rows import discard_record
from search.trials.files import RESUME_FILES, trial_folder, weights_files
from search.trials.pareto import KEPT_MARGIN, near_front
from search.trials.records import search_records

RENAME = sql.text("UPDATE studies SET study_name = :new WHERE study_name = :name")
LAST_NUMBER = 2**31 - 1  # of a trial; no number is larger
NEW_NAME = sql.text(
    "UPDATE study_user_attributes SET value_json = :value WHERE key = :key"
    " AND study_id = (SELECT study_id FROM studies WHERE study_name = :name)"
)


@dataclass(frozen=True)
class Change:
    """The requested changes: (name, new name), (name, target database), names, a trial, whether to upgrade first."""

    rename: tuple[str, str] | None = None
    copy: tuple[str, str] | None = None
    delete: str | None = None
    free: str | None = None
    discard: tuple[str, int] | None = None
    upgrade: bool = False


def change_studies(urls: Sequence[str], change: Change, *, runs: Path) -> list[str]:
    """Make the changes; return a line about each."""
    lines = []
    if change.upgrade:
        for url in urls:
            upgrade_database(url)
            lines.append(f"{show_url(url)} is up to date")
    if change.copy:
        name, target = change.copy
        copy_study(database_of(name, urls), name, target)
        lines.append(f"{name} is also in {target}")
    if change.discard:
        name, number = change.discard
        discard_trial(database_of(name, urls), name, number, runs=runs)
        lines.append(f"{name}: trial {number} is left out from now on")
    if change.free:
        freed = free_disk(database_of(change.free, urls), change.free, runs=runs)
        lines.append(f"{change.free}: {show_bytes(freed)} freed")
    if change.delete:
        freed = delete_study(database_of(change.delete, urls), change.delete, runs=runs)
        lines.append(f"{change.delete} is deleted: {show_bytes(freed)} freed")
    if change.rename:
        name, new = change.rename
        rename_study(database_of(name, urls), name, new, runs=runs)
        lines.append(f"{name} is now {new}; set `name: {new}` in its file")
    return lines


def find_databases(named: str | None, runs: Path) -> list[str]:
    """Return the URL of a database given by file or URL, or those of all studies of a runs folder.

    Raises UserError if there is none.
    """
    if named is not None:
        url = named_database(named, runs)
        require_database(url)
        return [url]
    found = [sqlite_url(file) for file in sorted(runs.glob("*/study.db"))]
    if not found:
        raise UserError([f"studies: no */study.db in {runs}; give a database, or the runs folder with --runs"])
    return found


def database_of(name: str, urls: Sequence[str]) -> str:
    """Return the database that has a study. Raises UserError if none has it."""
    names = {each: url for url in urls for each in read_study_names(url)}
    if name not in names:
        raise UserError([f"studies: there is no study {name!r}{nearest(name, list(names))}"])
    return names[name]


def rename_study(url: str, name: str, new: str, *, runs: Path) -> str:
    """Rename a study, and its folder if that belongs to this database; return the database's URL after that."""
    if not is_folder_name(new) or "/" in new:
        raise UserError([f"studies: {new!r} is not a valid study name: {PATTERNS[NAME_PATTERN]}, and not 'cache'"])
    if new in read_study_names(url) or (runs / new).exists():
        raise UserError([f"studies: a study {new!r} already exists"])
    folder = owned_folder(runs, study=name, url=url)
    with _locked(url, name, runs):
        _rename_in_database(url, name, new)
    if folder is None:
        return url
    now = database_url(None, runs / new) if holds_database(folder, url) else url
    try:
        folder.rename(runs / new)
        claim_folder(runs / new, study=new, study_id=read_study_attribute(now, new, STUDY_ID), url=now)
    except BaseException:  # a full disk: all is as before
        if not folder.exists():
            (runs / new).rename(folder)
        _rename_in_database(url, new, name)
        raise
    return now


def _rename_in_database(url: str, name: str, new: str) -> None:
    """Rename a study, and the name among the values that it began with, in one transaction."""
    values = json.dumps(sealed({**read_study_attribute(url, name, STUDY), "name": new}))
    with _transaction(url) as connection:
        connection.execute(NEW_NAME, {"value": values, "key": STUDY, "name": name})
        connection.execute(RENAME, {"new": new, "name": name})


def copy_study(url: str, name: str, target: str) -> None:
    """Copy a study's trials and attributes into another database; its files stay with the original.

    The copy has its name only once it is complete. One that failed deletes a database that it created, and is
    replaced by the next one.
    """
    import optuna

    to = named_database(target, Path())
    require_sqlite(to, empty=True)
    file, draft = sqlite_file(to), f"{name} (incomplete copy)"
    created = file if file is not None and not file.exists() else None
    try:
        with explained(to), open_storage(url) as storage, open_storage(to) as copies:
            known = read_study_names(to)
            if name in known:
                raise UserError([f"studies: {show_url(to)} already has a study {name!r}"])
            if draft in known:
                optuna.delete_study(study_name=draft, storage=copies)
            optuna.copy_study(from_study_name=name, from_storage=storage, to_storage=copies, to_study_name=draft)
            copies.set_study_user_attr(copies.get_study_id_from_name(draft), STUDY_ID, uuid4().hex)
            with _connected(to) as connection:
                connection.execute(RENAME, {"new": name, "name": draft})
    except BaseException:
        if created is not None:
            for ending in ("", "-wal", "-shm"):
                created.with_name(created.name + ending).unlink(missing_ok=True)
        raise


def delete_study(url: str, name: str, *, runs: Path) -> int:
    """Delete a study's records, and its folder if that belongs to this database; return the bytes freed."""
    import optuna

    folder = owned_folder(runs, study=name, url=url)
    with _locked(url, name, runs):
        with open_storage(url) as storage:
            optuna.delete_study(study_name=name, storage=storage)
        if folder is None:
            return 0
        kept = _kept_beside(folder) if holds_database(folder, url) and read_study_names(url) else set[Path]()
        freed = 0
        for path in folder.iterdir():
            if path not in kept:
                freed += _size_bytes(path)
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        if not kept:
            folder.rmdir()
    return freed


def _kept_beside(folder: Path) -> set[Path]:
    """Return the files of other studies in a study's folder: a shared database, and their own folders."""
    return {path for path in folder.iterdir() if path.name.startswith(DATABASE) or (path / OWNER).exists()}


def _size_bytes(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() and not path.is_symlink() else [path]
    return sum(file.lstat().st_size for file in files if file.is_file())


def discard_trial(url: str, name: str, number: int, *, runs: Path) -> None:
    """Leave a trial out of its study whose record is damaged; its number is not used again, its files stay.

    Raises UserError if there is no such trial, or if its record can be read.
    """
    where = f"studies: trial {number} of {name}"
    with _locked(url, name, runs):
        try:
            with reading(url) as engine:
                rows = read_rows(url, name, engine=engine, after=LAST_NUMBER, also=[number])
        except DamagedRecordError:
            pass
        else:
            problem = "can be read; only damaged trials are discarded" if rows else "does not exist, or is discarded"
            raise UserError([f"{where} {problem}"])
        with _transaction(url) as connection:
            discard_record(connection, name, number)


def free_disk(url: str, name: str, *, runs: Path) -> int:
    """Delete checkpoints of finished trials and weights that are not on the front; return the bytes freed."""
    folder, values = owned_folder(runs, study=name, url=url), read_study_attribute(url, name, STUDY)
    with _locked(url, name, runs):
        records = read_records(url, name)
        own = search_records(records, seed=values["search"]["seed"], fold=values["data"]["fold"])
        named = {key: each["direction"] for key, each in values["objectives"].items() if each}
        directions = {key: direction for key, direction in named.items() if direction != "record"}
        kept = {record.number for record in near_front(own, directions, margin=KEPT_MARGIN)}
        freed = 0
        for record in records:
            if folder is None:
                break
            place = trial_folder(folder, record.number)
            gone = [place / each for each in RESUME_FILES] if record.state != "running" else []
            gone += weights_files(place) if record in own and record.number not in kept else []
            for file in gone:
                if file.exists():
                    freed += file.stat().st_size
                    file.unlink()
        return freed + _vacuum(url)


@contextmanager
def _locked(url: str, name: str, runs: Path) -> Iterator[None]:
    """Hold a study's lock."""
    with hold_lock(url, runs / name if is_folder_name(name) else runs, name):
        yield


def _vacuum(url: str) -> int:
    """Compact an SQLite file; return the bytes freed."""
    file = sqlite_file(url)
    if file is None:
        return 0
    before = file.stat().st_size
    with _connected(url) as connection:
        connection.execute(sql.text("VACUUM"))
    return max(0, before - file.stat().st_size)


@contextmanager
def _transaction(url: str) -> Iterator[sql.Connection]:
    """Hold a connection whose statements are committed together."""
    engine = make_engine(url)
    try:
        with explained(url), engine.begin() as connection:
            yield connection
    finally:
        engine.dispose()


@contextmanager
def _connected(url: str) -> Iterator[sql.Connection]:
    """Hold a connection that commits each statement."""
    engine = make_engine(url)
    try:
        with explained(url), engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            yield connection
    finally:
        engine.dispose()


def upgrade_database(url: str) -> None:
    """Upgrade Optuna's tables to the installed version."""
    import optuna

    require_database(url)
    require_sqlite(url)
    with explained(url):
        storage = optuna.storages.RDBStorage(url, skip_compatibility_check=True, engine_kwargs=engine_options(url))
        storage.upgrade()
        close_storage(storage)
