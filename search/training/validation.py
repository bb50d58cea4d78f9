"""Dice on whole volumes, on the grid that the case came in: sliding window, back to the grid, then count."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from monai.inferers import SlidingWindowInferer
from numpy.typing import NDArray
from torch import Tensor, nn

from search.data.geometry import mask_from_logits
from search.data.labelling import Labelling
from search.data.prepare import Prepared, open_case, open_truth
from search.training.mirror import mirrored
from search.training.step import LAYOUT, autocast
from search.training.surfaces import surface_scores
from search.trials.records import CaseDice, Job


def validate(
    network: nn.Module,
    prepared: Prepared,
    job: Job,
    *,
    device: torch.device,
    last: bool,
    after_case: Callable[[], None] = lambda: None,
) -> tuple[CaseDice, ...]:
    """Segment every validation case and score it per foreground class; surfaces, where asked for, the last time."""
    network.eval()
    found, labelling = [], prepared.labelling
    for case in job.task.validation:
        mask, truth = segment(network, prepared, case, job=job, device=device)
        mask, truth = without_ignored(mask, truth, labelling)
        scores = CaseDice(case, case_dice(mask, truth, members=labelling.members))
        if last and job.surface_tolerance_mm is not None:
            distances, dices = surface_scores(
                mask,
                truth,
                members=labelling.members,
                spacing_mm=prepared.case(case).grid.source_spacing,
                tolerance_mm=job.surface_tolerance_mm,
            )
            scores = replace(scores, hd95_mm=distances, surface_dice=dices)
        found.append(scores)
        after_case()
    return tuple(found)


def segment(
    network: nn.Module, prepared: Prepared, case: str, *, job: Job, device: torch.device
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return a case's mask and truth, both (X, Y, Z) on the grid of the original file."""
    image, _ = open_case(prepared, case)
    truth, grid = open_truth(prepared, case)
    batch = torch.from_numpy(np.array(image, dtype=np.float32))[None].to(device)
    logits = window_logits(network, batch, job=job)
    return mask_from_logits(logits[0].float().cpu().numpy(), grid, order=prepared.order), truth


def window_logits(network: nn.Module, batch: Tensor, *, job: Job) -> Tensor:
    """Run the network over (1, C, D, H, W) in overlapping windows, Gaussian-weighted: (1, K, D, H, W).

    Each window is mirrored along the training's `mirror` axes and the logits averaged.
    """
    inferer = SlidingWindowInferer(job.patch, sw_batch_size=1, overlap=job.training.overlap, mode="gaussian")
    with torch.inference_mode(), autocast(batch.device, job.training):
        predict = mirrored(lambda window: network(window.contiguous(memory_format=LAYOUT)), job.training.mirror)
        logits: Tensor = inferer(batch, predict)
    return logits


def without_ignored(mask: NDArray[Any], truth: NDArray[Any], labelling: Labelling) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return both with background where nobody labelled the truth, so that nothing is scored there."""
    if labelling.ignored is None:
        return mask, truth
    known = truth != labelling.ignored
    return np.where(known, mask, 0), np.where(known, truth, 0)


def case_dice(mask: NDArray[Any], truth: NDArray[Any], *, members: Sequence[Sequence[int]]) -> tuple[float | None, ...]:
    """Return the Dice of each class or region, given by its class indices; None where both are empty."""
    scores: list[float | None] = []
    for indices in members:
        found, there = np.isin(mask, indices), np.isin(truth, indices)
        total = int(found.sum()) + int(there.sum())
        scores.append(2 * int((found & there).sum()) / total if total else None)
    return tuple(scores)


def mean_dice(cases: Sequence[CaseDice]) -> float:
    """Average over the classes of each case, then over cases; 0 where nothing could be scored."""
    means = [np.mean(known) for case in cases if (known := [each for each in case.dice if each is not None])]
    mean = float(np.mean(means)) if means else 0.0
    return 0.0 if math.isnan(mean) else mean
