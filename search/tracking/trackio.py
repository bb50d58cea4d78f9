"""Trackio: a project per study, in SQLite files of the runs folder or where TRACKIO_DIR says."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from search.tracking.tracker import Ending, Point, Run, TrackedStudy

FOLDER = "_trackio"  # no study has such a name


class TrackioTracker:
    """Writes to runs/_trackio."""

    def __init__(self, study: TrackedStudy) -> None:
        os.environ.setdefault("TRACKIO_DIR", str(study.runs.resolve() / FOLDER))  # it is read at the import
        import trackio
        import trackio.run

        for module in (trackio, trackio.run):
            vars(module)["print"] = lambda *words, **options: None  # it greets at every run
        self.trackio, self.project = trackio, study.name.replace("/", "-")
        self.runs: dict[int, Any] = {}

    def begin(self, run: Run, *, known: str) -> str:
        """Open a run, or continue the one with the same name."""
        name = known or f"{run.name} {run.key}"
        self.runs[run.number] = self.trackio.init(
            project=self.project,
            name=name,
            resume="allow",
            config={**run.parameters, **run.tags, **run.costs},
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )
        return name

    def log(self, run: Run, points: Sequence[Point]) -> None:
        """Write points; steps count over all trainings of the trial."""
        for point in points:
            self.runs[run.number].log({**point.values, "epoch": point.epoch}, step=point.place)

    def end(self, run: Run, ending: Ending) -> None:
        """Write the final values and the state."""
        opened = self.runs.pop(run.number)
        final = {f"final/{name}": value for name, value in ending.values.items()}
        opened.log({**final, "state": ending.state, "reason": ending.reason})
        opened.finish()

    def interrupt(self, run: Run) -> None:
        """Close the run; the trial continues it later."""
        self.runs.pop(run.number).finish()
