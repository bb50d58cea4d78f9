"""Latency of one patch at batch 1: the median of runs, repeated until its confidence interval is narrow."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from importlib.metadata import version

import torch

from search.config.training_section import Training
from search.costs.cpu import cpu_name
from search.costs.device_lock import measuring
from search.training.mirror import mirrored
from search.training.step import MEMORY_FORMAT, autocast, precision_name, to_memory_format
from search.trials.records import Latency
from space.build import Network
from space.canonical import Context

TARGET = 0.02  # relative half-width of the median's 95 % confidence interval at which repetition ends
SETTLED = 0.05  # and at most which a latency counts as settled
MIN_RUNS = 7  # for a confidence interval
MAX_SECONDS = {"cuda": 0.4, "cpu": 2.0}  # after the warm-up; slow networks still run twice
WARM_UP_SHARE = 0.5  # of MAX_SECONDS, at most


def measure_latency(network: Network, context: Context, training: Training, *, device: torch.device) -> Latency:
    """Measure the seconds for one patch; no training of voxnas uses the device meanwhile.

    Runs repeat until the confidence interval of their median is narrow or the time is up: a fraction of a second on an
    idle machine, at most three seconds (or four runs of a slow network) on a busy one. With test-time mirroring, one
    run includes all mirrorings.
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
        times = repeat(once, max_seconds=MAX_SECONDS.get(device.type, MAX_SECONDS["cpu"]))
    return Latency(
        median_s=statistics.median(times),
        iqr_s=_interquartile_range(times),
        repeats=len(times),
        settled=half_interval(times) <= SETTLED * statistics.median(times),
        device=device_name(device),
        threads=torch.get_num_threads(),
        precision=precision_name(device, training),
        torch=version("torch"),
    )


def repeat(once: Callable[[], float], *, max_seconds: float) -> list[float]:
    """Warm up, then repeat until the median is known precisely or the time is up; return the seconds of each run."""
    _warm_up(once, max_seconds * WARM_UP_SHARE)
    times = [once(), once()]
    while sum(times) < max_seconds and half_interval(times) > TARGET * statistics.median(times):
        times.append(once())
    return times


def half_interval(times: Sequence[float]) -> float:
    """Return half the width of the median's 95 % confidence interval in seconds; infinite for under MIN_RUNS runs.

    Source: McGill, Tukey and Larsen, "Variations of box plots", The American Statistician 32 (1978). The standard
    error of a median is 1.25 / 1.35 times the interquartile range, divided by the square root of the number of runs.
    """
    if len(times) < MIN_RUNS:
        return math.inf
    return 1.96 * 1.25 / 1.35 * _interquartile_range(times) / math.sqrt(len(times))


def _interquartile_range(times: Sequence[float]) -> float:
    quartiles = statistics.quantiles(times, n=4)
    return quartiles[2] - quartiles[0]


def _warm_up(once: Callable[[], float], max_seconds: float) -> None:
    """Run until times stop falling: caches are then filled, kernels selected and memory allocated."""
    before, spent = once(), 0.0
    while spent < max_seconds:
        now = once()
        spent += now
        if now >= before * (1 - SETTLED):
            return
        before = now


@lru_cache
def device_name(device: torch.device) -> str:
    """Return the device's model name, as stored in records."""
    return str(torch.cuda.get_device_name(device)) if device.type == "cuda" else cpu_name()
