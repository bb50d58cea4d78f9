"""Where Tune is hooked up: its Searcher, TrialScheduler, Callback and Stopper, each a thin word to the desk."""

from __future__ import annotations

from typing import Any

from ray import tune
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from search.runner.cluster.dispatcher import Desk
from search.runner.cluster.trainable import MEASUREMENT
from search.trials.records import Measurement


class AskDesk(Searcher):  # type: ignore[misc]
    """Tune's Searcher: asks the desk, tells it; argument names are Tune's."""

    def __init__(self, desk: Desk) -> None:
        super().__init__()
        self.desk = desk

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Return the next job, FINISHED, or None for not now."""
        return self.desk.take(trial_id)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Hand in what came of a trial."""
        told = result.get(MEASUREMENT) if result and not error else None
        self.desk.ended(trial_id, Measurement.from_json(told) if told else None)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the store remembers."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the store remembers."""


class AskHalving(FIFOScheduler):  # type: ignore[misc]
    """Tune's TrialScheduler: first come, first served, and stopped where the driver's rule says so."""

    def __init__(self, desk: Desk) -> None:
        super().__init__()
        self.desk = desk

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Ask whether a trial goes on after an epoch."""
        stops = self.desk.heard(trial.trial_id, Measurement.from_json(result[MEASUREMENT]))
        return str(TrialScheduler.STOP if stops else TrialScheduler.CONTINUE)


class FollowTrials(tune.Callback):  # type: ignore[misc]
    """Tune's Callback: what neither Searcher nor Scheduler hears of."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Look after latencies and hanging trials."""
        with self.desk.guarded():
            self.desk.take_latencies()
            self.desk.end_overdue()

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial has its process."""
        self.desk.begun(trial)

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A process was lost."""
        self.desk.lost(trial)


class StopWhenBroken(tune.Stopper):  # type: ignore[misc]
    """Tune's Stopper: stops all at once on an error of the driver, or when it is told to end."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Trials are stopped by the scheduler alone."""
        return False

    def stop_all(self) -> bool:
        """Stop everything."""
        return self.desk.broken is not None or self.desk.told.is_set()
