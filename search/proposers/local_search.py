"""Pareto local search (Paquete, Chiarandini and Stützle, 2004): neighbours of the front."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from search.proposers.problem import Problem
from search.trials.pareto import pareto_front
from search.trials.records import Record
from space.canonical import Decisions

FIRST = 8  # random networks before the first neighbour


class LocalProposer:
    """Proposes an unvisited neighbour of a random point of the front, or a random network if all are visited."""

    tries = 30

    def __init__(self, problem: Problem) -> None:
        self.problem, self.asked = problem, 0
        self.visited: set[tuple[tuple[str, object], ...]] = set()

    def propose(self, records: Sequence[Record]) -> Decisions:
        """Return decisions that differ in one axis from a point of the front."""
        self.asked += 1
        rng = Random(f"{self.problem.seed}:{len(records)}:{self.asked}")
        self.visited.update(_key(dict(record.decisions)) for record in records)
        if len(records) < FIRST:
            return self._visit(self.problem.space.sample(rng))
        front = pareto_front(records, self.problem.directions)
        rng.shuffle(front)
        for record in front:
            around = [
                each for each in self.problem.space.neighbours(dict(record.decisions)) if _key(each) not in self.visited
            ]
            if around:
                return self._visit(rng.choice(around))
        return self._visit(self.problem.space.sample(rng))

    def _visit(self, decisions: Decisions) -> Decisions:
        self.visited.add(_key(decisions))
        return decisions


def _key(decisions: Decisions) -> tuple[tuple[str, object], ...]:
    return tuple(decisions.items())
