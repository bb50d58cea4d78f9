"""The trackers that a study can name; each needs the optional package of its name, as the extra is named too."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Sequence

from search.config.schema import TrackerName
from search.tracking.tracker import TrackedStudy, Tracker

UNOBSERVED = {  # settings with which a package reports neither its use nor its errors to its makers
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "WANDB_ERROR_REPORTING": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}


def missing_trackers(names: Sequence[TrackerName]) -> list[TrackerName]:
    """Return the trackers whose packages are not installed."""
    return [name for name in names if importlib.util.find_spec(name) is None]


def explain_missing(names: Sequence[TrackerName]) -> str:
    """Return which trackers can't be used and how to install them, as a sentence; empty if none is missing."""
    missing = missing_trackers(names)
    if not missing:
        return ""
    listed, which = ", ".join(missing), "package is" if len(missing) == 1 else "packages are"
    return f"track: {listed}: the {which} not installed; run pip install 'voxnas[{','.join(missing)}]'"


def tracker_of(name: TrackerName) -> Callable[[TrackedStudy], Tracker]:
    """Import a tracker's package, and return what opens it."""
    for variable, value in UNOBSERVED.items():
        os.environ.setdefault(variable, value)  # each is read at the import
    if name == "tensorboard":
        from search.tracking.tensorboard import TensorBoardTracker

        return TensorBoardTracker
    if name == "mlflow":
        from search.tracking.mlflow import MLflowTracker

        return MLflowTracker
    if name == "wandb":
        from search.tracking.wandb import WandbTracker

        return WandbTracker
    from search.tracking.trackio import TrackioTracker

    return TrackioTracker
