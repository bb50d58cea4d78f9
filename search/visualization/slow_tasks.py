"""Slow tasks of the pages, which need torch or Optuna: plain values in and out, run in a separate process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from search.analysis.snapshot import Snapshot
from search.config.objectives import OBJECTIVES
from search.config.training_section import Training
from search.trials.records import Costs, Record
from space.architecture import Architecture
from space.canonical import Context

if TYPE_CHECKING:
    from search.costs.layers import Layer


@lru_cache
def preset_costs(context: Context, training: Training, kind: str) -> dict[str, Costs]:
    """Price the papers' networks that can be built for a study's patch, on its device type (`cpu` or `cuda`)."""
    import torch

    from search.costs.price import predict_costs
    from space.build import Refused
    from space.presets import PRESETS

    found = {}
    for name, preset in PRESETS.items():
        try:
            found[name] = predict_costs(preset.at(context), context, training, device=torch.device(kind))
        except Refused:
            continue
    return found


def layers_of(architecture: Architecture, context: Context) -> tuple[Layer, ...]:
    """List a network's layers with shapes and parameters; empty if it can't be built."""
    from search.costs.layers import layers
    from space.build import Refused

    try:
        return layers(architecture, context)
    except Refused:
        return ()


def importances(
    decisions: Sequence[Mapping[str, str]], values: Mapping[str, Sequence[float]], maximised: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Return each axis's importance for each objective, by PED-ANOVA."""
    from search.analysis.importance import ped_anova

    return {name: ped_anova(decisions, each, negate=name in maximised) for name, each in values.items()}


def importance_inputs(
    snapshot: Snapshot, rows: NDArray[np.int64]
) -> tuple[list[dict[str, str]], dict[str, list[float]], list[str]]:
    """Return the arguments of `importances` for the trials in some rows of a snapshot."""
    chosen = [snapshot.trials[row].decisions for row in rows]
    decisions = [{name: str(value) for name, value in each.items() if name in snapshot.axes} for each in chosen]
    values = {name: snapshot.values[name][rows].tolist() for name in snapshot.objectives}
    return decisions, values, [name for name in snapshot.objectives if OBJECTIVES[name].is_maximized]


def slices_of(
    record: Record, cases: tuple[str, ...], prepared: str, folder: str, context: Context, training: Training
) -> dict[str, bytes]:
    """Return PNG images, by case, of a slice with truth and prediction."""
    from search.visualization.slice_images import render_slices

    return render_slices(record, cases, prepared=prepared, folder=folder, context=context, training=training)
