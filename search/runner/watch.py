"""Watch: report a training's activity from its steps and validated cases, at most once a second."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import SupportsFloat

from search.config.training_section import Training
from search.costs.device_lock import working_clock
from search.trials.activity import Activity, Stage
from search.trials.epochs import Epoch


@dataclass
class Watch:
    """Reports a training's activity: new stages and the first step immediately, others at most every `every_s` seconds.

    Times exclude waiting for the device.
    """

    report: Callable[[Activity], object] = lambda activity: None
    every_s: float = 1.0

    def __post_init__(self) -> None:
        self._started = self._began = working_clock()
        self._spent_before_s, self._reported_at = 0.0, -math.inf
        self._training: Training | None = None
        self._later = 0
        self._stage: Stage | None = None
        self._epoch = self._total = 0
        self._step_s: float | None = None
        self._validation_s: float | None = None

    def start(self, training: Training, epochs: Sequence[Epoch], *, later: int = 0) -> None:
        """Set the training, the epochs that earlier attempts completed, and how many trainings of the trial follow."""
        self._training, self._later = training, later
        self._spent_before_s = sum(epoch.seconds for epoch in epochs)

    def begin(self, stage: Stage, *, epoch: int = 0, total: int = 0) -> None:
        """Begin a stage of `total` steps or cases."""
        changed = stage != self._stage
        self._stage, self._epoch, self._total, self._began = stage, epoch, total, working_clock()
        if changed:
            self._report(0, None)

    def advance(self, done: int, *, loss_sum: SupportsFloat | None = None) -> None:
        """Set the number of steps or cases done in this stage; `loss_sum` is only read for a report."""
        now = working_clock()
        is_first = self._stage == "training" and self._step_s is None
        if self._stage == "training":
            self._step_s = (now - self._began) / done
        else:
            self._validation_s = (now - self._began) / done * self._total
        if is_first or now - self._reported_at >= self.every_s:
            self._report(done, None if loss_sum is None else float(loss_sum) / done)

    def _report(self, done: int, loss: float | None) -> None:
        if self._stage is None:
            raise ValueError("a stage begins before it is reported")
        self._reported_at = now = working_clock()
        elapsed = now - self._began
        self.report(
            Activity(
                self._stage,
                epoch=self._epoch,
                epochs=self._training.epochs if self._training else 0,
                done=done,
                total=self._total,
                per_second=done / elapsed if done and elapsed > 0 else None,
                loss=loss,
                spent_s=self._spent_before_s + now - self._started,
                left_s=self._left_s(done),
            )
        )

    def _left_s(self, done: int) -> float | None:
        """Return the trial's time left: its steps, and its validations once one has been timed."""
        training, step_s = self._training, self._step_s
        if training is None or step_s is None:
            return None
        validating = self._stage == "validation"
        steps = training.epochs * training.steps_per_epoch
        steps -= self._epoch * training.steps_per_epoch if validating else (self._epoch - 1) * self._total + done
        last, every = training.epochs, training.validate_every
        validations = sum(each == last or each % every == 0 for each in range(self._epoch, last + 1))
        steps += self._later * training.epochs * training.steps_per_epoch
        validations += self._later * -(-last // every)
        current = done / self._total if validating and self._total else 0.0
        return steps * step_s + max(0.0, validations - current) * (self._validation_s or 0.0)
