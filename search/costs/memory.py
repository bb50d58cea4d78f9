"""Peak memory of a training step and of inference: predicted on abstract tensors, or measured on a device."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace

import torch
from torch import nn

from search.config.training_section import Training
from search.costs.abstract import AbstractTensors
from search.costs.abstract_optimiser import AbstractOptimiser
from search.costs.live_bytes import LiveBytes
from search.data.labelling import Labelling
from search.training.schemes import Phase, make_phases, training_step
from search.training.step import MEMORY_FORMAT, autocast, make_optimiser, predicted_precision, to_memory_format
from search.trials.records import MeasuredMemory
from space.architecture import Architecture
from space.build import Network, build
from space.canonical import Context

CPU = torch.device("cpu")


def _used_optimiser(network: nn.Module, training: Training) -> torch.optim.Optimizer:
    """Return a network's optimiser after a step, as its state is allocated in the first."""
    optimiser = make_optimiser(network, training)
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimiser.step()
    return optimiser


def training_memory_bytes(
    architecture: Architecture,
    context: Context,
    training: Training,
    *,
    labelling: Labelling | None = None,
    device: torch.device = CPU,
) -> int:
    """Predict the peak live bytes of one training step: weights, gradients, optimiser state, activations, batch.

    For a cascade: the most expensive network's step, with the other networks' weights in memory. `labelling` chooses
    the loss (of classes by default). `device` is the target, which need not be present.
    """
    training = replace(training, precision=predicted_precision(device, training))
    with AbstractTensors(cuda=device.type == "cuda") as tensors:
        network = to_memory_format(build(architecture, context))
        run_abstract_steps(network, context, training, labelling=labelling)
    return int(tensors.peak_bytes)


def measure_training_memory(
    network: Network,
    context: Context,
    training: Training,
    *,
    labelling: Labelling | None = None,
    device: torch.device,
) -> MeasuredMemory:
    """Measure the peak of a real training step: CUDA's allocator, or the live bytes of tensors on a CPU.

    The step runs on a copy: the network keeps its weights, and the random number generators their state.
    """
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        if device.type != "cuda":
            copy = to_memory_format(deepcopy(network))
            with LiveBytes().hold(*copy.parameters(), *copy.buffers()) as counter:
                run_training_steps(copy, context, training, labelling=labelling, device=device)
            return MeasuredMemory(counter.peak_bytes)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        allocated, reserved = torch.cuda.memory_allocated(device), torch.cuda.memory_reserved(device)
        copy = to_memory_format(deepcopy(network)).to(device)
        run_training_steps(copy, context, training, labelling=labelling, device=device)
        return MeasuredMemory(
            torch.cuda.max_memory_allocated(device) - allocated, torch.cuda.max_memory_reserved(device) - reserved
        )


def run_training_steps(
    network: Network,
    context: Context,
    training: Training,
    *,
    labelling: Labelling | None = None,
    device: torch.device,
    prepare: Callable[[nn.Module, Training], torch.optim.Optimizer] = _used_optimiser,
) -> None:
    """Run one step of each phase on zeros, with existing optimiser state, as in every step after the first.

    `prepare` returns a network's optimiser with that state, and leaves the network with gradients.
    """
    network.train()
    training = replace(training, compile="off")  # the prediction is of the network as it is written
    for phase in make_phases(network, patch=context.patch, training=training, labelling=labelling):
        _run_step(phase, context, training, device, prepare(phase.trained, training))


def run_abstract_steps(
    network: Network, context: Context, training: Training, *, labelling: Labelling | None = None
) -> None:
    """Run the steps of `run_training_steps` on a network of abstract tensors."""
    run_training_steps(network, context, training, labelling=labelling, device=CPU, prepare=AbstractOptimiser)


def _run_step(
    phase: Phase, context: Context, training: Training, device: torch.device, optimiser: torch.optim.Optimizer
) -> None:
    images = torch.zeros(training.samples, context.in_channels, *phase.patch, device=device).contiguous(
        memory_format=MEMORY_FORMAT
    )
    labels = torch.zeros(training.samples, 1, *phase.patch, device=device)
    training_step(phase, optimiser, images=images, labels=labels, training=training)
    optimiser.zero_grad(set_to_none=True)


def inference_memory_bytes(
    architecture: Architecture, context: Context, training: Training, *, device: torch.device = CPU
) -> int:
    """Predict the peak live bytes of segmenting one patch at batch 1, weights included; `device` as for training."""
    training = replace(training, precision=predicted_precision(device, training))
    with AbstractTensors(cuda=device.type == "cuda") as tensors:
        run_inference(to_memory_format(build(architecture, context)), context, training)
    return int(tensors.peak_bytes)


def run_inference(network: Network, context: Context, training: Training) -> None:
    """Segment one patch of zeros at batch 1."""
    with torch.no_grad(), autocast(CPU, training):  # abstract weights can't enter inference mode
        network.eval()(torch.zeros(1, context.in_channels, *context.patch).contiguous(memory_format=MEMORY_FORMAT))
