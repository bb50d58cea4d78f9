"""Sliding-window inference: overlapping windows whose logits are averaged with Gaussian weights.

Equals MONAI's SlidingWindowInferer, which takes longer to import than torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product

import torch
from torch import Tensor
from torch.nn.functional import pad

SIGMA = 0.125  # relative to the window's length, along each axis
SMALLEST_WEIGHT = 1e-3
ALL = slice(None)


def sliding_logits(
    predict: Callable[[Tensor], Tensor], batch: Tensor, *, patch: Sequence[int], overlap: float
) -> Tensor:
    """Return the weighted mean of the logits (1, K, D, H, W) of all windows of a batch (1, C, D, H, W).

    An image smaller than a window is padded with zeros on both sides.
    """
    missing = [max(length - size, 0) for size, length in zip(batch.shape[2:], patch, strict=True)]
    before = [each // 2 for each in missing]
    sides = [side for each, first in zip(missing, before, strict=True) for side in (each - first, first)]
    padded = pad(batch, sides[::-1]) if any(missing) else batch
    sizes = padded.shape[2:]
    weight = gaussian_weight(patch, device=batch.device)
    sums, weights = torch.zeros(0), torch.zeros(sizes, device=batch.device)
    for corner in product(*(_starts(size, length, overlap) for size, length in zip(sizes, patch, strict=True))):
        window = _box(corner, patch)
        logits = predict(padded[ALL, ALL, *window])
        if not sums.numel():
            sums = torch.zeros((1, logits.shape[1], *sizes), device=batch.device)
        sums[ALL, ALL, *window] += logits * weight
        weights[window] += weight
    sums /= weights
    return sums[ALL, ALL, *_box(before, batch.shape[2:])]


def _box(corner: Sequence[int], lengths: Sequence[int]) -> tuple[slice, ...]:
    return tuple(slice(start, start + length) for start, length in zip(corner, lengths, strict=True))


def gaussian_weight(patch: Sequence[int], *, device: torch.device) -> Tensor:
    """Return the weight of each voxel of a window, (D, H, W)."""
    weight = torch.ones((), device=device)
    for length in patch:
        offset = torch.arange(length, device=device) - (length - 1) / 2
        weight = weight[..., None] * torch.exp(offset**2 / (-2 * (SIGMA * length) ** 2))
    return weight.clamp(min=max(float(weight.min()), SMALLEST_WEIGHT))


def _starts(size: int, length: int, overlap: float) -> list[int]:
    """Return where windows of a length start along an axis; the last one ends with the axis."""
    step = max(1, int(length * (1 - overlap)))
    return [*range(0, size - length, step), size - length]
