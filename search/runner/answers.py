"""Answers to an ask: a training to start, nothing for now, or the reason why nothing is left."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from search.trials.records import Record, TrainingRequest


@dataclass(frozen=True)
class Train:
    """Start this training."""

    request: TrainingRequest


@dataclass(frozen=True)
class Wait:
    """Start nothing yet: the next training depends on running trials."""


@dataclass(frozen=True)
class Done:
    """Start no more trainings, for this reason."""

    reason: str


@dataclass(frozen=True)
class Assigned:
    """A running trial of the database, assigned to the executor."""

    record: Record


Ask = Callable[[Sequence[Record]], Train | Wait | Done]
