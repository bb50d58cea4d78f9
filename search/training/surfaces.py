"""Surface metrics of a mask: hd95 and surface Dice (by MONAI), in mm on the case's own grid."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

Scores = tuple[float | None, ...]


def surface_scores(
    mask: NDArray[Any],
    truth: NDArray[Any],
    *,
    members: Sequence[Sequence[int]],
    spacing_mm: tuple[float, float, float],
    tolerance_mm: float,
) -> tuple[Scores, Scores]:
    """Return (hd95 in mm, surface Dice) of each class or region, for mask and truth (X, Y, Z).

    `members` lists the class indices of each class or region. A score is None if the class is empty in both. If it is
    empty in only one, no distance is defined: hd95 is then the volume's diagonal and the surface Dice 0.
    """
    from monai.metrics import compute_hausdorff_distance, compute_surface_dice  # slow to import, and rarely needed

    diagonal = math.hypot(*(size * step for size, step in zip(truth.shape, spacing_mm, strict=True)))
    distances: list[float | None] = []
    dices: list[float | None] = []
    for indices in members:
        found, there = np.isin(mask, indices), np.isin(truth, indices)
        if not (found.any() and there.any()):
            missed = found.any() or there.any()
            distances.append(diagonal if missed else None)
            dices.append(0.0 if missed else None)
            continue
        pair = [torch.from_numpy(each)[None, None] for each in _around(found, there)]
        options = {"include_background": True, "spacing": list(spacing_mm)}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of MONAI's own calls
            distances.append(float(compute_hausdorff_distance(*pair, percentile=95.0, **options)))
            dices.append(float(compute_surface_dice(*pair, class_thresholds=[tolerance_mm], **options)))
    return tuple(distances), tuple(dices)


def _around(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Crop both to the bounding box of their union plus one voxel; the scores don't depend on anything beyond it."""
    box = []
    for axis in range(3):
        filled = np.flatnonzero((one | other).any(axis=tuple(each for each in range(3) if each != axis)))
        box.append(slice(max(0, int(filled[0]) - 1), int(filled[-1]) + 2))
    return np.ascontiguousarray(one[tuple(box)]), np.ascontiguousarray(other[tuple(box)])
