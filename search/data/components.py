"""Postprocessing of masks: keep only the largest connected component. Needs only numpy; exports hold a copy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Lines along the last axis that touch a line at (x, y) and come after it: with the overlaps along a line, 26 neighbours
LATER_LINES = ((0, 1), (1, -1), (1, 0), (1, 1))


def keep_largest(mask: NDArray[Any], groups: Sequence[Sequence[int]]) -> NDArray[Any]:
    """Return a mask (X, Y, Z) of class indices in which only the largest component of each group is left.

    A group is a set of indices that count as one; groups are taken in turn, and what is removed becomes 0, background.
    Voxels are connected to their 26 neighbours. Of components of equal size the first in the array is left.
    """
    for group in groups:
        inside = np.isin(mask, group)
        mask = np.where(inside & ~largest_component(inside), 0, mask).astype(mask.dtype)
    return mask


def largest_component(inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the largest connected component of a binary volume (X, Y, Z), all False if there is none.

    Works on runs of voxels along the last axis, so that time and memory follow the surface, not the volume.
    """
    starts, ends = _runs(inside)
    edges = np.zeros(inside.shape[0] * inside.shape[1] * (inside.shape[2] + 2), dtype=np.int8)
    if len(starts):
        root = _components(len(starts), *_touching(starts, ends, inside.shape))
        largest = root == np.bincount(root, weights=ends - starts).argmax()
        edges[starts[largest]], edges[ends[largest]] = 1, -1
    padded = np.cumsum(edges, dtype=np.int8).astype(bool)
    return padded.reshape(*inside.shape[:2], -1)[:, :, :-2]


def _runs(inside: NDArray[np.bool_]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return start and end of each run of voxels, as positions in lines that are two voxels longer than the volume's.

    The gap keeps runs of neighbouring lines apart.
    """
    lines = inside.reshape(-1, inside.shape[2])
    padded = np.zeros((len(lines), inside.shape[2] + 2), dtype=np.int8)
    padded[:, :-2] = lines
    steps = np.diff(padded.ravel(), prepend=np.int8(0))
    return np.flatnonzero(steps == 1), np.flatnonzero(steps == -1)


def _touching(
    starts: NDArray[np.intp], ends: NDArray[np.intp], shape: tuple[int, ...]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the pairs of runs that touch, each pair once."""
    width = shape[2] + 2
    lines = starts // width
    x, y = np.divmod(lines, shape[1])
    ones, others = [], []
    for dx, dy in LATER_LINES:
        there = (x + dx < shape[0]) & (y + dy >= 0) & (y + dy < shape[1])
        runs = np.flatnonzero(there)
        shift = (dx * shape[1] + dy) * width
        first = np.searchsorted(ends, starts[runs] + shift - 1, side="right")
        last = np.searchsorted(starts, ends[runs] + shift + 1, side="left")
        counts = np.maximum(last - first, 0)
        ones.append(np.repeat(runs, counts))
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        others.append(np.repeat(first, counts) + within)
    return np.concatenate(ones), np.concatenate(others)


def _components(count: int, ones: NDArray[np.intp], others: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return the lowest run of each run's component: hook roots onto lower ones, then compress, until nothing moves."""
    root = np.arange(count)
    while True:
        a, b = root[ones], root[others]
        moves = a != b
        if not moves.any():
            return root
        np.minimum.at(root, np.maximum(a, b)[moves], np.minimum(a, b)[moves])
        while (root != root[root]).any():
            root = root[root]
