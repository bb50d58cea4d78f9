"""Job: one training of one architecture, as the plain values that a worker receives."""

from __future__ import annotations

from dataclasses import dataclass, replace

from search.config.training_section import Training
from search.trials.records import Costs
from space.architecture import Architecture
from space.plugins import BlockCode


@dataclass(frozen=True)
class Task:
    """A segmentation task: prepared data, and the cases to train and to validate on.

    `classes` are background and the scored classes or regions. `outputs` is the number of logits if it differs from the
    number of classes.
    """

    prepared: str
    in_channels: int
    classes: tuple[str, ...]
    spacing_mm: tuple[float, float, float]
    train: tuple[str, ...]
    validation: tuple[str, ...]
    outputs: int | None = None


@dataclass(frozen=True)
class Member:
    """One of the trainings of a trial: its seed, its fold, and the fold's cases."""

    seed: int
    fold: int
    train: tuple[str, ...]
    validation: tuple[str, ...]


@dataclass(frozen=True)
class Job:
    """One training of one architecture: all that a worker receives.

    Patch and batch of the `training` are numbers. `budgets` are (objective, limit) in bytes, seconds or counts.
    Checkpoint, weights and epoch log go to `folder`. `costs` that are already known, for instance from an interrupted
    attempt, are not determined again. With a `surface_tolerance_mm`, surface metrics are computed after the last epoch.
    With `timed_elsewhere`, a probe on another machine measures the latency. `study_id` identifies the study in its
    database: a checkpoint of another study is not resumed. `blocks` holds the source of plug-in blocks.
    """

    architecture: Architecture
    task: Task
    training: Training
    budgets: tuple[tuple[str, float], ...]
    seed: int
    fold: int
    device: str
    threads: int
    folder: str
    costs: Costs | None = None
    surface_tolerance_mm: float | None = None
    timed_elsewhere: bool = False
    study_id: str = ""
    blocks: tuple[BlockCode, ...] = ()
    others: tuple[Member, ...] = ()
    member: int = 0

    def of_member(self, number: int) -> Job:
        """Return the job of one member; number 0 has the job's own seed and fold."""
        if number == 0:
            return self
        other = self.others[number - 1]
        task = replace(self.task, train=other.train, validation=other.validation)
        return replace(self, seed=other.seed, fold=other.fold, task=task, member=number)

    @property
    def patch(self) -> tuple[int, int, int]:
        """The training patch (D, H, W) in voxels."""
        return self.training.size
