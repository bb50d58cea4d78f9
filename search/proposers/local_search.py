"""Pareto local search (Paquete, Chiarandini and Stützle, 2004): neighbours of the front."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random

from search.proposers.problem import Problem, Proposal
from search.trials.pareto import pareto_front
from search.trials.records import Record
from space.canonical import Decisions

FIRST = 8  # random networks before the first neighbour


class LocalProposer:
    """Proposes an unvisited neighbour of a random point of the front, or a random network if all are visited."""

    tries = 30

    def __init__(self, problem: Problem) -> None:
        self.problem = problem

    def proposals(self, records: Sequence[Record]) -> Iterator[Proposal]:
        """Yield decisions that differ in one axis from those of a point of the records' front."""
        rng = Random(f"{self.problem.seed}:{len(records)}:local")
        visited = {_key(dict(record.decisions)) for record in records}
        front = pareto_front(records, self.problem.directions) if len(records) >= FIRST else []
        while True:
            decisions = self._neighbour(front, visited, rng) or self.problem.space.sample(rng)
            visited.add(_key(decisions))
            yield Proposal(decisions)

    def _neighbour(
        self, front: Sequence[Record], visited: set[tuple[tuple[str, object], ...]], rng: Random
    ) -> Decisions | None:
        for record in rng.sample(front, len(front)):
            neighbours = self.problem.space.neighbours(dict(record.decisions))
            around = [each for each in neighbours if _key(each) not in visited]
            if around:
                return rng.choice(around)
        return None


def _key(decisions: Decisions) -> tuple[tuple[str, object], ...]:
    return tuple(decisions.items())
