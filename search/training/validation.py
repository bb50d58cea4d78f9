"""Validation: sliding-window segmentation of whole volumes, scored on the grid of the original files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from search.data.geometry import mask_from_logits
from search.data.labelling import Labelling
from search.data.prepared import Prepared, open_case, open_truth
from search.training.mirror import mirrored
from search.training.step import MEMORY_FORMAT, autocast
from search.training.surfaces import surface_scores
from search.training.windows import sliding_logits
from search.trials.job import Job
from search.trials.records import CaseDice


class NothingScored(ValueError):
    """No case has a class to score."""


def validate(
    network: nn.Module,
    prepared: Prepared,
    job: Job,
    *,
    device: torch.device,
    last: bool,
    before_window: Callable[[], None] = lambda: None,
    on_case: Callable[[int], object] = lambda done: None,
) -> tuple[CaseDice, ...]:
    """Segment and score every validation case; with `last`, add surface metrics if the job requests them.

    `on_case` is called after each case with the number of those done.
    """
    network.eval()
    found, tolerance_mm = [], job.surface_tolerance_mm if last else None
    for case in job.task.validation:
        mask, truth = segment(network, prepared, case, job=job, device=device, before_window=before_window)
        found.append(score_mask(mask, truth, prepared, case, tolerance_mm=tolerance_mm))
        on_case(len(found))
    return tuple(found)


def score_mask(
    mask: NDArray[Any], truth: NDArray[Any], prepared: Prepared, case: str, *, tolerance_mm: float | None = None
) -> CaseDice:
    """Score a case's mask against its truth, both (X, Y, Z), by Dice and, with a tolerance, by surface metrics."""
    mask, truth = without_ignored(mask, truth, prepared.labelling)
    members = prepared.labelling.members
    scores = CaseDice(case, case_dice(mask, truth, members=members))
    if tolerance_mm is None:
        return scores
    spacing_mm = prepared.case(case).grid.source_spacing
    distances, dices = surface_scores(mask, truth, members=members, spacing_mm=spacing_mm, tolerance_mm=tolerance_mm)
    return replace(scores, hd95_mm=distances, surface_dice=dices)


def segment(
    network: nn.Module,
    prepared: Prepared,
    case: str,
    *,
    job: Job,
    device: torch.device,
    before_window: Callable[[], None] = lambda: None,
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return a case's mask and truth, both (X, Y, Z) on the grid of the original file."""
    image, _ = open_case(prepared, case)
    truth, grid = open_truth(prepared, case)
    batch = torch.from_numpy(np.array(image, dtype=np.float32))[None].to(device)
    logits = window_logits(network, batch, job=job, before_window=before_window)
    return mask_from_logits(logits[0].float().cpu().numpy(), grid, order=prepared.order), truth


def window_logits(
    network: nn.Module, batch: Tensor, *, job: Job, before_window: Callable[[], None] = lambda: None
) -> Tensor:
    """Return logits (1, K, D, H, W) for a batch (1, C, D, H, W), from overlapping windows with Gaussian weights.

    Each window's logits are averaged over mirrorings along `training.mirror`. `before_window` is called before each
    forward pass.
    """

    def predict(window: Tensor) -> Tensor:
        before_window()
        predicted: Tensor = network(window.contiguous(memory_format=MEMORY_FORMAT))
        return predicted

    with torch.inference_mode(), autocast(batch.device, job.training):
        every = mirrored(predict, job.training.mirror)
        return sliding_logits(every, batch, patch=job.patch, overlap=job.training.overlap)


def without_ignored(mask: NDArray[Any], truth: NDArray[Any], labelling: Labelling) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return mask and truth with the truth's ignored voxels set to background in both, so they are not scored."""
    if labelling.ignored is None:
        return mask, truth
    known = truth != labelling.ignored
    return np.where(known, mask, 0), np.where(known, truth, 0)


def case_dice(mask: NDArray[Any], truth: NDArray[Any], *, members: Sequence[Sequence[int]]) -> tuple[float | None, ...]:
    """Return the Dice of each class or region, given by its class indices; None if mask and truth lack it."""
    scores: list[float | None] = []
    for indices in members:
        found, there = np.isin(mask, indices), np.isin(truth, indices)
        total = int(found.sum()) + int(there.sum())
        scores.append(2 * int((found & there).sum()) / total if total else None)
    return tuple(scores)


def mean_dice(cases: Sequence[CaseDice]) -> float:
    """Average over the classes of each case, then over cases, as `BOTH_EMPTY` says.

    Raises NothingScored if no case has a score.
    """
    means = [mean for case in cases if (mean := case.mean) is not None]
    if not means:
        named = ", ".join(case.case for case in cases[:3]) + (", ..." if len(cases) > 3 else "")
        raise NothingScored(f"no Dice can be measured: label and mask are empty in every validation case ({named})")
    return float(np.mean(means))
