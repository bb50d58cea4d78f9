"""How far a study has come: whether anything depends on its values yet, and whether its latencies belong together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from search.config.errors import UserError
from search.storage.heartbeat import present_drivers
from search.storage.optuna_values import optuna_directions
from search.storage.reader import read_records
from search.storage.study_attributes import REFERENCE, RETIMED_BY, STUDY_ID, stored_attribute

if TYPE_CHECKING:
    import optuna


def has_begun(url: str, name: str) -> bool:
    """Return whether a study has a reference point, a trial, or a driver that is about to write them."""
    if stored_attribute(url, name, REFERENCE) is not None or present_drivers(url, name):
        return True
    return bool(read_records(url, name))


def created_again(study: optuna.Study, storage: Any, directions: Mapping[str, str]) -> optuna.Study:
    """Delete a study that has no trials, and create it with other objectives; its folder stays its own."""
    import optuna

    study_id = study.user_attrs.get(STUDY_ID)
    optuna.delete_study(study_name=study.study_name, storage=storage)
    made = optuna.create_study(study_name=study.study_name, storage=storage, directions=optuna_directions(directions))
    if study_id is not None:
        made.set_user_attr(STUDY_ID, study_id)
    return made


def require_complete_retiming(url: str, name: str) -> None:
    """Raise UserError if a driver began to measure a study's latencies again and has not finished."""
    driver = stored_attribute(url, name, RETIMED_BY)
    if driver:
        begun = f"{name}: {driver} began to measure all latencies again, and has not finished"
        raise UserError([f"{begun}: they can't be compared; run with --retime, which measures all of them here"])
