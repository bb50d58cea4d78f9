"""What a proposer has to know of a study, and nothing of where its numbers come from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from search.trials.records import Costs
from space.architecture import Architecture, Value
from space.canonical import Decisions
from space.space import Space

Price = Callable[[Architecture], Costs | None]


@dataclass(frozen=True)
class Problem:
    """A space, what is wanted of its networks, and how they are spelled out, refused and priced.

    `price` gives exact costs (None where the network can't be built), as far as they are known without a training.
    `listed` names all networks there are, where those are too few among the space's to be met by chance.
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

    def unfit(self, decisions: Mapping[str, Value], architecture: Architecture) -> str | None:
        """Return why these decisions are no candidate: the study forbids them, or their network can't be built."""
        return self.space.forbidden(decisions) or self.refuse(architecture)
