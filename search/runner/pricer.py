"""Exact costs of a study's architectures, each determined once."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch

from search.costs.latency import device_name, measure_latency
from search.costs.price import predict_costs
from search.runner.devices import resolve_device, resolve_threads
from search.runner.plan import Plan
from search.storage.address import GRPC, sqlite_url
from search.storage.price_cache import Device, PriceTable
from search.training.step import precision_name
from search.trials.records import Costs, Latency
from space.architecture import Architecture
from space.build import Refused, build


@dataclass
class Pricer:
    """Predicts costs on abstract tensors, in a tenth of a second per network; only `timed` measures latency.

    Costs known from an earlier run, or from another study of the same database, come from the database's table.
    """

    plan: Plan
    device: str
    table: PriceTable
    known: dict[Architecture, Costs | None] = field(default_factory=dict)

    def __call__(self, architecture: Architecture) -> Costs | None:
        """Return the costs that need no device, and a latency measured before; None if the network can't be built."""
        if architecture not in self.known:
            self.known[architecture] = self.table.find(architecture) or self._predict(architecture)
        return self.known[architecture]

    def known_before(self, architecture: Architecture) -> Costs | None:
        """Return the costs if they are known already."""
        return self.known.get(architecture) or self.table.find(architecture)

    def keep(self, architecture: Architecture, costs: Costs) -> None:
        """Write costs that were determined elsewhere to the table."""
        self.known[architecture] = costs
        self.table.keep(architecture, costs)

    def _predict(self, architecture: Architecture) -> Costs | None:
        try:
            costs = predict_costs(
                architecture,
                self.plan.context,
                self.plan.training,
                labelling=self.plan.dataset.labelling,
                device=torch.device(self.device),
            )
        except Refused:
            return None
        self.table.keep(architecture, costs)
        return costs

    def close(self) -> None:
        """Close the table's database."""
        self.table.close()

    def timed(self, architecture: Architecture) -> Costs | None:
        """Return the costs with the latency measured on the study's device; None for a network that doesn't fit."""
        costs = self(architecture)
        if costs is None or costs.latency is not None:
            return costs
        try:
            latency = self.measure(architecture)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            return None
        self.keep(architecture, replace(costs, latency=latency))
        return self.known[architecture]

    def measure(self, architecture: Architecture) -> Latency:
        """Measure the latency on the study's device, here."""
        network = build(architecture, self.plan.context)
        return measure_latency(network, self.plan.context, self.plan.training, device=torch.device(self.device))


def price_table(plan: Plan, *, device: str, threads: int, model: str | None = None) -> PriceTable:
    """Return the table of costs in the study's database; `model` names a device on another machine."""
    measured = measured_device(plan, device=device, threads=threads, model=model)
    url = plan.url if not plan.url.startswith(GRPC) else sqlite_url(plan.folder / "prices.db")
    return PriceTable(
        url,
        context=plan.context,
        training=plan.training,
        labelling=plan.dataset.labelling,
        device=measured,
        kind=torch.device(device).type,
    )


def local_device(plan: Plan) -> Device:
    """Return the device, threads and precision of latencies that this machine measures for a study."""
    named = plan.study.executor
    return measured_device(plan, device=resolve_device(named.device), threads=resolve_threads(named.threads))


def measured_device(plan: Plan, *, device: str, threads: int, model: str | None = None) -> Device:
    """Return the device, threads and precision of latencies measured on a device; `model` names a remote device."""
    where = torch.device(device)
    return Device(model or device_name(where), threads, precision_name(where, plan.training, model=model or ""))
