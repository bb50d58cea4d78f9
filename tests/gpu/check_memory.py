"""Predicted memory of a training step beside what CUDA's allocator gave out and reserved."""

from __future__ import annotations

import gzip
import json
import statistics
import time
from concurrent.futures import Future
from dataclasses import asdict, dataclass, replace
from random import Random
from typing import Any

import torch
from bench_memory import DEMO
from operator_trace import OperatorTrace
from report import PartReport
from setting import Setting

from search.config.training_section import Training
from search.costs.live_bytes import LiveBytes
from search.costs.memory import measure_training_memory, run_training_steps, training_memory_bytes
from search.training.step import to_memory_format
from space.architecture import Architecture
from space.build import build
from space.canonical import Context
from space.feasible import why_not
from space.narrow import narrow
from space.presets import PRESETS

ALLOCATED, RESERVED = 0.05, 0.10  # largest relative errors
SEGMENTS = 1.04  # reserved over predicted bytes, where segments grow: gaps between blocks
LARGE = 2**29  # bytes above which the libraries' own memory hardly affects the reserved bytes
PLANE = replace(DEMO, patch=(16, 128, 128), spacing=(5.0, 1.5, 1.5))
TINY = Context((5, 24, 20), (8.0, 1.5, 1.5), 1, 3)
PRECISIONS = ("float32", "bfloat16")


@dataclass(frozen=True)
class Case:
    """A network, its patch and how it trains."""

    name: str
    architecture: Architecture
    context: Context
    training: Training

    @property
    def label(self) -> str:
        """The network and its precision."""
        return f"{self.name} {self.training.precision}"

    def predict(self, device: torch.device) -> int:
        """Return the predicted peak of a training step."""
        return training_memory_bytes(self.architecture, self.context, self.training, device=device)


def random_cases(context: Context, count: int, *, batch: int, seed: int, precision: str) -> list[Case]:
    """Sample buildable networks of the whole space."""
    fix = {"levels": 3, "width_cap": 16, "encoder": "plain", "stages": "single"} if context is TINY else {}
    space = narrow(context, placement="each", fix=fix, choices={})
    rng, found = Random(seed), []
    while len(found) < count:
        architecture = space.architecture(space.sample(rng))
        if why_not(architecture, context) is None:
            size = "x".join(map(str, context.patch))
            training = Training(patch=context.patch, batch=batch, precision=precision)
            found.append(Case(f"random {size} {len(found)}", architecture, context, training))
    return found


def preset_cases(precision: str) -> list[Case]:
    """Return the papers' networks at their patches."""
    training = Training(batch=1, precision=precision)
    return [
        Case(name, each.architecture, each.context, replace(training, patch=each.context.patch))
        for name, each in PRESETS.items()
    ]


def memory_cases(*, tiny: bool) -> list[Case]:
    """Return all cases: the presets, then random networks small and large in turn, for a run that is cut off."""
    if tiny:
        return [case for each in PRECISIONS for case in random_cases(TINY, 1, batch=1, seed=1, precision=each)]
    small = [random_cases(DEMO, 20, batch=2, seed=0, precision=each) for each in PRECISIONS]
    large = [random_cases(PLANE, 20, batch=2, seed=2, precision=each) for each in PRECISIONS]
    mixed = [case for cases in zip(*small, *large, strict=True) for case in cases]
    presets = [case for pair in zip(*(preset_cases(each) for each in PRECISIONS), strict=True) for case in pair]
    return presets + mixed


def check_memory(setting: Setting, part: PartReport) -> None:
    """Measure each case once as the product does, then once with every operator noted."""
    cases = memory_cases(tiny=setting.tiny)
    predicted: list[Future[int] | None] = [
        setting.workers.submit(case.predict, setting.device) if setting.workers else None for case in cases
    ]
    warm_up_libraries(setting.device)
    traces: dict[str, Any] = {}
    found: list[tuple[Case, Future[int] | None, dict[str, Any]]] = []
    try:
        for case, coming in zip(cases, predicted, strict=True):
            with part.item(case.label):
                values = measure(case, setting)
                if setting.cuda and setting.trace:
                    values |= traced(case, setting, traces)
                found.append((case, coming, values))
            setting.release()
    finally:
        for case, coming, values in found:
            try:
                values["predicted"] = coming.result(timeout=60) if coming else case.predict(setting.device)
            except Exception as error:
                part.fail(case.label, error)
            else:
                part.row(network=case.label, **compared(values))
        setting.dismiss_workers()
        if traces:
            setting.out.mkdir(parents=True, exist_ok=True)
            with gzip.open(setting.out / "operators.json.gz", "wt") as file:
                json.dump(traces, file)
        judge(part)


