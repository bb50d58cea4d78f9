"""Answers of an ask: a training to start, nothing now, or the reason why nothing is left."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from search.trials.records import Record, Wanted


@dataclass(frozen=True)
class Train:
    """Start this training."""

    wanted: Wanted


@dataclass(frozen=True)
class Wait:
    """Start nothing now: trials that run decide what comes next."""


@dataclass(frozen=True)
class Done:
    """Start nothing more, for this reason."""

    reason: str


@dataclass(frozen=True)
class Assigned:
    """A running trial of the database that the executor has to work on."""

    record: Record


Ask = Callable[[Sequence[Record]], Train | Wait | Done]
