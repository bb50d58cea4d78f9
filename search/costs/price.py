"""Predict all costs of an architecture that need no device, on one network of abstract tensors."""

from __future__ import annotations

from dataclasses import replace

import torch

from search.config.training_section import Training
from search.costs.abstract import AbstractTensors
from search.costs.macs import count_network
from search.costs.memory import CPU, run_abstract_steps
from search.data.labelling import Labelling
from search.training.step import autocast, predicted_precision, to_memory_format
from search.trials.records import Costs
from space.architecture import Architecture
from space.build import build
from space.canonical import Context


def predict_costs(
    architecture: Architecture,
    context: Context,
    training: Training,
    *,
    labelling: Labelling | None = None,
    device: torch.device,
) -> Costs:
    """Predict parameters, MACs and both memory peaks at this patch and batch, on a device that need not be present.

    `labelling` chooses the loss, of classes by default.
    Raises space.build.Refused.
    """
    training = replace(training, precision=predicted_precision(device, training))
    with AbstractTensors(cuda=device.type == "cuda") as tensors:
        network = to_memory_format(build(architecture, context))
        with autocast(CPU, training):
            counts = count_network(network, context)
        inference_bytes = tensors.peak_bytes
        tensors.restart_peak()
        run_abstract_steps(network, context, training, labelling=labelling)
        training_bytes = tensors.peak_bytes
    return Costs(
        params=counts.params, macs=counts.macs, memory_bytes=training_bytes, inference_memory_bytes=inference_bytes
    )
