"""Mirroring at inference: a network's logits averaged over all mirrorings of its input, as nnU-Net does it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import combinations

from torch import Tensor

Predict = Callable[[Tensor], Tensor]  # (B, C, D, H, W) to logits (B, K, D, H, W)


def mirrored(predict: Predict, axes: Sequence[str]) -> Predict:
    """Return what averages the logits over the 2^k mirrorings along k of the axes D, H and W."""
    if not axes:
        return predict
    every = list(mirrorings(axes))

    def average(x: Tensor) -> Tensor:
        total = predict(x)  # (B, K, D, H, W)
        for flipped in every[1:]:
            total = total + predict(x.flip(flipped)).flip(flipped)
        return total / len(every)

    return average


def mirrorings(axes: Sequence[str]) -> Iterator[tuple[int, ...]]:
    """Yield each set of dimensions of (B, C, D, H, W) to flip, the empty one first."""
    places = [2 + "DHW".index(axis) for axis in axes]
    for count in range(len(places) + 1):
        yield from combinations(places, count)
