"""The next architecture that is worth a training: new, buildable, from the study's proposer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from random import Random
from typing import Protocol

from search.proposers.local_search import LocalProposer
from search.proposers.optuna_samplers import NAMES, OptunaProposer
from search.proposers.problem import Problem
from search.records import Record
from space.axes import Decisions

PROPOSERS = ("known-cost", "random", *NAMES, "local")
MOST_TRIES = 30  # asks before a new architecture is drawn at random, or the rest of a small space is listed
LISTABLE = 20_000


class Proposer(Protocol):
    """Proposes decisions; told of every record before each ask."""

    def propose(self, records: Sequence[Record]) -> Decisions:
        """Return complete decisions, new or not."""


class RandomProposer:
    """Even over the choices of each open axis."""

    def __init__(self, problem: Problem) -> None:
        self.problem, self.asked = problem, 0

    def propose(self, records: Sequence[Record]) -> Decisions:
        """Sample; the sequence depends on the seed and on how much was asked and recorded."""
        self.asked += 1
        return self.problem.space.sample(Random(f"{self.problem.seed}:{len(records)}:{self.asked}"))


def make_proposer(name: str, problem: Problem) -> Proposer:
    """Return a proposer by its name."""
    if name == "random":
        return RandomProposer(problem)
    if name == "local":
        return LocalProposer(problem)
    if name == "known-cost":
        from search.proposers.known_cost import KnownCostProposer  # scipy takes a while to import

        return KnownCostProposer(problem)
    if name in NAMES:
        return OptunaProposer(problem, name=name)
    raise ValueError(f"no proposer is called {name!r}; there are {', '.join(PROPOSERS)}")


def propose_new(proposer: Proposer, problem: Problem, records: Sequence[Record]) -> Decisions | None:
    """Ask until an architecture comes that was never recorded and can be built; None where none is left.

    A proposer that repeats itself is answered from the records by its own means; after many repeats the rest of
    a small space is listed.
    """
    return ask_new(proposer, problem, records)[0]


def ask_new(proposer: Proposer, problem: Problem, records: Sequence[Record]) -> tuple[Decisions | None, int]:
    """Do as `propose_new`, and count the asks that repeated what is known."""
    known = {record.architecture for record in records}
    for tries in range(MOST_TRIES):
        decisions = proposer.propose(records)
        architecture = problem.architecture(decisions)
        if architecture not in known and problem.refuse(architecture) is None:
            return decisions, tries
    rng = Random(f"{problem.seed}:{len(records)}")
    candidates: Iterable[Decisions]
    if problem.space.size > LISTABLE:
        candidates = (problem.space.sample(rng) for _ in range(LISTABLE))
    else:
        candidates = list(problem.space.enumerate())
        rng.shuffle(candidates)
    for decisions in candidates:
        architecture = problem.architecture(decisions)
        if architecture not in known and problem.refuse(architecture) is None:
            return decisions, MOST_TRIES
    return None, MOST_TRIES
