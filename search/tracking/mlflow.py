"""MLflow: an experiment per study, in an SQLite file of the runs folder or on the server that MLflow is set to."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping, Sequence

from mlflow import MlflowClient
from mlflow.entities import Metric

from search.storage.address import sqlite_url
from search.tracking.tracker import Ending, Point, Run, TrackedStudy
from search.trials.records import State

STATUS: Mapping[State, str] = {"trained": "FINISHED", "stopped": "KILLED", "over budget": "FAILED", "failed": "FAILED"}
NOT_IN_NAMES = re.compile(r"[^\w\-. /]")  # characters that MLflow refuses
LONGEST = 5000  # characters of a tag


class MLflowTracker:
    """Writes to runs/mlflow.db unless MLFLOW_TRACKING_URI names a server."""

    def __init__(self, study: TrackedStudy) -> None:
        for chatty in ("mlflow", "alembic"):
            logging.getLogger(chatty).setLevel(logging.WARNING)  # they announce how they create their tables
        local = None if os.environ.get("MLFLOW_TRACKING_URI") else study.runs.resolve()
        if local is not None:
            local.mkdir(parents=True, exist_ok=True)
        self.client = MlflowClient(None if local is None else sqlite_url(local / "mlflow.db"))
        found = self.client.get_experiment_by_name(study.name)
        artifacts = None if local is None else (study.folder.resolve() / "mlflow").as_uri()
        self.experiment = found.experiment_id if found else self.client.create_experiment(study.name, artifacts)
        self.runs: dict[int, str] = {}

    def begin(self, run: Run, *, known: str) -> str:
        """Create a run with its parameters, tags and costs, or set a known one to running."""
        if known:
            self.client.update_run(known, status="RUNNING")
            self.runs[run.number] = known
            return known
        tags = {f"voxnas.{name}": value for name, value in {**run.tags, "key": run.key}.items()}
        made = self.client.create_run(self.experiment, int(run.started_s * 1000), tags, run.name)
        identifier = str(made.info.run_id)
        self.runs[run.number] = identifier
        for name, value in run.parameters.items():
            self.client.log_param(identifier, NOT_IN_NAMES.sub("/", name), value, synchronous=True)
        self._log(run, [(name, value, run.started_s, 0) for name, value in run.costs.items()])
        return identifier

    def log(self, run: Run, points: Sequence[Point]) -> None:
        """Write points at their epochs."""
        rows = [(name, value, each.at_s, each.epoch) for each in points for name, value in each.values.items()]
        self._log(run, rows)

    def end(self, run: Run, ending: Ending) -> None:
        """Write the final values, and the state with its reason as tags."""
        self._log(run, [(name, value, ending.ended_s, 0) for name, value in ending.values.items()])
        identifier = self.runs.pop(run.number)
        for name, text in (("state", ending.state), ("reason", ending.reason)):
            if text:
                self.client.set_tag(identifier, f"voxnas.{name}", text[:LONGEST])
        self.client.set_terminated(identifier, STATUS[ending.state], int(ending.ended_s * 1000))

    def interrupt(self, run: Run) -> None:
        """Mark the run as scheduled: its trial will resume."""
        self.client.update_run(self.runs.pop(run.number), status="SCHEDULED")

    def _log(self, run: Run, rows: Sequence[tuple[str, float, float, int]]) -> None:
        metrics = [Metric(name, value, int(at_s * 1000), step) for name, value, at_s, step in rows]
        self.client.log_batch(self.runs[run.number], metrics)
