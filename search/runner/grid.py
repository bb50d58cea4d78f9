"""A study's voxel size, patch and batch: as its file says, or derived from its data."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, Final, Literal, TypeVar

from search.config import Study
from search.config.training_section import Training
from search.data.check import DataFacts
from search.data.fingerprint import fingerprint_of
from search.data.geometry import Spacing, Triple, choose_axes
from search.data.read import Dataset
from space.nnunet.planner import make_plan, target_spacing
from space.pooling import pooling_from_spacing

AUTO_PATCH_VOXELS = 96**3  # maximum number of voxels of an automatic patch
PATCH_MULTIPLE = 16  # its sizes along pooled axes are multiples of this
PLANNED: Final = "nnunet"
Number = TypeVar("Number", int, float)


def resolve_spacing(named: Literal["median", "nnunet"] | Spacing, dataset: Dataset, facts: DataFacts) -> Spacing:
    """Return the voxel size (D, H, W) in mm that a study's volumes are resampled to."""
    if not isinstance(named, str):
        return named
    if named == PLANNED:
        return target_spacing(fingerprint_of(dataset, facts))
    return in_axis_order(facts.spacing_median, choose_axes(facts.spacing_median))


def resolve_training(training: Training, dataset: Dataset, facts: DataFacts, *, spacing: Spacing) -> Training:
    """Return a training with its patch and batch as numbers.

    nnU-Net's rules plan the patch for the study's own spacing, and the batch for the study's own patch.
    """
    patch = training.patch
    if patch == "auto":
        axes = choose_axes(facts.spacing_median)
        shape, spacing_mm = in_axis_order(facts.shape_median, axes), in_axis_order(facts.spacing_median, axes)
        patch = auto_patch(shape, spacing_mm, target_mm=spacing)
    batch = training.batch
    if PLANNED in (patch, batch):
        own = None if isinstance(patch, str) else patch
        plan = make_plan(fingerprint_of(dataset, facts), spacing=spacing, patch=own)
        patch, batch = plan.patch, plan.batch if batch == PLANNED else batch
    return replace(training, patch=patch, batch=batch)


def planned_values(study: Study, training: Training, spacing: Spacing) -> dict[str, Any]:
    """Return the resolved values of the keys that a study leaves to nnU-Net's planner."""
    keys = {
        "data.spacing": (study.data.spacing, spacing),
        "training.patch": (study.training.patch, training.patch),
        "training.batch": (study.training.batch, training.batch),
    }
    return {key: resolved for key, (named, resolved) in keys.items() if named == PLANNED}


def in_axis_order(values: tuple[Number, Number, Number], axes: Triple) -> tuple[Number, Number, Number]:
    """Return values of (x, y, z) in the order (D, H, W)."""
    return values[axes[0]], values[axes[1]], values[axes[2]]


def auto_patch(
    shape: tuple[int, int, int],
    spacing_mm: tuple[float, float, float],
    *,
    target_mm: tuple[float, float, float],
    voxels: int = AUTO_PATCH_VOXELS,
) -> tuple[int, int, int]:
    """Choose a patch (D, H, W): the median volume on the target grid, its longest side in mm reduced to `voxels`.

    As in nnU-Net, the patch keeps the volume's aspect ratio as far as memory allows. Sizes along pooled axes become
    multiples of 16, the others keep their length.
    """
    size = [max(1, round(n * own / target)) for n, own, target in zip(shape, spacing_mm, target_mm, strict=True)]
    while math.prod(size) > voxels:
        longest = max(range(3), key=lambda axis: size[axis] * target_mm[axis] if size[axis] > 1 else 0.0)
        size[longest] = max(1, int(size[longest] * 0.9))
    d, h, w = size
    pooled = pooling_from_spacing((d, h, w), spacing=target_mm, levels=4)
    often = [sum(stride[axis] == 2 for stride in pooled) for axis in range(3)]
    steps = [min(PATCH_MULTIPLE, 2**times) for times in often]
    d, h, w = (max(step, length // step * step) for step, length in zip(steps, size, strict=True))
    return d, h, w
