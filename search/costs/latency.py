"""Latency of one patch at batch 1: warm up until it settles, then the median and its spread."""

from __future__ import annotations

import fcntl
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import torch

from search.config.schema import Training
from search.training.step import LAYOUT, autocast, lay_out, precision_name
from search.trials.records import Latency
from space.build import Network
from space.canonical import Context

SETTLED = 0.05  # the medians of two successive rounds differ by less than this share
ROUND = 5  # runs in a warm-up round
MOST_ROUNDS = 6
REPEATS = 20
STEADY = 0.2  # most spread of a good reading: interquartile range over median
READINGS = 3  # a reading that spreads wider is repeated so often; the steadiest is kept
MOST_SECONDS = 20.0  # of warm-up and of repeats, each; slow networks are measured fewer times


def measure_latency(network: Network, context: Context, training: Training, *, device: torch.device) -> Latency:
    """Measure seconds for one patch on this device, nothing else of voxnas training on it meanwhile."""
    network = lay_out(network).to(device).eval()
    patch = torch.zeros(1, context.in_channels, *context.patch, device=device).contiguous(memory_format=LAYOUT)

    def once() -> float:
        start = time.perf_counter()
        network(patch)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - start

    with device_lock(device, exclusive=True), torch.inference_mode(), autocast(device, training):
        settled = _warm_up(once)
        times = _steadiest(once)
    return Latency(
        median_s=statistics.median(times),
        iqr_s=_spread(times),
        repeats=len(times),
        settled=settled and _spread(times) <= STEADY * statistics.median(times),
        device=device_name(device),
        threads=torch.get_num_threads(),
        precision=precision_name(device, training),
    )


def _steadiest(once: Callable[[], float]) -> list[float]:
    """Read until the spread is narrow enough; else keep the reading with the least."""
    readings: list[list[float]] = []
    for _ in range(READINGS):
        readings.append(_repeat(once, REPEATS, MOST_SECONDS))
        if _spread(readings[-1]) <= STEADY * statistics.median(readings[-1]):
            break
    return min(readings, key=lambda times: _spread(times) / statistics.median(times))


def _spread(times: list[float]) -> float:
    """Return the interquartile range."""
    if len(times) < 2:
        return 0.0
    quartiles = statistics.quantiles(times, n=4)
    return quartiles[2] - quartiles[0]


def _warm_up(once: Callable[[], float]) -> bool:
    before = float("inf")
    for _ in range(MOST_ROUNDS):
        median = statistics.median(_repeat(once, ROUND, MOST_SECONDS / MOST_ROUNDS))
        if abs(median - before) < SETTLED * median:
            return True
        before = median
    return False


def _repeat(once: Callable[[], float], repeats: int, most_seconds: float) -> list[float]:
    times: list[float] = []
    while len(times) < repeats and (len(times) < 2 or sum(times) < most_seconds):
        times.append(once())
    return times


@contextmanager
def device_lock(device: torch.device, *, exclusive: bool) -> Iterator[None]:
    """Hold a device on this machine: shared while an epoch trains, alone while a latency is measured.

    Who waits to be alone keeps the gate, so that trainings that follow on each other don't keep it out for ever.
    """
    path = Path(tempfile.gettempdir()) / f"voxnas-{os.getuid()}-{physical_name(device)}.lock"
    with path.with_suffix(".gate").open("w") as gate, path.open("w") as file:
        fcntl.flock(gate, fcntl.LOCK_EX)
        fcntl.flock(file, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)
        if not exclusive:
            fcntl.flock(gate, fcntl.LOCK_UN)
        yield


def physical_name(device: torch.device) -> str:
    """Name a device of this machine as all its processes do: each may see but some of the cards, numbered from 0."""
    index = device.index or 0
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    if device.type == "cuda" and index < len(visible) and visible[index]:
        return f"cuda{visible[index]}"
    return f"cuda{index}" if device.type == "cuda" else device.type


@lru_cache
def device_name(device: torch.device) -> str:
    """Return the device's model, as records keep it."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return model or platform.processor() or platform.machine()
