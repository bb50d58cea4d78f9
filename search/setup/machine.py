"""What this machine trains on, how much memory that has, and how long an optimiser step takes on it."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

import torch

from search.costs.latency import device_name
from search.costs.memory import run_training_steps
from search.runner.devices import resolve_device, resolve_threads
from search.runner.plan import Plan
from search.training.step import to_memory_format
from space.architecture import Architecture
from space.build import build

USABLE = {"cuda": 0.85, "cpu": 0.5}  # share of the memory that a training may take


@dataclass(frozen=True)
class Machine:
    """The device of trainings: `cpu` or `cuda:N`, its model, its memory, the CPU threads, and the number of GPUs."""

    device: str
    name: str
    memory_bytes: int
    threads: int
    gpus: int = 0

    @property
    def usable_bytes(self) -> int:
        """The memory that a training may take."""
        return int(self.memory_bytes * USABLE[torch.device(self.device).type])


def this_machine() -> Machine:
    """Return the first GPU, or the CPU."""
    device = torch.device(resolve_device("auto"))
    if device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
    else:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    gpus = torch.cuda.device_count() if device.type == "cuda" else 0
    return Machine(str(device), device_name(device), total, resolve_threads(None), gpus)


def step_seconds(plan: Plan, architecture: Architecture, machine: Machine) -> float:
    """Measure an optimiser step of a network on the study's patch and batch: the fastest of three after a first one."""
    device = torch.device(machine.device)
    torch.set_num_threads(machine.threads)
    network = to_memory_format(build(architecture, plan.context)).to(device)
    times = []
    for _ in range(4):
        began = time.perf_counter()
        run_training_steps(network, plan.context, plan.training, device=device)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - began)
    return min(times[1:])
