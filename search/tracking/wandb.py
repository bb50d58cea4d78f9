"""W&B: a project per study; offline in the study's folder, unless the user is logged in or has set WANDB_MODE."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import wandb

from search.tracking.tracker import Ending, Point, Run, TrackedStudy


class WandbTracker:
    """Writes to runs/NAME/wandb; `wandb sync` sends offline runs later, a resumed trial as one run."""

    def __init__(self, study: TrackedStudy) -> None:
        self.project, self.folder = study.name.replace("/", "-"), study.folder.resolve()
        self.folder.mkdir(parents=True, exist_ok=True)
        decided = bool(os.environ.get("WANDB_MODE")) or wandb.login(prompt=False, verify=False)
        self.mode = None if decided else "offline"
        self.settings = wandb.Settings(silent=True, console="off", x_disable_stats=True, disable_git=True)
        self.runs: dict[int, Any] = {}

    def begin(self, run: Run, *, known: str) -> str:
        """Open a run, or continue the one with the same identifier."""
        opened = wandb.init(
            project=self.project,
            id=known or run.key,
            name=run.name,
            dir=str(self.folder),
            mode=self.mode,
            resume="allow",
            reinit="create_new",  # several trials run at a time
            config={**run.parameters, **run.tags},
            settings=self.settings,
        )
        self.runs[run.number] = opened
        opened.define_metric("*", step_metric="epoch")
        opened.summary.update({**run.costs, "state": "running"})
        return str(opened.id)

    def log(self, run: Run, points: Sequence[Point]) -> None:
        """Write points with their epochs, the curves' horizontal axis; steps count over all trainings of the trial."""
        for point in points:
            self.runs[run.number].log({**point.values, "epoch": point.epoch}, step=point.place)

    def end(self, run: Run, ending: Ending) -> None:
        """Write the final values and the state; a failed trial is a failed run."""
        opened = self.runs.pop(run.number)
        opened.summary.update({**ending.values, "state": ending.state, "reason": ending.reason})
        opened.finish(exit_code=0 if ending.state in ("trained", "stopped") else 1)

    def interrupt(self, run: Run) -> None:
        """Close the run; the trial continues it later."""
        opened = self.runs.pop(run.number)
        opened.summary.update({"state": "interrupted"})
        opened.finish()
