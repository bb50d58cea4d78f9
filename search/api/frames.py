"""Trials as rows and as pandas DataFrames: one row per trial, units in the column names."""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from search.analysis.snapshot import Entry, Sheet
from search.config.objectives import OBJECTIVES

if TYPE_CHECKING:
    import pandas as pd

INDEX = "trial"


def trial_rows(sheet: Sheet, *, axes: bool = False) -> list[dict[str, Any]]:
    """Return a row per trial of the search; None for an unknown value. With `axes`, a column per open axis too."""
    rows = []
    for entry, on_front in zip(sheet.entries, sheet.front.tolist(), strict=True):
        row = _row(sheet, entry, on_front)
        if axes:
            row |= {name: entry.decisions.get(name) for name in sheet.axes}
        rows.append(row)
    return rows


def _row(sheet: Sheet, entry: Entry, on_front: bool) -> dict[str, Any]:
    first = [*sheet.objectives, *(name for name in OBJECTIVES if name not in sheet.objectives)]
    values = dict(zip(OBJECTIVES, entry.values, strict=True))
    return {
        INDEX: entry.number,
        "state": entry.state,
        "on_front": on_front,
        **{OBJECTIVES[name].column: _known(values[name]) for name in first},
        "latency_iqr_s": _known(entry.iqr_s),
        "device": entry.device,
        "epochs": entry.epochs,
        "training_s": entry.spent_s,
        "started": _when(entry.started),
        "ended": _when(entry.ended),
        "network": entry.network,
        "fingerprint": entry.fingerprint,
        "reason": entry.reason,
    }


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds") if seconds else ""


def front_rows(sheet: Sheet, *, axes: bool = False) -> list[dict[str, Any]]:
    """Return the rows of the front, the best in the first objective first, without columns that are equal on it."""
    rows = [row for row in trial_rows(sheet, axes=axes) if row["on_front"]]
    first = OBJECTIVES[sheet.objectives[0]]
    rows.sort(key=lambda row: first.loss(row[first.column]))
    return [{key: value for key, value in row.items() if key not in ("state", "on_front", "reason")} for row in rows]


def as_frame(rows: Iterable[dict[str, Any]]) -> pd.DataFrame:
    """Return rows as a DataFrame with the trial's number as its index, and times as timestamps."""
    import pandas as pd

    frame = pd.DataFrame(list(rows))
    if frame.empty:
        return frame
    for name in ("started", "ended"):
        frame[name] = pd.to_datetime(frame[name].replace("", None), utc=True)
    return frame.set_index(INDEX)
