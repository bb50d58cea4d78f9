"""Exact prices of a study's architectures, each worked out once a process."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch

from search.costs.latency import measure_latency
from search.costs.price import predict_costs
from search.plan import Plan
from search.records import Costs
from space.architecture import Architecture
from space.build import Refused, build


@dataclass
class Pricer:
    """Prices by fake tensors; a latency is measured only where `timed` asks for it. One to two seconds a network."""

    plan: Plan
    device: str
    known: dict[Architecture, Costs | None] = field(default_factory=dict)

    def __call__(self, architecture: Architecture) -> Costs | None:
        """Return the costs that need no device (and a latency measured before); None for what can't be built."""
        if architecture not in self.known:
            try:
                costs = predict_costs(architecture, self.plan.context, self.plan.training)
            except Refused:
                self.known[architecture] = None
            else:
                self.known[architecture] = costs
        return self.known[architecture]

    def timed(self, architecture: Architecture) -> Costs | None:
        """Return the costs with the latency measured on the study's device."""
        costs = self(architecture)
        if costs is None or costs.latency is not None:
            return costs
        network = build(architecture, self.plan.context)
        latency = measure_latency(network, self.plan.context, self.plan.training, device=torch.device(self.device))
        self.known[architecture] = replace(costs, latency=latency)
        return self.known[architecture]
