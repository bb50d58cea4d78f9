"""Choices, directions and excesses as Optuna stores them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from search.trials.records import Record

if TYPE_CHECKING:
    import optuna


def optuna_directions(directions: Mapping[str, str]) -> list[optuna.study.StudyDirection]:
    """Return the directions as Optuna's values."""
    import optuna

    return [optuna.study.StudyDirection[direction.upper()] for direction in directions.values()]


def excesses(record: Record, budgets: Mapping[str, float]) -> dict[str, float]:
    """Return each budgeted cost's excess over its limit, as a share of the limit (negative if under)."""
    found = {name: record.measurement.value(name) for name in budgets}
    return {name: value / budgets[name] - 1.0 for name, value in found.items() if value is not None}


def plain_choice(value: Any) -> Any:
    """Return a choice as a scalar, which Optuna requires."""
    return json.dumps(value) if isinstance(value, tuple) else value
