"""The next architecture that is worth a training: new, buildable, from the study's proposer."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Protocol

from search.plan import Plan
from search.proposers.optuna_samplers import OptunaProposer
from search.records import Record
from space.axes import Decisions
from space.feasible import why_not

MOST_TRIES = 300  # asks before the rest of a small space is listed instead
LISTABLE = 20_000


class Proposer(Protocol):
    """Proposes decisions; told of every record before each ask."""

    def propose(self, records: Sequence[Record]) -> Decisions:
        """Return complete decisions, new or not."""


class RandomProposer:
    """Even over the choices of each open axis."""

    def __init__(self, plan: Plan, seed: int) -> None:
        self.space, self.seed, self.asked = plan.space, seed, 0

    def propose(self, records: Sequence[Record]) -> Decisions:
        """Sample; the sequence depends on the seed and on how much was asked and recorded."""
        self.asked += 1
        return self.space.sample(Random(f"{self.seed}:{len(records)}:{self.asked}"))


def make_proposer(plan: Plan) -> Proposer:
    """Return the proposer that the study names."""
    search = plan.study.search
    if search.proposer == "random":
        return RandomProposer(plan, search.seed)
    return OptunaProposer(plan, name=search.proposer, seed=search.seed)


def propose_new(proposer: Proposer, plan: Plan, records: Sequence[Record]) -> Decisions | None:
    """Ask until an architecture comes that was never recorded and can be built; None where none is left.

    A proposer that repeats itself is answered from the records by its own means; after many repeats the rest of
    a small space is listed.
    """
    known = {record.architecture.fingerprint for record in records}
    for _ in range(MOST_TRIES):
        decisions = proposer.propose(records)
        architecture = plan.space.architecture(decisions)
        if architecture.fingerprint not in known and why_not(architecture, plan.context) is None:
            return decisions
    rng = Random(f"{plan.study.search.seed}:{len(records)}")
    if plan.space.size > LISTABLE:
        candidates = (plan.space.sample(rng) for _ in range(LISTABLE))
    else:
        listed = list(plan.space.enumerate())
        rng.shuffle(listed)
        candidates = (each for each in listed)
    for decisions in candidates:
        architecture = plan.space.architecture(decisions)
        if architecture.fingerprint not in known and why_not(architecture, plan.context) is None:
            return decisions
    return None
