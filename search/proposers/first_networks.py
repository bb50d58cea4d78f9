"""The first networks of a study: a random sample of buildable networks, with the first few of them priced.

The reference point, the check of the budgets and the known-cost proposer all start from the same random rows.
"""

from __future__ import annotations

import time as clock
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from search.proposers.cost_model import FIRST_PRICED, CostModel, first_rows, learn_costs
from search.proposers.kernel_terms import Codes, Matrix
from search.proposers.observations import cost_row
from search.trials.records import Costs
from space.architecture import Architecture
from space.encoding import Coded
from space.space import Space

SAMPLED = 1000  # networks in the sample
TIMED = 8  # priced networks whose latency is measured, spread over the MACs
MIN_TIMED = 3  # those with the least, the most and the median MACs
MAX_TIMING_S = 15.0  # after this time only MIN_TIMED are measured, because the user waits for the first trial

Progress = Callable[[int, int], object]  # (networks priced, networks to price)

Price = Callable[[Architecture], Costs | None]


@dataclass(frozen=True)
class FirstNetworks:
    """Random rows of the space whose networks can be built, the costs of the first rows, and a model of the costs."""

    coded: Coded
    rows: Codes
    architectures: tuple[Architecture, ...]
    costs: tuple[Costs, ...]
    model: CostModel

    def predicted_costs(self) -> Matrix:
        """Return the predicted costs of all rows, (n, len(COSTS))."""
        return self.model.predict(self.rows[:, self.coded.free])

    def latencies(self) -> dict[str, float]:
        """Return the measured latencies, in seconds by fingerprint."""
        priced = zip(self.architectures, self.costs, strict=True)
        return {each.fingerprint: costs.latency.median_s for each, costs in priced if costs.latency}

    def architecture(self, number: int) -> Architecture:
        """Return the architecture of a row."""
        return self.coded.space.architecture(self.coded.decode(self.rows[number]))


def price_first_networks(
    space: Space,
    *,
    refuse: Callable[[Architecture], str | None],
    price: Price,
    time: Price | None,
    seed: int,
    progress: Progress = lambda done, total: None,
) -> FirstNetworks | None:
    """Sample the space and price the first networks; None if no network of the sample can be built.

    `refuse` returns why a network can't be built. `time`, if given, prices a network including its latency.
    """
    coded = Coded(space)
    rows, architectures = [], []
    for row in first_rows(coded, seed):
        architecture = space.architecture(coded.decode(row))
        if refuse(architecture) is None:
            rows.append(row)
            architectures.append(architecture)
            if len(rows) == SAMPLED:
                break
    if not rows:
        return None
    architectures = architectures[:FIRST_PRICED]
    timed = min(TIMED, len(architectures)) if time is not None else 0
    total, costs = len(architectures) + timed, []
    for architecture in architectures:
        costs.append(_priced(architecture, price))
        progress(len(costs), total)
    if time is not None:
        began = clock.monotonic()
        for number, index in enumerate(_spread([each.macs for each in costs], timed)):
            if number >= MIN_TIMED and clock.monotonic() - began > MAX_TIMING_S:
                break
            costs[index] = _priced(architectures[index], time)
            progress(len(costs) + number + 1, total)
        progress(total, total)
    values = np.stack([cost_row(each) for each in costs])
    model = learn_costs(coded.similarities, np.stack(rows[: len(costs)])[:, coded.free], values)
    return FirstNetworks(coded, np.stack(rows), tuple(architectures), tuple(costs), model)


def _spread(macs: list[int], count: int) -> Iterator[int]:
    """Yield the indices of `count` networks evenly spread over the MACs' ranks, ends and middle first."""
    order = np.argsort(macs)
    places = np.linspace(0, len(order) - 1, count).round().astype(int)
    first = [0, count - 1, count // 2][:count]
    for place in dict.fromkeys((*first, *range(count))):
        yield int(order[places[place]])


def _priced(architecture: Architecture, price: Price) -> Costs:
    costs = price(architecture)
    if costs is None:
        raise ValueError(f"a network that can be built has no price: {architecture.describe()}")
    return costs
