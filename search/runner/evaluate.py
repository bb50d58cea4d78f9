"""Evaluate a Job to a Measurement: predict costs, compare with the budgets, train, validate."""

from __future__ import annotations

import errno
import importlib.metadata
import platform
import random
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from search.config.objectives import show, show_named
from search.costs.device_lock import working_clock
from search.costs.latency import measure_latency
from search.costs.memory import measure_training_memory
from search.costs.price import predict_costs
from search.data.prepared import Prepared, load_prepared
from search.files import write_text
from search.runner.deadline import Deadline
from search.runner.devices import machine_of, prepare_allocator
from search.runner.train import Diverged, train
from search.runner.watch import Watch
from search.training.checkpoint import checkpoint_binding, save_weights
from search.training.initial import NoMatchingWeights, load_matching_weights
from search.training.members import FinishedMember, is_fold_lost, load_finished, outcome, save_finished, scores_of
from search.training.pretrained import WeightsUnavailable, load_pretrained_encoders
from search.training.step import to_memory_format
from search.training.validation import NothingScored, mean_dice
from search.trials.epochs import Epoch
from search.trials.files import REASON
from search.trials.job import Job
from search.trials.records import Costs, MeasuredMemory, Measurement, MemberScore
from space.build import Network, Refused, build
from space.canonical import Context
from space.plugins import load_blocks

CANT_WRITE = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ESTALE),
    *(errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOENT, errno.ENOTDIR),
)
NO_HOST_MEMORY = "DefaultCPUAllocator"  # torch raises a plain RuntimeError if host memory is exhausted
COMPILER = ("torch._dynamo", "torch._inductor")  # packages of the errors of torch.compile


def context_of(job: Job) -> Context:
    """Return the context that the job's network is built for."""
    return Context(job.patch, job.task.spacing_mm, job.task.in_channels, job.task.outputs or len(job.task.classes))


def evaluate(
    job: Job, on_progress: Callable[[Measurement], object] = lambda so_far: None, *, watch: Watch | None = None
) -> Measurement:
    """Determine the costs, then train and validate unless over budget; calls `on_progress` after each epoch."""
    for measurement in progress(job, watch):
        if measurement.state == "running":
            on_progress(measurement)
    return measurement


def progress(job: Job, watch: Watch | None = None) -> Iterator[Measurement]:
    """Yield the measurement so far (state `running`) after pricing and after each epoch, then the outcome.

    In between, `watch` reports steps and validated cases.

    Resumes from the checkpoint in `job.folder` if there is one. Closing the iterator stops the training. Faults of the
    training (a loss that is not finite, exhausted memory, the deadline) and a file that can't be written give a failed
    Measurement with the reason, which is also written to `reason.txt`; other errors and interrupts propagate.
    """
    started = working_clock()
    torch.set_num_threads(job.threads)
    load_blocks(job.blocks)
    prepare_allocator()
    for measurement in _caught(job, started, watch or Watch()):
        seconds = working_clock() - started
        yield replace(
            measurement,
            seconds=seconds,
            versions=versions(),
            recipe=job.training.recipe,
            machine=machine_of(job.device),
        )


def _caught(job: Job, started: float, watch: Watch) -> Iterator[Measurement]:
    try:
        yield from _progress(job, started, watch)
        return
    except Refused as error:
        failed = Measurement("failed", f"can't be built: {error}", fault="error")
    except NothingScored as error:
        failed = Measurement("failed", str(error), fault="error")
    except Diverged as error:
        failed = Measurement("failed", str(error), fault="not a number")
    except TimeoutError as error:
        failed = Measurement("failed", str(error), fault="deadline")
    except (WeightsUnavailable, NoMatchingWeights) as error:
        failed = Measurement("failed", str(error), fault="error")
    except (torch.OutOfMemoryError, MemoryError) as error:
        failed = _out_of_memory(job, error)
    except RuntimeError as error:
        if NO_HOST_MEMORY in str(error):
            failed = _out_of_memory(job, error)
        elif type(error).__module__.startswith(COMPILER):
            why = str(error).strip().splitlines()[0]
            failed = Measurement("failed", f"training.compile: torch can't compile the network: {why}", fault="error")
        else:
            raise
    except OSError as error:
        if error.errno not in CANT_WRITE:
            raise
        failed = Measurement("failed", f"{error.filename or job.folder}: {error.strerror}", fault="storage")
    if failed.fault != "storage":
        write_reason(job, failed.reason)
        finished = load_finished(job)
        epochs = tuple(epoch for each in finished for epoch in each.epochs)
        failed = replace(failed, members=scores_of(finished), epochs=epochs)
    yield failed


