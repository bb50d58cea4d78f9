"""Whether two latency measurements rank networks in the same order, and how long a measurement takes."""

from __future__ import annotations

import statistics
import time

from check_memory import DEMO, TINY, Case, random_cases
from report import PartReport
from scipy.stats import spearmanr
from setting import Setting

from search.costs.latency import measure_latency
from search.trials.records import Latency
from space.build import build

RANK, SECONDS = 0.98, 0.5


def check_latency(setting: Setting, part: PartReport) -> None:
    """Time every network, then every network again."""
    context, count = (TINY, 1) if setting.tiny else (DEMO, 30)
    cases = random_cases(context, count, batch=1, seed=3, precision="auto")
    readings: dict[str, list[Latency]] = {case.name: [] for case in cases}
    seconds: list[float] = []
    for _ in range(2):
        for case in cases:
            with part.item(case.name):
                reading, took = timed(case, setting)
                readings[case.name].append(reading)
                seconds.append(took)
    pairs = {name: both for name, both in readings.items() if len(both) == 2}
    for name, (one, other) in pairs.items():
        part.row(
            network=name,
            first_ms=one.median_s * 1e3,
            second_ms=other.median_s * 1e3,
            iqr_ms=max(one.iqr_s, other.iqr_s) * 1e3,
            settled=one.settled and other.settled,
        )
    if not setting.tiny:
        medians = [[both[number].median_s for both in pairs.values()] for number in (0, 1)]
        part.limit("Spearman's rho of two readings", float(spearmanr(*medians).statistic), RANK, at_least=True)
        part.limit("median seconds of a reading", statistics.median(seconds), SECONDS)
        part.limit("most seconds of a reading", max(seconds), 2 * SECONDS)


def timed(case: Case, setting: Setting) -> tuple[Latency, float]:
    """Return a reading, and the seconds that it took once the network was built."""
    network = build(case.architecture, case.context)
    began = time.perf_counter()
    reading = measure_latency(network, case.context, case.training, device=setting.device)
    return reading, time.perf_counter() - began
