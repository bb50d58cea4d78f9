"""Sliding-window inference, slab by slab: finished slabs leave memory.

Windows are weighted by a Gaussian and summed as in MONAI's SlidingWindowInferer. Requires only numpy.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

Network = Callable[["np.ndarray[Any, Any]"], "np.ndarray[Any, Any]"]  # (C, *patch) to logits (K, *patch)
SIGMA = 0.125  # relative to the window's length, along each axis
SMALLEST_WEIGHT = 1e-3


@dataclass(frozen=True)
class Windows:
    """The windows of an image (C, D, H, W): their size, their starts along each axis, and the zero padding."""

    patch: tuple[int, ...]
    starts: tuple[tuple[int, ...], ...]
    before: tuple[int, ...]
    padded: tuple[int, ...]

    @property
    def count(self) -> int:
        """Number of windows."""
        return math.prod(len(starts) for starts in self.starts)


def cut(shape: tuple[int, ...], patch: list[int], overlap: float) -> Windows:
    """Return the windows of an image of shape (D, H, W); an image smaller than a window is padded on both sides."""
    padded = tuple(max(size, length) for size, length in zip(shape, patch, strict=True))
    before = tuple((whole - size) // 2 for whole, size in zip(padded, shape, strict=True))
    starts = []
    for size, length in zip(padded, patch, strict=True):
        step = length if size == length else max(1, int(length * (1 - overlap)))
        steps = math.ceil((size - length) / step)
        starts.append(tuple(min(number * step, size - length) for number in range(steps + 1)))
    return Windows(tuple(patch), tuple(starts), before, padded)


def mirrored(network: Network, axes: list[int]) -> Network:
    """Return what averages a network's logits over all mirrorings of a window along axes of (D, H, W)."""
    if not axes:
        return network
    places = [1 + axis for axis in axes]
    every = [flip for count in range(len(places) + 1) for flip in itertools.combinations(places, count)]

    def average(window: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        total = network(window)
        for flip in every[1:]:
            total = total + np.flip(network(np.flip(window, flip)), flip)
        return total / np.float32(len(every))

    return average


def strip_bytes(windows: Windows, *, classes: int, rows: int) -> int:
    """Return the peak bytes of `logit_slabs` for `rows` rows of H: the sums, a finished slab, and weights."""
    depth = windows.patch[0] * min(rows, windows.padded[1]) * windows.padded[2]
    return 4 * depth * (2 * classes + 2)


def logit_slabs(
    network: Network, image: np.ndarray[Any, Any], windows: Windows, rows: slice, *, done: Callable[[], None]
) -> Iterator[tuple[int, np.ndarray[Any, Any]]]:
    """Yield (first slice, logits (K, d, h, W)) for `rows` of H of an image (C, D, H, W), in slice order.

    Calls `done` after each window. A window that overlaps several strips is computed once per strip.
    """
    weight = gaussian_weight(windows.patch)
    pads = [
        (0, 0),
        *(
            (first, whole - first - size)
            for first, whole, size in zip(windows.before, windows.padded, image.shape[1:], strict=True)
        ),
    ]
    padded = np.pad(image, pads) if any(map(any, pads)) else image
    depth, height, width = windows.patch
    top, bottom = rows.start + windows.before[1], rows.stop + windows.before[1]
    down = [start for start in windows.starts[1] if start < bottom and start + height > top]
    sums, weights = np.zeros(0, dtype=np.float32), np.zeros((depth, bottom - top, windows.padded[2]), dtype=np.float32)
    inside = slice(windows.before[2], windows.before[2] + image.shape[3])
    for first, following in itertools.zip_longest(windows.starts[0], windows.starts[0][1:]):
        for start, left in itertools.product(down, windows.starts[2]):
            logits = network(padded[:, first : first + depth, start : start + height, left : left + width])
            if not len(sums):
                sums = np.zeros((len(logits), *weights.shape), dtype=np.float32)
            in_strip = slice(max(start, top) - top, min(start + height, bottom) - top)
            in_window = slice(max(start, top) - start, min(start + height, bottom) - start)
            across = slice(left, left + width)
            sums[:, :, in_strip, across] += logits[:, :, in_window] * weight[:, in_window]
            weights[:, in_strip, across] += weight[:, in_window]
            done()
        finished = depth if following is None else following - first
        slab = sums[:, :finished, :, inside] / weights[:finished, :, inside]
        yield from _without_padding(first, slab, windows, image)
        for held in (sums, weights[None]):
            held[:, : depth - finished] = held[:, finished:]
            held[:, depth - finished :] = 0


def _without_padding(
    first: int, slab: np.ndarray[Any, Any], windows: Windows, image: np.ndarray[Any, Any]
) -> Iterator[tuple[int, np.ndarray[Any, Any]]]:
    start = max(first, windows.before[0])
    end = min(first + slab.shape[1], windows.before[0] + image.shape[1])
    if start < end:
        yield start - windows.before[0], slab[:, start - first : end - first]


def gaussian_weight(patch: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """Return the Gaussian weight of each voxel of a window, (D, H, W)."""
    weight = np.ones((), dtype=np.float32)
    for length in patch:
        offset = np.arange(-(length - 1) / 2.0, (length - 1) / 2.0 + 1, dtype=np.float32)
        weight = weight[..., None] * np.exp(offset**2 / np.float32(-2 * (SIGMA * length) ** 2))
    floor = max(float(weight.min()), SMALLEST_WEIGHT)
    return np.maximum(weight, np.float32(floor))