def _out_of_memory(job: Job, error: BaseException) -> Measurement:
    device = torch.device(job.device)
    held = None
    if device.type == "cuda":
        held = MeasuredMemory(torch.cuda.max_memory_allocated(device), torch.cuda.max_memory_reserved(device))
        torch.cuda.empty_cache()
    lines = str(error).strip().splitlines() or ["the machine's memory is exhausted"]
    return Measurement("failed", f"out of memory: {lines[0]}", measured_memory=held, fault="memory")


def write_reason(job: Job, reason: str) -> None:
    """Write a failed job's reason to its folder."""
    write_text(Path(job.folder) / REASON, reason + "\n", ours=True)


def _progress(job: Job, started: float, watch: Watch) -> Iterator[Measurement]:
    device, context = torch.device(job.device), context_of(job)
    prepared = load_prepared(Path(job.task.prepared))
    labelling = prepared.labelling
    costs = job.costs or predict_costs(job.architecture, context, job.training, labelling=labelling, device=device)
    over = over_budget(costs, job.budgets)
    if not over:
        seed_everything(job.seed)
        network = build(job.architecture, context)
        if costs.latency is None and not job.timed_elsewhere:
            watch.begin("latency")
            costs = replace(costs, latency=measure_latency(network, context, job.training, device=device))
            over = over_budget(costs, job.budgets)
    if over:
        yield Measurement("over budget", over, costs)
        return
    yield Measurement("running", costs=costs)
    watch.begin("memory")
    measured = measure_training_memory(network, context, job.training, labelling=labelling, device=device)
    so_far = Measurement("running", costs=costs, measured_memory=measured)
    yield from _train_members(network, prepared, job, so_far, started=started, watch=watch)


def _train_members(
    network: Network, prepared: Prepared, job: Job, so_far: Measurement, *, started: float, watch: Watch
) -> Iterator[Measurement]:
    """Train each member that has not ended; yield the progress, last the outcome.

    `network` is the first member's, with initial weights. The deadline holds for each member. A member that fails is
    left out of the outcome. Once all members of a fold have failed, the trial fails, too: the error propagates.
    """
    finished = load_finished(job)
    for number in range(len(finished), 1 + len(job.others)):
        member = job.of_member(number)
        if number:
            seed_everything(member.seed)
            network, started = build(job.architecture, context_of(job)), working_clock()
        load_pretrained_encoders(network, job.architecture)
        load_matching_weights(network, job.training.init)
        network = to_memory_format(network).to(torch.device(job.device))
        earlier = replace(so_far, epochs=tuple(epoch for each in finished for epoch in each.epochs))
        deadline, place = Deadline(job.training.deadline, started), len(scores_of(finished))
        try:
            score, epochs = yield from _train_member(
                network, prepared, member, earlier, deadline=deadline, watch=watch, place=place
            )
            finished.append(FinishedMember(checkpoint_binding(member), score, epochs))
        except (Diverged, TimeoutError) as error:
            if not job.others:
                raise
            why = f"fold {member.fold}, seed {member.seed}: {error}"
            finished.append(FinishedMember(checkpoint_binding(member), None, (), why))
            if is_fold_lost(job, finished):
                raise type(error)("; ".join(each.failure for each in finished if each.failure)) from error
        if number < len(job.others):
            save_finished(job, finished)
            yield replace(earlier, epochs=(*earlier.epochs, *finished[-1].epochs))
    yield outcome(so_far, finished)


def _train_member(
    network: Network,
    prepared: Prepared,
    member: Job,
    earlier: Measurement,
    *,
    deadline: Deadline,
    watch: Watch,
    place: int,
) -> Generator[Measurement, None, tuple[MemberScore, tuple[Epoch, ...]]]:
    """Train one member, yielding the progress after the `earlier` members; write its weights and return its score.

    `place` is the number of members before it that have a score.
    """
    for step in train(network, prepared, member, deadline=deadline, watch=watch):
        epochs, cases = step
        if len(epochs) < member.training.epochs:
            yield replace(earlier, epochs=(*earlier.epochs, *epochs))
    digest = save_weights(Path(member.folder), network, member=place)
    dice = mean_dice(cases) if member.task.validation else None  # a training on all cases
    return MemberScore(member.seed, member.fold, dice, cases, digest), epochs


def over_budget(costs: Costs, budgets: Sequence[tuple[str, float]]) -> str:
    """Return which budgets the costs exceed, with values and limits; empty if none."""
    broken = []
    for objective, limit in budgets:
        value = costs.of(objective)
        if value is not None and value > limit:
            broken.append(f"{show_named(objective, value)} is over the budget of {show(objective, limit)}")
    return "; ".join(broken)


def seed_everything(seed: int) -> None:
    """Seed every generator that a training draws from."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


@lru_cache
def versions() -> tuple[tuple[str, str], ...]:
    """Return the versions of the packages that a result depends on."""
    names = ("voxnas", "torch", "monai", "numpy")
    return (
        ("python", platform.python_version()),
        *((name, importlib.metadata.version(name)) for name in names),
    )
