"""Dice on whole volumes, on the grid that the case came in: sliding window, back to the grid, then count."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from monai.inferers import SlidingWindowInferer
from monai.metrics import compute_dice
from numpy.typing import NDArray
from torch import Tensor, nn

from search.data.geometry import mask_from_logits
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
    found, classes = [], len(job.task.classes)
    for case in job.task.validation:
        mask, truth = segment(network, prepared, case, job=job, device=device)
        scores = CaseDice(case, case_dice(mask, truth, classes=classes))
        if last and job.surface_tolerance_mm is not None:
            distances, dices = surface_scores(
                mask,
                truth,
                classes=classes,
                spacing_mm=prepared.case(case).grid.source_spacing,
                tolerance_mm=job.surface_tolerance_mm,
            )
            scores = replace(scores, hd95_mm=distances, surface_dice=dices)
        found.append(scores)
        after_case()
    return tuple(found)


def segment(
    network: nn.Module, prepared: Prepared, case: str, *, job: Job, device: torch.device
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return a case's mask and truth, both (X, Y, Z) on the grid of the original file."""
    image, _ = open_case(prepared, case)
    truth, grid = open_truth(prepared, case)
    batch = torch.from_numpy(np.array(image, dtype=np.float32))[None].to(device)
    logits = window_logits(network, batch, job=job)
    return mask_from_logits(logits[0].float().cpu().numpy(), grid), truth


def window_logits(network: nn.Module, batch: Tensor, *, job: Job) -> Tensor:
    """Run the network over (1, C, D, H, W) in overlapping windows, Gaussian-weighted: (1, K, D, H, W).

    Each window is mirrored along the training's `mirror` axes and the logits averaged.
    """
    inferer = SlidingWindowInferer(job.patch, sw_batch_size=1, overlap=job.training.overlap, mode="gaussian")
    with torch.inference_mode(), autocast(batch.device, job.training):
        predict = mirrored(lambda window: network(window.contiguous(memory_format=LAYOUT)), job.training.mirror)
        logits: Tensor = inferer(batch, predict)
    return logits


def case_dice(mask: NDArray[np.uint8], truth: NDArray[np.uint8], *, classes: int) -> tuple[float | None, ...]:
    """Return the Dice of each foreground class; None where both are empty, 0 where one is."""
    scores = compute_dice(
        _one_hot(mask, classes), _one_hot(truth, classes), include_background=False, ignore_empty=False
    )
    both_empty = [not (mask == label).any() and not (truth == label).any() for label in range(1, classes)]
    return tuple(None if empty else float(score) for score, empty in zip(scores[0].tolist(), both_empty, strict=True))


def _one_hot(labels: NDArray[np.uint8], classes: int) -> Tensor:
    return torch.stack([torch.from_numpy(labels == label) for label in range(classes)])[None]


def mean_dice(cases: Sequence[CaseDice]) -> float:
    """Average over the classes of each case, then over cases; 0 where nothing could be scored."""
    means = [np.mean(known) for case in cases if (known := [each for each in case.dice if each is not None])]
    mean = float(np.mean(means)) if means else 0.0
    return 0.0 if math.isnan(mean) else mean
