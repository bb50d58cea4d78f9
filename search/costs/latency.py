"""Latency of one patch at batch 1: the median of repeated runs, as many as its confidence interval needs."""

from __future__ import annotations

import math
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

import torch

from search.config.schema import Training
from search.costs.device_lock import measuring
from search.training.mirror import mirrored
from search.training.step import MEMORY_FORMAT, autocast, precision_name, to_memory_format
from search.trials.records import Latency
from space.build import Network
from space.canonical import Context

NARROW = 0.02  # half the width of the median's 95 % confidence interval, over the median, at which a reading ends
STEADY = 0.05  # the same of a reading that is called settled
FEWEST = 7  # runs from which an interval is trusted
MOST_SECONDS = {"cuda": 0.4, "cpu": 2.0}  # of a reading after its warm-up; slow networks run at least twice
WARM_UP_SHARE = 0.5  # of a reading's seconds that its warm-up takes at most


def measure_latency(network: Network, context: Context, training: Training, *, device: torch.device) -> Latency:
    """Measure seconds for one patch on this device, which no training of voxnas uses meanwhile.

    Runs are repeated until the confidence interval of their median is narrow, or until the time is up: a fraction of
    a second where the machine is idle, at most three seconds (or four runs of a slower network) where it is not.
    Where the training mirrors at inference, all its mirrorings count.
    """
    network = to_memory_format(network).to(device).eval()
    patch = torch.zeros(1, context.in_channels, *context.patch, device=device).contiguous(memory_format=MEMORY_FORMAT)

    predict = mirrored(network, training.mirror)

    def once() -> float:
        start = time.perf_counter()
        predict(patch)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - start

    with measuring(device), torch.inference_mode(), autocast(device, training):
        times = read_times(once, most_seconds=MOST_SECONDS.get(device.type, MOST_SECONDS["cpu"]))
    return Latency(
        median_s=statistics.median(times),
        iqr_s=_interquartile_range(times),
        repeats=len(times),
        settled=half_interval(times) <= STEADY * statistics.median(times),
        device=device_name(device),
        threads=torch.get_num_threads(),
        precision=precision_name(device, training),
    )


def read_times(once: Callable[[], float], *, most_seconds: float) -> list[float]:
    """Warm up, then repeat until the median is known well enough or the time is up; return seconds of each run."""
    _warm_up(once, most_seconds * WARM_UP_SHARE)
    times = [once(), once()]
    while sum(times) < most_seconds and half_interval(times) > NARROW * statistics.median(times):
        times.append(once())
    return times


def half_interval(times: Sequence[float]) -> float:
    """Return half the width of a 95 % confidence interval of the median, in seconds; infinite for few runs.

    Source: McGill, Tukey and Larsen, "Variations of box plots", The American Statistician 32 (1978): the standard
    error of a median is 1.25 / 1.35 of the interquartile range over the root of the number of runs.
    """
    if len(times) < FEWEST:
        return math.inf
    return 1.96 * 1.25 / 1.35 * _interquartile_range(times) / math.sqrt(len(times))


def _interquartile_range(times: Sequence[float]) -> float:
    quartiles = statistics.quantiles(times, n=4)
    return quartiles[2] - quartiles[0]


def _warm_up(once: Callable[[], float], most_seconds: float) -> None:
    """Run until a run is no faster than the one before it: caches are filled, kernels chosen, memory allocated."""
    before, spent = once(), 0.0
    while spent < most_seconds:
        now = once()
        spent += now
        if now >= before * (1 - STEADY):
            return
        before = now


@lru_cache
def device_name(device: torch.device) -> str:
    """Return the device's model, as records keep it."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return model or platform.processor() or platform.machine()
