"""The price of an architecture: all costs that need no device."""

from __future__ import annotations

from search.config.schema import Training
from search.costs.macs import params_and_macs
from search.costs.memory import inference_memory_bytes, training_memory_bytes
from search.trials.records import Costs
from space.architecture import Architecture
from space.canonical import Context


def predict_costs(architecture: Architecture, context: Context, training: Training) -> Costs:
    """Predict parameters, MACs and both peaks of memory at this patch and batch. Raises space.build.Refused."""
    params, macs = params_and_macs(architecture, context)
    return Costs(
        params=params,
        macs=macs,
        memory_bytes=training_memory_bytes(architecture, context, training),
        inference_memory_bytes=inference_memory_bytes(architecture, context, training),
    )
