"""evaluate: Job to Measurement. Price, refuse what is over budget, train, validate on whole volumes."""

from __future__ import annotations

import importlib.metadata
import math
import platform
import random
import time
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from search.costs.latency import device_lock, measure_latency
from search.costs.memory import measure_training_memory
from search.costs.price import predict_costs
from search.data.prepare import Prepared, load_prepared
from search.objectives import HEADINGS, show
from search.records import CaseDice, Costs, Epoch, Job, Measurement
from search.study.units import show_seconds
from search.training.checkpoint import REASON, drop_checkpoint, load_checkpoint, save_checkpoint, save_weights
from search.training.initial import NothingFits, start_from
from search.training.patches import PatchSource
from search.training.pretrained import Unavailable, start_from_pretrained
from search.training.schemes import Phase, make_phases, phase_at, training_step
from search.training.step import LAYOUT, lay_out, learning_rate, make_optimiser
from search.training.validation import mean_dice, validate
from space.build import Network, Refused, build
from space.canonical import Context

OnEpoch = Callable[[Epoch], str | None]  # returns why the training should stop here, if it should
OnPriced = Callable[[Costs], None]


class Diverged(RuntimeError):
    """A loss that is no longer a number."""


class Stopped(Exception):
    """A training that was told to stop before its last epoch; carries what it had."""

    def __init__(self, reason: str, epochs: tuple[Epoch, ...]):
        super().__init__(reason)
        self.reason, self.epochs = reason, epochs


def context_of(job: Job) -> Context:
    """Return what the job's network is built for."""
    return Context(job.patch, job.task.spacing_mm, job.task.in_channels, len(job.task.classes))


def evaluate(job: Job, on_epoch: OnEpoch = lambda epoch: None, on_priced: OnPriced = lambda costs: None) -> Measurement:
    """Price the job's architecture, and train and validate it unless it is over budget.

    Goes on from the checkpoint in `job.folder` if there is one. Faults of the training itself (a loss that is not
    a number, memory exhausted, the deadline) come back as a failed Measurement with the reason, also written to
    `reason.txt`; interrupts pass through.
    """
    started = time.perf_counter()
    torch.set_num_threads(job.threads)
    try:
        measurement = _evaluate(job, on_epoch, on_priced, started)
    except Refused as error:
        measurement = Measurement("failed", f"can't be built: {error}")
    except (Diverged, TimeoutError, Unavailable, NothingFits) as error:
        measurement = Measurement("failed", str(error))
    except torch.OutOfMemoryError as error:
        measurement = Measurement("failed", f"out of memory: {str(error).splitlines()[0]}")
    if measurement.state == "failed":
        folder = Path(job.folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / REASON).write_text(measurement.reason + "\n")
    return replace(measurement, seconds=time.perf_counter() - started, versions=versions())


def _evaluate(job: Job, on_epoch: OnEpoch, on_priced: OnPriced, started: float) -> Measurement:
    device, context = torch.device(job.device), context_of(job)
    costs = price(job, context, device)
    over = over_budget(costs, job)
    if over:
        return Measurement("over budget", over, costs)
    on_priced(costs)
    measured = measure_training_memory(job.architecture, context, job.training, device=device)
    seed_everything(job.seed)
    network = build(job.architecture, context)
    start_from_pretrained(network, job.architecture)
    start_from(network, job.training.init)
    network = lay_out(network).to(device)
    prepared = load_prepared(Path(job.task.prepared))
    try:
        epochs, cases = train(network, prepared, job, on_epoch=on_epoch, started=started)
    except Stopped as stop:
        return Measurement("stopped", stop.reason, costs, epochs=stop.epochs, measured_memory=measured)
    return Measurement(
        "trained",
        costs=costs,
        dice=mean_dice(cases),
        cases=cases,
        epochs=epochs,
        measured_memory=measured,
    )


def price(job: Job, context: Context, device: torch.device) -> Costs:
    """Predict what needs no device, and measure the latency unless that breaks a budget already.

    What the job brings with it is not worked out again.
    """
    costs = job.costs or predict_costs(job.architecture, context, job.training)
    if costs.latency or over_budget(costs, job):
        return costs
    network = build(job.architecture, context)
    return replace(costs, latency=measure_latency(network, context, job.training, device=device))


