"""Ray Tune's Searcher, TrialScheduler, Callback and Stopper, each a thin adapter to the dispatcher."""

from __future__ import annotations

from typing import Any

from ray import tune
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from search.runner.cluster.dispatcher import Dispatcher
from search.runner.cluster.trainable import MEASUREMENT
from search.trials.records import Measurement

FINISHED = "FINISHED"  # Tune's answer for: no more trials


class StudySearcher(Searcher):  # type: ignore[misc]
    """Tune's Searcher: gets trials from the dispatcher and returns their outcomes. Argument names are Tune's."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        super().__init__()
        self.dispatcher = dispatcher

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Return the next trial's configuration, FINISHED, or None to be asked again later."""
        config = self.dispatcher.next_config(trial_id)
        return FINISHED if config is None and self.dispatcher.is_round_over else config

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Pass on a trial's outcome."""
        text = result.get(MEASUREMENT) if result and not error else None
        self.dispatcher.on_end(trial_id, Measurement.from_json(text) if text else None)

    def save(self, checkpoint_path: str) -> None:
        """Save nothing: the study's database has it all."""

    def restore(self, checkpoint_path: str) -> None:
        """Restore nothing: the study's database has it all."""


class HalvingScheduler(FIFOScheduler):  # type: ignore[misc]
    """Tune's TrialScheduler: first in, first out; stops the trials that the driver's rules stop."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        super().__init__()
        self.dispatcher = dispatcher

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Pass on an epoch and return whether the trial continues."""
        stops = self.dispatcher.on_progress(trial.trial_id, Measurement.from_json(result[MEASUREMENT]))
        return str(TrialScheduler.STOP if stops else TrialScheduler.CONTINUE)


class TrialCallback(tune.Callback):  # type: ignore[misc]
    """Tune's Callback: the events that neither Searcher nor TrialScheduler receives."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self.dispatcher = dispatcher

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Collect latencies and activities, and end hanging trials."""
        with self.dispatcher.deferred_errors():
            self.dispatcher.collect_latencies()
            self.dispatcher.collect_activities()
            self.dispatcher.end_overdue()

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Note that a trial has a process."""
        self.dispatcher.on_start(trial)

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Note that a trial's process was lost."""
        self.dispatcher.on_process_lost(trial)


class ErrorStopper(tune.Stopper):  # type: ignore[misc]
    """Tune's Stopper: stops all trials after an error of the driver, or on a signal."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self.dispatcher = dispatcher

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Never stop a single trial: the scheduler does."""
        return False

    def stop_all(self) -> bool:
        """Return whether all trials stop."""
        return self.dispatcher.error is not None or self.dispatcher.stop_requested.is_set()
