"""Checks of a table's columns: every message names the column and the row."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search.config.errors import UserError
from space.architecture import Value, freeze

REQUIRED = ("architecture", "seed", "epoch", "dice")
MOST_EPOCHS = 100_000  # curves are held densely
SHOWN = 60  # characters of a wrong value


@dataclass
class TableErrors:
    """The mistakes of one file, the first one of each column."""

    file: Path
    found: dict[str, str] = field(default_factory=dict)

    def add(self, column: str, row: int, problem: str) -> None:
        """Add a mistake, unless its column has one already."""
        self.found.setdefault(column, f"{self.file}: row {row}: {column} {problem}")

    def raise_any(self) -> None:
        """Raise UserError if there are mistakes."""
        if self.found:
            raise UserError(list(self.found.values()))


def column_errors(
    columns: Mapping[str, Sequence[Any]], *, costs: Collection[str], errors: TableErrors
) -> dict[str, NDArray[np.float64]]:
    """Return the columns of numbers as arrays, and add what is wrong with them."""
    arrays = {}
    for name, values in columns.items():
        if name != "architecture":
            wrong = next((row for row, value in enumerate(values) if not _is_valid(name, value, costs)), None)
            if wrong is None:
                arrays[name] = np.array(values, dtype=float)
            else:
                errors.add(name, wrong, f"is {values[wrong]!r}, {_allowed(name, costs)}")
    return arrays


def _is_valid(name: str, value: Any, costs: Collection[str]) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return False
    if name == "dice":
        return 0 <= value <= 1
    if name == "epoch":
        return value == int(value) and 1 <= value <= MOST_EPOCHS
    if name == "seed":
        return value == int(value) and value >= 0
    return value > 0 if name in costs else value >= 0


def _allowed(name: str, costs: Collection[str]) -> str:
    if name == "dice":
        return "not a number from 0 to 1"
    if name == "epoch":
        return f"not a whole number from 1 to {MOST_EPOCHS:,}"
    if name == "seed":
        return "not a whole number from 0"
    return "not a finite number above 0" if name in costs else "not a finite number from 0"


def entries_of(texts: Sequence[Any], errors: TableErrors) -> list[dict[str, Value]]:
    """Return the entries of each architecture, parsed from JSON once per text, and add what is wrong."""
    known: dict[Any, dict[str, Value]] = {}
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            errors.add("architecture", row, f"is {text!r}, not a text with a JSON object")
            return []
        if text not in known:
            try:
                known[text] = {str(name): _plain(value) for name, value in json.loads(text).items()}
            except (ValueError, AttributeError, TypeError):
                errors.add("architecture", row, f"is not a JSON object of plain values: {text[:SHOWN]!r}")
                return []
    return [known[text] for text in texts]


def _plain(value: Any) -> Value:
    """Return a JSON value as a choice. Raises ValueError for null, an object, or a number that is not finite."""
    if value is None or isinstance(value, dict) or (isinstance(value, float) and not math.isfinite(value)):
        raise ValueError(f"{value!r} is no choice of an axis")
    if isinstance(value, list):
        return tuple(_plain(each) for each in value)
    return freeze(value)
