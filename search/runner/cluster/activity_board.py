"""The activities of a cluster's trials: workers post them to one actor, and the driver collects them periodically."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import ray

from search.trials.activity import Activity

POST_S = 10.0  # between two posts of a trial, except for new stages
COLLECT_S = 1.0  # between two requests of the driver


class Board:
    """The latest activity of each trial since the last request; an actor."""

    def __init__(self) -> None:
        self.posted: dict[int, Activity] = {}

    def post(self, number: int, activity: Activity) -> None:
        """Replace a trial's activity."""
        self.posted[number] = activity

    def take(self) -> dict[int, Activity]:
        """Return and clear the posted activities."""
        posted, self.posted = self.posted, {}
        return posted


@dataclass
class ActivityBoard:
    """The driver's end of the board, whose process ends at `close`. It never blocks on an answer.

    If the board's machine is lost, the board is restarted elsewhere; activities posted meanwhile are lost.
    """

    name: str = field(default_factory=lambda: f"activities-{uuid4().hex}")
    asked: Any = None
    asked_at: float = 0.0

    def __post_init__(self) -> None:
        self.actor = ray.remote(Board).options(name=self.name, num_cpus=0, max_restarts=-1).remote()

    def close(self) -> None:
        """Drop the last reference to the actor, which ends it; this object is in a cycle of references with Tune's."""
        self.actor = self.asked = None

    def collect(self) -> dict[int, Activity]:
        """Return the activities that have arrived since the last call."""
        found: dict[int, Activity] = {}
        if self.asked is not None and ray.wait([self.asked], timeout=0)[0]:
            try:
                found = ray.get(self.asked)
            except ray.exceptions.RayError:  # the board is being restarted
                found = {}
            self.asked = None
        if self.asked is None and time.monotonic() - self.asked_at > COLLECT_S:
            self.asked, self.asked_at = self.actor.take.remote(), time.monotonic()
        return found


@dataclass
class Poster:
    """A worker's end of the board: posts the activity of one trial, without waiting for an answer."""

    board: str
    number: int
    actor: Any = None

    def __call__(self, activity: Activity) -> None:
        """Post the trial's activity; ignored if the board has ended."""
        try:
            self.actor = self.actor or ray.get_actor(self.board)
        except ValueError:
            return
        self.actor.post.remote(self.number, activity)