def warm_up_libraries(device: torch.device) -> None:
    """Run forward and backward once, so that cuBLAS and cuDNN allocate their permanent memory."""
    if device.type == "cuda":
        for dtype in (torch.float32, torch.bfloat16):
            weight = torch.zeros(64, 64, device=device, dtype=dtype, requires_grad=True)
            (weight @ weight + torch.addmm(weight[0], weight, weight)).sum().backward()
        torch.cuda.synchronize()


def measure(case: Case, setting: Setting) -> dict[str, Any]:
    """Return allocated and reserved bytes of a step, and the composition of the allocator's peak."""
    began = time.perf_counter()
    network = build(case.architecture, case.context)
    measured = measure_training_memory(network, case.context, case.training, device=setting.device)
    values: dict[str, Any] = {"allocated": measured.allocated_bytes, "reserved": measured.reserved_bytes}
    values["measure_s"] = time.perf_counter() - began
    if setting.cuda:
        stats = torch.cuda.memory_stats()
        for name in ("requested_bytes", "active_bytes", "inactive_split_bytes"):
            values[name] = stats[f"{name}.all.peak"]
        values["retries"] = stats["num_alloc_retries"]
    return values


def traced(case: Case, setting: Setting, traces: dict[str, Any]) -> dict[str, Any]:
    """Run a step with its operators noted: live bytes, the peak beside them, and each operator's largest workspace."""
    torch.cuda.empty_cache()
    began = time.perf_counter()
    with LiveBytes() as live, OperatorTrace(live) as trace:
        network = to_memory_format(build(case.architecture, case.context)).to(setting.device)
        run_training_steps(network, case.context, case.training, device=setting.device)
    traces[case.label] = [list(asdict(each).values()) for each in trace.operators]
    largest = trace.largest()
    return {
        "live": live.peak_bytes,
        "traced": trace.peak,
        "largest": next(iter(largest.items()), ("", 0)),
        "trace_s": time.perf_counter() - began,
    }


def compared(values: dict[str, Any]) -> dict[str, Any]:
    """Put the errors beside the bytes."""
    found: dict[str, Any] = {"predicted MiB": values["predicted"] / 2**20, "allocated MiB": values["allocated"] / 2**20}
    found["error"] = values["predicted"] / values["allocated"] - 1
    if values["reserved"]:
        found["reserved MiB"] = values["reserved"] / 2**20
        found["over allocated"] = values["reserved"] / values["allocated"] - 1
    if "live" in values:
        name, size = values["largest"]
        found["live MiB"] = values["live"] / 2**20
        found["largest workspace"] = f"{name.removeprefix('aten.').removesuffix('.default')} {size / 2**20:.1f}"
    return found | {"_raw": values}


def judge(part: PartReport) -> None:
    """State the errors against their limits."""
    for precision in PRECISIONS:
        errors = [abs(float(row["error"])) for row in part.rows if str(row["network"]).endswith(precision)]
        if errors:
            part.limit(f"{precision}: worst error of allocated bytes", max(errors), ALLOCATED)
            part.note(f"{precision}: median error of allocated bytes {statistics.median(errors):.2%}")
    raw = [row["_raw"] for row in part.rows]
    large = [each for each in raw if each["reserved"] and each["predicted"] >= LARGE]
    if large:
        worst = max(abs(SEGMENTS * each["predicted"] / each["reserved"] - 1) for each in large)
        part.limit(f"worst error of reserved bytes, {len(large)} networks of 512 MiB or more", worst, RESERVED)
