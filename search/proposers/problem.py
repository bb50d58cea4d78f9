"""The search problem that a proposer works on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from search.proposers.sources import Source
from search.trials.records import Costs
from space.architecture import Architecture, Value
from space.canonical import Decisions
from space.space import Space

Price = Callable[[Architecture], Costs | None]


@dataclass(frozen=True)
class Proposal:
    """A training to start: a new network, or a known one again with another seed."""

    decisions: Decisions
    repeat: bool = False


@dataclass(frozen=True)
class Problem:
    """A space, its objectives, and functions that complete, refuse and price its networks.

    `price` returns exact costs that are the same in every process, None if the network can't be built. `refuse` returns
    why a network can't be built. `timed` holds the latencies that were measured and stored when the study started, in
    seconds by fingerprint. `listed` holds all candidates if only these have results (a table). `sources` are
    the earlier studies to learn from.
    """

    space: Space
    directions: Mapping[str, str]
    budgets: Mapping[str, float]
    reference: Mapping[str, float]
    seed: int
    architecture: Callable[[Mapping[str, Value]], Architecture]
    refuse: Callable[[Architecture], str | None]
    price: Price
    listed: tuple[Decisions, ...] = ()
    timed: Mapping[str, float] = field(default_factory=dict)
    sources: tuple[Source, ...] = ()

    def infeasible(self, decisions: Mapping[str, Value], architecture: Architecture) -> str | None:
        """Return why these decisions can't be proposed: the study forbids them, or the network can't be built."""
        return self.space.forbidden(decisions) or self.refuse(architecture)
