"""Trials as rows and as pandas DataFrames: one row per trial, units in the column names."""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from search.analysis.snapshot import Snapshot
from search.analysis.status import interrupted_trials, shown_state
from search.analysis.trial import Trial
from search.config.objectives import OBJECTIVES

if TYPE_CHECKING:
    import pandas as pd

INDEX = "trial"
ESTIMATED = ("expected_dice", "dice_low", "dice_high", "front_probability")


def trial_rows(snapshot: Snapshot, *, axes: bool = False) -> list[dict[str, Any]]:
    """Return a row per trial of the search; None for an unknown value. With `axes`, a column per open axis too."""
    rows, interrupted = [], interrupted_trials(snapshot)
    for trial, on_front in zip(snapshot.trials, snapshot.on_front.tolist(), strict=True):
        row = _row(snapshot, trial, on_front) | {"state": shown_state(trial, interrupted)}
        if axes:
            row |= {name: trial.decisions.get(name) for name in snapshot.axes}
        rows.append(row)
    return rows


def _row(snapshot: Snapshot, trial: Trial, on_front: bool) -> dict[str, Any]:
    first = [*snapshot.objectives, *(name for name in OBJECTIVES if name not in snapshot.objectives)]
    values, estimate = dict(zip(OBJECTIVES, trial.values, strict=True)), snapshot.estimate_of(trial.number)
    return {
        INDEX: trial.number,
        "state": trial.state,
        "on_front": on_front,
        **{OBJECTIVES[name].column: _known(values[name]) for name in first},
        **({"dice_sd": _known(trial.dice_sd)} if snapshot.study.search.trainings > 1 else {}),
        **{name: estimate.get(name) for name in ESTIMATED if snapshot.estimates},
        "latency_iqr_s": _known(trial.iqr_s),
        "device": trial.device,
        "epochs": len(trial.epochs),
        "training_s": trial.spent_s,
        "started": _when(trial.started),
        "ended": _when(trial.ended),
        "network": trial.network,
        "fingerprint": trial.fingerprint,
        "reason": trial.reason,
    }


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds") if seconds else ""


def front_rows(snapshot: Snapshot, *, axes: bool = False) -> list[dict[str, Any]]:
    """Return the rows of the front, the best in the first objective first, without columns that are equal on it."""
    rows = [row for row in trial_rows(snapshot, axes=axes) if row["on_front"]]
    order = snapshot.numbers[snapshot.front_rows].tolist()
    rows.sort(key=lambda row: order.index(row[INDEX]))
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
