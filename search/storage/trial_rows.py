"""Write trials straight to Optuna's tables, in one transaction each; Optuna takes two queries for each parameter."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sql

from search.files.digests import sealed
from search.storage.reader import DISCARDED, RECORD
from search.trials.records import Record

LOCK_STUDY = sql.text("SELECT study_id FROM studies WHERE study_id = :study FOR UPDATE")
NEW_TRIAL = sql.text(
    "INSERT INTO trials (number, study_id, state, datetime_start)"
    " VALUES ((SELECT COUNT(*) FROM trials WHERE study_id = :study), :study, 'RUNNING', :started) RETURNING trial_id"
).bindparams(sql.bindparam("started", type_=sql.DateTime))
NEW_ATTRIBUTE = sql.text("INSERT INTO trial_user_attributes (trial_id, key, value_json) VALUES (:trial, :key, :value)")
NEW_RECORD = sql.text("UPDATE trial_user_attributes SET value_json = :value WHERE trial_id = :trial AND key = :key")
NEW_VALUE = sql.text("UPDATE trial_values SET value = :value WHERE trial_id = :trial AND objective = :at")
TRIAL = sql.text(
    "SELECT trial_id FROM trials WHERE number = :number"
    " AND study_id = (SELECT study_id FROM studies WHERE study_name = :study)"
)
NO_RECORD = sql.text("DELETE FROM trial_user_attributes WHERE trial_id = :trial AND key = :key")
ENDED = sql.text(
    "UPDATE trials SET state = 'FAIL', datetime_complete = :now WHERE trial_id = :trial AND state = 'RUNNING'"
).bindparams(sql.bindparam("now", type_=sql.DateTime))
NEW_PARAMETERS = sql.text(
    "INSERT INTO trial_params (trial_id, param_name, param_value, distribution_json)"
    " VALUES (:trial, :name, :value, :text)"
)


def insert_trial(
    engine: sql.Engine,
    study: int,
    record: Record,
    params: Mapping[str, Any],
    distributions: Mapping[str, Any],
    *,
    locked: bool,
) -> None:
    """Insert a running trial with its record and parameters; `locked` if several drivers number trials."""
    import optuna

    with engine.begin() as connection:
        if locked:
            connection.execute(LOCK_STUDY, {"study": study})  # as Optuna does: numbers are counted
        trial = connection.execute(NEW_TRIAL, {"study": study, "started": datetime.now()}).scalar_one()
        values = {"trial": trial, "key": RECORD, "value": json.dumps(sealed(record.to_values()))}
        connection.execute(NEW_ATTRIBUTE, values)
        rows = [
            {
                "trial": trial,
                "name": name,
                "value": distributions[name].to_internal_repr(value),
                "text": optuna.distributions.distribution_to_json(distributions[name]),
            }
            for name, value in params.items()
        ]
        if rows:
            connection.execute(NEW_PARAMETERS, rows)


def discard_record(connection: sql.Connection, study: str, number: int) -> None:
    """Write in place of a trial's record that the trial is left out; the trial fails if it was open."""
    trial = connection.execute(TRIAL, {"study": study, "number": number}).scalar_one()
    values = {"trial": trial, "key": RECORD, "value": json.dumps(sealed(DISCARDED))}
    connection.execute(NO_RECORD, values)
    connection.execute(NEW_ATTRIBUTE, values)
    connection.execute(ENDED, {"trial": trial, "now": datetime.now()})


def update_costs(engine: sql.Engine, trial: int, record: Record, values: Sequence[float | None]) -> None:
    """Write a finished trial's record again, and its values as Optuna stores them."""
    with engine.begin() as connection:
        connection.execute(NEW_RECORD, {"trial": trial, "key": RECORD, "value": json.dumps(sealed(record.to_values()))})
        for at, value in enumerate(values):
            connection.execute(NEW_VALUE, {"trial": trial, "at": at, "value": value})
