"""The training loop of one network: epochs, validations and a checkpoint after each, resumed where it was left."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator

import torch

from search.costs.device_lock import sharing, working_clock
from search.data.prepared import Prepared
from search.runner.deadline import Deadline
from search.runner.watch import Watch
from search.training.checkpoint import load_checkpoint, save_checkpoint
from search.training.patches import PatchSource
from search.training.schemes import Phase, make_phases, phase_at, training_step
from search.training.step import MEMORY_FORMAT, learning_rate, make_optimiser
from search.training.validation import mean_dice, validate
from search.trials.epochs import Epoch
from search.trials.job import Job
from search.trials.records import CaseDice
from space.build import Network, Refused


class Diverged(RuntimeError):
    """The loss is not finite."""


def train(
    network: Network, prepared: Prepared, job: Job, *, deadline: Deadline, watch: Watch
) -> Iterator[tuple[tuple[Epoch, ...], tuple[CaseDice, ...]]]:
    """Train to the last epoch and write a checkpoint after each; yield the epochs so far and the last scores.

    The checkpoint stays: whoever writes the record deletes it afterwards.
    """
    device, training = torch.device(job.device), job.training
    phases = make_phases(network, patch=job.patch, training=training, labelling=prepared.labelling)
    if len(phases) > training.epochs:
        raise Refused(f"a cascade of {len(phases)} networks needs at least as many epochs, not {training.epochs}")
    restored = load_checkpoint(job, network)
    epochs = restored.epochs
    watch.start(training, epochs, later=len(job.others) - job.member)
    current = -1
    cases: tuple[CaseDice, ...] = ()
    for number in range(len(epochs), training.epochs):
        begun, cpu_begun = working_clock(), time.process_time()
        index, first, end = phase_at(number, epochs=training.epochs, phases=len(phases))
        phase = phases[index]
        if index != current:
            current = index
            optimiser = make_optimiser(phase.trained, training)
            if number > first and restored.optimiser:
                optimiser.load_state_dict(dict(restored.optimiser))
                phase.scaler.load_state_dict(dict(restored.scaler) or phase.scaler.state_dict())
            source = PatchSource(
                prepared, cases=job.task.train, patch=phase.patch, training=training, seed=job.seed, device=device
            )
        batches = _before_deadline(source, job=job, number=number, deadline=deadline)
        loss = train_epoch(phase, optimiser, batches, job=job, number=number, span=(first, end), watch=watch)
        last = number + 1 == training.epochs
        if last or (number + 1) % training.validate_every == 0:
            cases = _validated(phase.predicts, prepared, job, epoch=number + 1, deadline=deadline, watch=watch)
        dice = mean_dice(cases) if cases else None
        cpu_s = time.process_time() - cpu_begun
        epoch = Epoch(number + 1, loss, dice, working_clock() - begun, cpu_s, job.member)
        epochs = (*epochs, epoch)
        save_checkpoint(job, network, optimiser, epochs=epochs, scaler=phase.scaler)
        if not last:
            yield epochs, cases
            cases = ()
    if not cases:  # the process ended between its last epoch and the record
        cases = _validated(network, prepared, job, epoch=training.epochs, deadline=deadline, watch=watch)
    yield epochs, cases


def train_epoch(
    phase: Phase,
    optimiser: torch.optim.Optimizer,
    batches: Iterator[tuple[torch.Tensor, torch.Tensor]],
    *,
    job: Job,
    number: int,
    span: tuple[int, int],
    watch: Watch,
) -> float:
    """Run the steps of one epoch and return the mean loss; the learning rate decays over the phase's `span` of epochs.

    Raises Diverged if the loss is not finite.
    """
    device, training = torch.device(job.device), job.training
    steps = training.steps_per_epoch
    first, begun, planned = number * steps, span[0] * steps, (span[1] - span[0]) * steps
    phase.predicts.eval()  # a cascade's first networks, when the second trains
    phase.trained.train()
    total = torch.zeros((), device=device)
    watch.begin("training", epoch=number + 1, total=steps)
    with sharing(device) as shared:
        for step, (images, labels) in enumerate(batches, start=first):
            for group in optimiser.param_groups:
                group["lr"] = learning_rate(training, (step - begun) / planned)
            images = images.contiguous(memory_format=MEMORY_FORMAT)
            total += training_step(phase, optimiser, images=images, labels=labels, training=training)
            shared.pause()
            watch.advance(step - first + 1, loss_sum=total)
    mean = float(total) / steps
    if not math.isfinite(mean):
        raise Diverged(f"the loss became {mean} in epoch {number + 1}; a lower learning rate may help")
    return mean


def _before_deadline(
    source: PatchSource, *, job: Job, number: int, deadline: Deadline
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield one epoch's batches. Raises TimeoutError once the deadline has passed."""
    steps = job.training.steps_per_epoch
    deadline.check(f"epoch {number + 1}")
    for batch in source.batches(number * steps, (number + 1) * steps):
        deadline.check(f"epoch {number + 1}")
        yield batch


def _validated(
    network: Network, prepared: Prepared, job: Job, *, epoch: int, deadline: Deadline, watch: Watch
) -> tuple[CaseDice, ...]:
    device = torch.device(job.device)
    watch.begin("validation", epoch=epoch, total=len(job.task.validation))
    with sharing(device) as shared:

        def before_window() -> None:
            deadline.check(f"the validation after epoch {epoch}")
            shared.pause()

        last = epoch == job.training.epochs
        return validate(
            network, prepared, job, device=device, last=last, before_window=before_window, on_case=watch.advance
        )
