"""Measure latencies on a cluster: one task per network, each with exclusive use of a device of the requested type."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import ray

from search.config.errors import UserError
from search.config.training_section import Training
from search.trials.records import Latency
from space.architecture import Architecture
from space.canonical import Context
from space.plugins import BlockCode, load_blocks


@dataclass(frozen=True)
class Stopwatch:
    """Measures latency on a probe's machine."""

    context: Context
    training: Training
    device: str
    threads: int
    blocks: tuple[BlockCode, ...] = ()

    def name(self) -> str:
        """Return the device's model."""
        import torch

        from search.costs.latency import device_name

        return device_name(torch.device(self.device))

    def time(self, architecture: Architecture) -> Latency:
        """Measure a network's latency; no trial of voxnas uses the device meanwhile."""
        import torch

        from search.costs.latency import measure_latency
        from space.build import build

        torch.set_num_threads(self.threads)
        load_blocks(self.blocks)
        network = build(architecture, self.context)
        return measure_latency(network, self.context, self.training, device=torch.device(self.device))


@dataclass
class Probes:
    """The running probes; each network is measured once, however many trials need it."""

    stopwatch: Stopwatch
    options: dict[str, Any]
    under_way: dict[Architecture, Any] = field(default_factory=dict)

    def start(self, architecture: Architecture) -> None:
        """Queue a network; each device measures one network at a time."""
        if architecture not in self.under_way:
            task = ray.remote(max_retries=3)(time_network).options(**self.options)
            self.under_way[architecture] = task.remote(self.stopwatch, architecture)

    def collect(self) -> list[tuple[Architecture, Latency | Exception]]:
        """Return the latencies measured since the last call, or the errors."""
        refs = {ref: architecture for architecture, ref in self.under_way.items()}
        if not refs:
            return []
        ready, _ = ray.wait([*refs], num_returns=len(refs), timeout=0)
        return [(refs[ref], self._take(refs[ref])) for ref in ready]

    def wait(self, architecture: Architecture) -> Latency:
        """Measure a network now and wait for it."""
        self.start(architecture)
        ray.wait([self.under_way[architecture]])
        found = self._take(architecture)
        if isinstance(found, Exception):
            raise found
        return found

    def device_name(self) -> str:
        """Return the model of the device."""
        name: str = ray.get(ray.remote(name_device).options(**self.options).remote(self.stopwatch))
        return name

    def _take(self, architecture: Architecture) -> Latency | Exception:
        try:
            latency: Latency = ray.get(self.under_way.pop(architecture))
            return latency
        except ray.exceptions.RayError as error:
            failed: Exception = error
            return failed


def time_network(stopwatch: Stopwatch, architecture: Architecture) -> Latency:
    """Measure a network's latency; runs on the probe's machine."""
    return stopwatch.time(architecture)


def name_device(stopwatch: Stopwatch) -> str:
    """Return the device's model; runs on the probe's machine."""
    return stopwatch.name()


def probe_options(named: str | None, lent: Mapping[str, float], *, gpu: bool) -> dict[str, Any]:
    """Return the Ray options that reserve a whole device: a custom resource, a GPU type, or any GPU of the cluster.

    A CPU without a custom resource is reserved by the device lock, which trainings on that machine release between
    steps; reused actors never free its Ray resources. Raises UserError if the cluster has no resource of that name.
    """
    name = named or ("latency_probe" if lent.get("latency_probe") else None)
    if name is None:
        return {"num_cpus": 0, "num_gpus": 1 if gpu else 0}
    if lent.get(name):
        return {"num_cpus": 0, "resources": {name: 1.0}}
    if lent.get(f"accelerator_type:{name}"):
        return {"num_cpus": 0, "num_gpus": 1, "resources": {f"accelerator_type:{name}": 0.001}}
    kinds = [each.removeprefix("accelerator_type:") for each in lent if each.startswith("accelerator_type:")]
    there = (
        ", ".join(sorted({*kinds, *(each for each in lent if each == "latency_probe")}))
        or "no GPU types or custom resources"
    )
    raise UserError([f"executor.latency_on: {name!r} is not in the cluster, which has {there}"])
