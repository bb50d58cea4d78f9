"""Random networks of a space that can be built, and why others can't."""

from __future__ import annotations

import re
from random import Random

from search.config import UserError
from space.canonical import Decisions
from space.feasible import find_refusal, why_not
from space.space import Space

NUMBER = re.compile(r"\d+(x\d+)*")


def refusals(space: Space, *, sample: int, seed: int) -> dict[str, int]:
    """Count why random networks of the space can't be built; '' counts those that can.

    Reasons that differ only in a place or a number are counted together, under the first one.
    """
    rng = Random(seed)
    counts: dict[str, int] = {}
    examples: dict[tuple[str, str], str] = {}
    for _ in range(sample):
        refusal = find_refusal(space.architecture(space.sample(rng)), space.context)
        kind = (refusal.block, NUMBER.sub("#", refusal.reason)) if refusal else ("", "")
        example = examples.setdefault(kind, str(refusal or ""))
        counts[example] = counts.get(example, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: -item[1]))


def sample_buildable(space: Space, rng: Random, *, tries: int = 1000) -> Decisions:
    """Sample decisions whose network can be built. Raises UserError if none is found."""
    for _ in range(tries):
        decisions = space.sample(rng)
        if why_not(space.architecture(decisions), space.context) is None:
            return decisions
    reason = next(iter(refusals(space, sample=100, seed=0)))
    raise UserError([f"no network of this space can be built: {reason}"])