def over_budget(costs: Costs, job: Job) -> str:
    """Say which budget the costs break, with the number and the limit; empty where none."""
    broken = []
    for objective, limit in job.budgets:
        value = costs.of(objective)
        if value is not None and value > limit:
            broken.append(
                f"{HEADINGS[objective]} {show(objective, value)} is over the budget of {show(objective, limit)}"
            )
    return "; ".join(broken)


def seed_everything(seed: int) -> None:
    """Seed every generator that a training draws from."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def train(
    network: Network, prepared: Prepared, job: Job, *, on_epoch: OnEpoch, started: float
) -> tuple[tuple[Epoch, ...], tuple[CaseDice, ...]]:
    """Train to the last epoch, a checkpoint each; keep the last weights; return the epochs and the final scores."""
    device, training = torch.device(job.device), job.training
    phases = make_phases(network, patch=job.patch, training=training)
    if len(phases) > training.epochs:
        raise Refused(f"a cascade of {len(phases)} networks needs as many epochs or more, not {training.epochs}")
    epochs, saved_optimiser = load_checkpoint(job, network)
    current = -1
    cases: tuple[CaseDice, ...] = ()
    for number in range(len(epochs), training.epochs):
        begun = time.perf_counter()
        if training.deadline and begun - started > training.deadline:
            raise TimeoutError(f"the deadline of {show_seconds(training.deadline)} passed in epoch {number + 1}")
        index, first, end = phase_at(number, epochs=training.epochs, phases=len(phases))
        phase = phases[index]
        if index != current:
            current = index
            optimiser = make_optimiser(phase.trained, training)
            if number > first and saved_optimiser is not None:
                optimiser.load_state_dict(saved_optimiser)
            source = PatchSource(prepared, cases=job.task.train, patch=phase.patch, training=training, seed=job.seed)
        loss = _train_epoch(phase, optimiser, source, job=job, number=number, span=(first, end))
        last = number + 1 == training.epochs
        if last or (number + 1) % training.validate_every == 0:
            cases = validate(phase.predicts, prepared, job, device=device)
        dice = mean_dice(cases) if cases else None
        epoch = Epoch(number + 1, loss, dice, time.perf_counter() - begun)
        epochs = (*epochs, epoch)
        save_checkpoint(job, network, optimiser, epochs=epochs)
        why = on_epoch(epoch)
        if why and not last:
            raise Stopped(why, epochs)
        if not last:
            cases = ()
    if not cases:  # the process was stopped between its last epoch and the record
        cases = validate(network, prepared, job, device=device)
    save_weights(Path(job.folder), network)
    drop_checkpoint(Path(job.folder))
    return epochs, cases


def _train_epoch(
    phase: Phase, optimiser: torch.optim.Optimizer, source: PatchSource, *, job: Job, number: int,
    span: tuple[int, int],
) -> float:  # fmt: skip
    """Do one epoch's steps and return the mean loss; the learning rate falls over the phase's `span` of epochs.

    Raises Diverged at a loss that is not a number.
    """
    device, training = torch.device(job.device), job.training
    steps = training.steps_per_epoch
    first, begun, planned = number * steps, span[0] * steps, (span[1] - span[0]) * steps
    phase.predicts.eval()  # a cascade's first networks, when the second trains
    phase.trained.train()
    total = torch.zeros((), device=device)
    with device_lock(device, exclusive=False):
        for step, (images, labels) in enumerate(source.batches(first, first + steps), start=first):
            for group in optimiser.param_groups:
                group["lr"] = learning_rate(training, (step - begun) / planned)
            images = images.to(device, non_blocking=True, memory_format=LAYOUT)
            labels = labels.to(device, non_blocking=True)
            total += training_step(phase, optimiser, images=images, labels=labels, training=training)
    mean = float(total) / steps
    if not math.isfinite(mean):
        raise Diverged(f"the loss became {mean} in epoch {number + 1}; a lower learning rate may hold")
    return mean


@lru_cache
def versions() -> tuple[tuple[str, str], ...]:
    """The versions that a result depends on."""
    names = ("voxnas", "torch", "monai", "numpy")
    return (
        ("python", platform.python_version()),
        *((name, importlib.metadata.version(name)) for name in names),
    )
