"""What a study's database holds beside its trials: the values that it began with, its reference point, and so on."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import sqlalchemy as sql

from search.config.errors import UserError
from search.files.digests import DigestError, unsealed, unsealed_text
from search.storage.address import GRPC, show_url, sqlite_file
from search.storage.reader import DAMAGED, open_storage, reading

STUDY = "voxnas:study"
STUDY_ID = "voxnas:study_id"  # random, created when a study starts; it distinguishes studies with the same name
REFERENCE = "voxnas:hypervolume_reference"
GOAL = "voxnas:goal"  # the number of trials that the last run was to reach, and why it ended
TIMED = "voxnas:first_latencies"
RETIMED_BY = "voxnas:retimed_by"  # the driver that measures all latencies again; empty once it has
REFERENCES = "voxnas:references"  # published networks that a study trains by default
LEARNED_FROM = "voxnas:learned_from"  # the sources of a study's memory when it started, by digest
SOURCE_WEIGHTS = "voxnas:source_weights"  # their weights at the end of the last run, in the same order
CONTEXT = "voxnas:context"  # patch, spacing, channels and classes, for readers without the data
STUDY_ATTRIBUTES = sql.text(
    "SELECT a.key, a.value_json FROM study_user_attributes a JOIN studies s ON s.study_id = a.study_id"
    " WHERE s.study_name = :name AND a.key LIKE :pattern"
)
ALL_STUDIES = sql.text(
    "SELECT s.study_name, a.value_json FROM studies s JOIN study_user_attributes a ON a.study_id = s.study_id"
    " WHERE a.key = :key ORDER BY s.study_id"
)


def read_studies(url: str) -> dict[str, dict[str, Any]]:
    """Return the values that each study of a database began with; empty if there is no database."""
    try:
        with reading(url) as engine:
            if engine is None:
                return {}  # studies of a proxy are not listed
            with engine.connect() as connection:
                found = connection.execute(ALL_STUDIES, {"key": STUDY})
                return {row[0]: _opened(partial(unsealed_text, row[1]), key=STUDY, url=url) for row in found}
    except UserError:
        return {}


def read_study_attribute(url: str, name: str, key: str) -> Any:
    """Return a study's attribute, None if it was never written."""
    return read_study_attributes(url, name, key).get(key)


def read_study_attributes(url: str, name: str, pattern: str) -> dict[str, Any]:
    """Return the attributes of a study whose names match an SQL LIKE pattern."""
    with reading(url) as engine:
        if engine is None:
            import optuna

            with open_storage(url) as storage:
                attributes = optuna.load_study(study_name=name, storage=storage).user_attrs
            found = [each for each in attributes.items() if each[0].startswith(pattern.rstrip("%"))]
            return {key: attribute_value(each, key=key, url=url) for key, each in found}
        with engine.connect() as connection:
            rows = connection.execute(STUDY_ATTRIBUTES, {"name": name, "pattern": pattern})
            return {row[0]: _opened(partial(unsealed_text, row[1]), key=row[0], url=url) for row in rows}


def stored_values(url: str, name: str) -> dict[str, Any] | None:
    """Return the values that a study began with; None if there is no such database, table or study."""
    found = stored_attribute(url, name, STUDY)
    return found if isinstance(found, dict) else None


def stored_attribute(url: str, name: str, key: str) -> Any:
    """Return a study's attribute; None if there is no such database, table, study or attribute."""
    file = sqlite_file(url)
    if file is not None and (not file.exists() or file.is_file() and not file.stat().st_size):
        return None  # an empty file is what a full disk leaves of a database that was about to be created
    if url.startswith(GRPC):
        return read_study_attribute(url, name, key) if name in read_study_names(url) else None
    with reading(url) as engine:
        if engine is not None:
            with engine.connect() as connection:
                if not sql.inspect(connection).has_table("study_user_attributes"):
                    return None
    return read_study_attribute(url, name, key)


def read_study_names(url: str) -> list[str]:
    """Return the names of a database's studies."""
    with reading(url) as engine:
        if engine is None:
            import optuna

            with open_storage(url) as storage:
                return sorted(optuna.get_all_study_names(storage))
        with engine.connect() as connection:
            rows = connection.execute(sql.text("SELECT study_name FROM studies ORDER BY study_name"))
            return [row[0] for row in rows]


def attribute_value(written: Any, *, key: str, url: str) -> Any:
    """Return an attribute of a study as Optuna returns it. Raises UserError if it is damaged."""
    return _opened(partial(unsealed, written), key=key, url=url)


def _opened(unseal: Callable[[], Any], *, key: str, url: str) -> Any:
    try:
        return unseal()
    except DigestError:
        raise UserError([f"{show_url(url)}: the attribute {key!r} is not what was written: {DAMAGED}"]) from None
    except ValueError as error:
        where = show_url(url)
        raise UserError([f"{where} is damaged (the attribute {key!r} is no JSON: {error}); restore a copy"]) from error
