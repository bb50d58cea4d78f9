"""Ask a proposer for the next architecture, which must be new and buildable."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, islice
from random import Random
from typing import Protocol

from search.proposers.local_search import LocalProposer
from search.proposers.optuna_samplers import NAMES, OptunaProposer
from search.proposers.problem import Problem, Proposal
from search.trials.records import Record
from space.canonical import Decisions

PROPOSERS = ("known-cost", "random", *NAMES, "local")
LISTABLE = 20_000


class Proposer(Protocol):
    """Proposes trainings, given all records so far.

    Proposals depend on the problem and the records alone, not on earlier calls: a study that was killed continues with
    the proposals of one that was not. After `tries` proposals of known networks a neighbour of the last one is taken.
    """

    tries: int

    def proposals(self, records: Sequence[Record]) -> Iterator[Proposal]:
        """Yield complete decisions, new or not, without end."""


class RandomProposer:
    """Proposes uniformly at random over the choices of each open axis."""

    tries = 30

    def __init__(self, problem: Problem) -> None:
        self.problem = problem

    def proposals(self, records: Sequence[Record]) -> Iterator[Proposal]:
        """Sample decisions; the sequence depends on the seed and on the number of records."""
        rng = Random(f"{self.problem.seed}:{len(records)}:random")
        while True:
            yield Proposal(rng.choice(self.problem.listed) if self.problem.listed else self.problem.space.sample(rng))


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
    raise ValueError(f"there is no proposer {name!r}; available: {', '.join(PROPOSERS)}")


def propose_new(proposer: Proposer, problem: Problem, records: Sequence[Record]) -> Proposal | None:
    """Ask until the proposer returns a repeat, or a new architecture that can be built; None if none is left.

    After many known networks a new neighbour of the last proposal is taken; without one, the rest of a small space is
    listed.
    """
    return ask_new(proposer, problem, records)[0]


def ask_new(proposer: Proposer, problem: Problem, records: Sequence[Record]) -> tuple[Proposal | None, int]:
    """Do the same as `propose_new`, and count the asks that returned a known network by mistake."""
    known = {record.architecture for record in records}

    def is_new(decisions: Decisions) -> bool:
        architecture = problem.architecture(decisions)
        return architecture not in known and not problem.infeasible(decisions, architecture)

    decisions: Decisions = {}
    for tries, proposal in enumerate(islice(proposer.proposals(records), proposer.tries)):
        decisions = proposal.decisions
        if proposal.repeat or is_new(decisions):
            return proposal, tries
    rng = Random(f"{problem.seed}:{len(records)}")
    around = list(problem.space.neighbours(decisions))
    rng.shuffle(around)
    found = next(filter(is_new, chain(around, _rest(problem, rng))), None)
    return Proposal(found) if found is not None else None, proposer.tries


def _rest(problem: Problem, rng: Random) -> Iterator[Decisions]:
    """Yield random decisions: all of a table or a small space in random order, a sample of a large space."""
    if problem.listed:
        yield from rng.sample(problem.listed, len(problem.listed))
    elif problem.space.size > LISTABLE:
        yield from (problem.space.sample(rng) for _ in range(LISTABLE))
    else:
        listed = list(problem.space.enumerate())
        rng.shuffle(listed)
        yield from listed
