"""What shows the progress of a run: the command, a notebook, or nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from search.trials.activity import Activity
from search.trials.epochs import Epoch
from search.trials.records import Record


class View(Protocol):
    """Shows the progress of a run."""

    def on_stage(self, stage: str, done: int = 0, total: int = 0) -> None:
        """Something other than a trial is under way: `done` of `total`, if that can be counted."""

    def on_resume(self, records: Sequence[Record]) -> None:
        """A search continues after these trials of earlier runs."""

    def on_trial_start(self, record: Record, epochs: int) -> None:
        """A trial starts or resumes."""

    def on_activity(self, record: Record, activity: Activity) -> None:
        """A trial reports its activity."""

    def on_epoch(self, record: Record, epoch: Epoch) -> None:
        """An epoch ended."""

    def on_trial_end(self, record: Record, front: int, hypervolume: float | None) -> None:
        """A trial ended; `hypervolume` is None outside a search."""
