"""Out of memory in training and in timing, then the next trial; and four trials packed on one card."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from random import Random
from typing import Any

import torch
from check_memory import warm_up_libraries
from report import PartReport
from setting import Setting

from search.costs.memory import training_memory_bytes
from search.runner.cluster.resources import CUDA_BYTES, GIB, MARGIN, Need, Node, request
from search.runner.devices import limit_memory
from search.runner.evaluate import evaluate
from search.runner.plan import Plan, prepared_data, task_of
from search.runner.pricer import Pricer, price_table
from search.runner.sampling import sample_buildable
from search.trials.job import Job
from search.trials.records import Measurement

STILL_HELD = 2**20  # bytes that may stay allocated after a trial: scalars
TOO_LARGE = 10**9  # a batch that no machine's memory holds
PACKED = 4


def jobs(setting: Setting, plan: Plan, count: int, **training: Any) -> list[Job]:
    """Return trainings of random networks, the one with the largest memory first."""
    prepared = prepared_data(plan)
    rng, found = Random(0), []
    for number in range(count):
        architecture = plan.space.architecture(sample_buildable(plan.space, rng))
        folder = str(setting.folder / "trials" / f"{plan.study.name}-{number}")
        settings = replace(plan.training, **training)
        task = task_of(plan, prepared)
        threads = 1 if setting.tiny else 4
        found.append(Job(architecture, task, settings, (), number, 0, str(setting.device), threads, folder))
    return sorted(found, key=lambda job: -predicted(job, plan))


def predicted(job: Job, plan: Plan) -> int:
    """Return the predicted peak of the job's training step."""
    return training_memory_bytes(job.architecture, plan.context, job.training, device=torch.device(job.device))


def check_faults(setting: Setting, part: PartReport) -> None:
    """Provoke faults and see that each is named, and that the next trial has all memory again."""
    plan = setting.plan("faults")
    large, other = jobs(setting, plan, 2, epochs=1, steps_per_epoch=2)
    warm_up_libraries(setting.device)
    at_start = allocated(setting)
    plan.folder.mkdir(parents=True, exist_ok=True)
    with part.item("out of memory in training"), limited(setting, 0.6 * predicted(large, plan)):
        job = large if setting.cuda else replace(large, training=replace(large.training, batch=TOO_LARGE))
        report_fault(part, "training", evaluate(replace(job, timed_elsewhere=True)), setting, at_start)
    with part.item("the next trial"):
        report_trained(part, "after training", evaluate(other), setting, at_start)
    with part.item("out of memory in timing"), limited(setting, 8 * 2**20):
        if setting.cuda:
            report_fault(part, "timing", evaluate(replace(large, folder=large.folder + "-timed")), setting, at_start)
    with part.item("out of memory in pricing"), limited(setting, 8 * 2**20):
        if setting.cuda:
            pricer = Pricer(plan, str(setting.device), price_table(plan, device=str(setting.device), threads=4))
            part.limit("a network that can't be timed has no price", float(pricer.timed(large.architecture) is None), 1)
    with part.item("the next trial, larger"):
        report_trained(part, "after timing", evaluate(replace(large, seed=7)), setting, at_start)


@contextmanager
def limited(setting: Setting, size_bytes: float) -> Iterator[None]:
    """Let this process take no more of the card."""
    if setting.cuda:
        torch.cuda.empty_cache()
        limit_memory(setting.device, size_bytes)
    try:
        yield
    finally:
        if setting.cuda:
            limit_memory(setting.device, None)


def allocated(setting: Setting) -> int:
    """Return the bytes that tensors hold on the card now."""
    return torch.cuda.memory_allocated() if setting.cuda else 0


def report_fault(part: PartReport, what: str, found: Measurement, setting: Setting, at_start: int) -> None:
    """Record how a fault was reported, and the memory still in use."""
    held = allocated(setting) - at_start
    part.row(case=f"out of memory in {what}", state=found.state, fault=found.fault, held_MiB=held / 2**20,
             reason=found.reason[:160])  # fmt: skip
    part.limit(f"out of memory in {what} is named", float(found.fault == "memory"), 1, at_least=True)
    part.limit(f"MiB held after it ({what})", held / 2**20, STILL_HELD / 2**20)


def report_trained(part: PartReport, what: str, found: Measurement, setting: Setting, at_start: int) -> None:
    """Note how the trial after a fault went."""
    held = allocated(setting) - at_start
    part.row(
        case=f"trial {what}", state=found.state, fault=found.fault, held_MiB=held / 2**20, reason=found.reason[:160]
    )
    part.limit(f"the trial {what} is trained", float(found.state == "trained"), 1, at_least=True)


def check_packing(setting: Setting, part: PartReport) -> None:
    """Train four networks at once, each within its share of a card that just holds them."""
    plan = setting.plan("packing")
    chosen = jobs(setting, plan, 1 if setting.tiny else PACKED, epochs=1, steps_per_epoch=2 if setting.tiny else 40)
    needs = [predicted(job, plan) for job in chosen]
    card = PACKED * (CUDA_BYTES + MARGIN * max(needs))
    node = Node(16, 64 * GIB, 1, "card", card)
    shares = [request(Need(need, 1, True), [node], [])["GPU"] for need in needs]
    part.note(f"a card of {card / GIB:.1f} GiB; shares {', '.join(map(str, shares))}")
    if setting.tiny:
        found = [packed_trial(job, share * card) for job, share in zip(chosen, shares, strict=True)]
    else:
        with ProcessPoolExecutor(PACKED + 1, multiprocessing.get_context("spawn")) as pool:
            context_bytes = pool.submit(context_size).result(timeout=60) if setting.cuda else 0
            part.note(f"a process takes {context_bytes / 2**20:.0f} MiB of the card before its tensors")
            part.limit("MiB of a process before its tensors", context_bytes / 2**20, CUDA_BYTES / 2**20)
            running = [pool.submit(packed_trial, job, share * card) for job, share in zip(chosen, shares, strict=True)]
            found = [each.result(timeout=120) for each in running]
    for need, share, values in zip(needs, shares, found, strict=True):
        limit = share * card - CUDA_BYTES
        part.row(predicted_MiB=need / 2**20, share=share, share_MiB=limit / 2**20, **values)
        part.limit("reserved over its share", values["reserved_MiB"] * 2**20 / limit, 1)
        part.limit("packed trials that trained", float(values["state"] == "trained"), 1, at_least=True)


def context_size() -> int:
    """Return what this process takes of the card once its libraries have started."""
    before = torch.cuda.mem_get_info()[0]
    volume = torch.zeros(1, 8, 8, 8, 8, device="cuda")
    torch.nn.functional.conv3d(volume, torch.zeros(8, 8, 3, 3, 3, device="cuda"))
    torch.cuda.synchronize()
    return before - torch.cuda.mem_get_info()[0] - torch.cuda.memory_reserved()


def packed_trial(job: Job, share_bytes: float) -> dict[str, Any]:
    """Train within a share of a card."""
    cuda = torch.device(job.device).type == "cuda"
    if cuda:
        limit_memory(torch.device(job.device), share_bytes - CUDA_BYTES)
    began = time.monotonic()
    most = 0
    found = evaluate(replace(job, timed_elsewhere=True))
    if cuda:
        most = torch.cuda.max_memory_reserved()
    return {
        "state": found.state,
        "reserved_MiB": most / 2**20,
        "allocated_MiB": torch.cuda.max_memory_allocated() / 2**20 if cuda else 0.0,
        "seconds": time.monotonic() - began,
        "reason": found.reason[:160],
    }
