"""Test-time mirroring, as in nnU-Net: average the logits over all mirrorings of the input."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import combinations

from torch import Tensor

Predict = Callable[[Tensor], Tensor]  # (B, C, D, H, W) to logits (B, K, D, H, W)


def mirrored(predict: Predict, axes: Sequence[str]) -> Predict:
    """Wrap a predictor so that it averages its logits over the 2^k mirrorings along the k given axes of D, H, W."""
    if not axes:
        return predict
    flips = list(mirrorings(axes))

    def average(x: Tensor) -> Tensor:
        total = predict(x)  # (B, K, D, H, W)
        for dimensions in flips[1:]:
            total = total + predict(x.flip(dimensions)).flip(dimensions)
        return total / len(flips)

    return average


def mirrorings(axes: Sequence[str]) -> Iterator[tuple[int, ...]]:
    """Yield each set of dimensions of (B, C, D, H, W) to flip, the empty one first."""
    dimensions = [2 + "DHW".index(axis) for axis in axes]
    for count in range(len(dimensions) + 1):
        yield from combinations(dimensions, count)
