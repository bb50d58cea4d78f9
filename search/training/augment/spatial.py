"""Rotation and scaling of a batch in one resampling: images linearly, labels by the largest interpolation weight."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from search.config.augment import Rotation

Matrix = NDArray[np.float64]  # (3, 3)
Triple = tuple[int, int, int]
THICK = 3.0  # longest axis / D above which a patch is rotated only within the plane (nnU-Net)
LONG = 1.5  # length / width above which a single slice is rotated by at most 15 degrees (nnU-Net)
OUTSIDE = -1  # label of voxels outside the volume
LARGEST_SCALE = 0.85  # a box is at most the rotated patch divided by this (nnU-Net); the rest is padding
CLASSES_AT_ONCE = 16  # resampled in one call, to bound memory


def only_in_plane(patch: Triple) -> bool:
    """Return whether slices are so thick that a patch is rotated and scaled only within the plane."""
    return max(patch) / patch[0] > THICK


def rotation_limit(rotation: Rotation, patch: Triple) -> float:
    """Return the largest angle in degrees; with `auto` 30, or 180 within the plane, or 15 for a long single slice."""
    if rotation.degrees != "auto":
        return rotation.degrees
    if not only_in_plane(patch):
        return 30.0
    plane = patch[1:]
    return 15.0 if patch[0] == 1 and max(plane) / min(plane) > LONG else 180.0


def mirror(volume: NDArray[np.float32], axes: Sequence[int]) -> NDArray[np.float32]:
    """Flip a volume (C, D, H, W) along the given indices of (D, H, W)."""
    return np.flip(volume, tuple(1 + axis for axis in axes))


def affine(angles: NDArray[np.float64], factor: float, *, plane: bool) -> Matrix:
    """Return the matrix that scales offsets by a factor, then rotates about D, H and W; `plane` leaves D unchanged."""
    cos, sin = np.cos(angles), np.sin(angles)
    about_d = np.array([[1, 0, 0], [0, cos[0], -sin[0]], [0, sin[0], cos[0]]])
    if plane:
        return about_d @ np.diag([1, factor, factor])
    about_h = np.array([[cos[1], 0, sin[1]], [0, 1, 0], [-sin[1], 0, cos[1]]])
    about_w = np.array([[cos[2], -sin[2], 0], [sin[2], cos[2], 0], [0, 0, 1]])
    matrix: Matrix = about_w @ about_h @ about_d @ (np.eye(3) * factor)
    return matrix


def box_size(affines: Sequence[Matrix], *, patch: Triple, limit_degrees: float) -> Triple:
    """Return the size (D, H, W) of a box that contains the rotated and scaled patches, with the patch's parity.

    The size is limited to the patch rotated by the limit about one axis, divided by 0.85: the box that nnU-Net always
    cuts.
    """
    shown = np.max([np.abs(matrix) @ np.array(patch) for matrix in affines], axis=0) + 2  # a voxel on each side
    wide = _largest_extents(patch, math.radians(limit_degrees))
    needed = [min(math.ceil(size), math.ceil(limit / LARGEST_SCALE)) for size, limit in zip(shown, wide, strict=True)]
    flat = [patch[0] if only_in_plane(patch) else needed[0], *needed[1:]]
    sizes = [max(size, own) for size, own in zip(flat, patch, strict=True)]
    depth, height, width = (size + (size - own) % 2 for size, own in zip(sizes, patch, strict=True))
    return depth, height, width


def _largest_extents(patch: Triple, limit: float) -> list[float]:
    """Return the largest extent along each axis of a patch rotated about one axis by at most the limit (radians)."""

    def extent(own: int, other: int) -> float:
        angle = min(limit, math.atan2(other, own))  # the extent is largest when the diagonal lies along the axis
        return own * math.cos(angle) + other * math.sin(angle)

    pairs = [(1, 2)] if only_in_plane(patch) else [(0, 1), (0, 2), (1, 2)]
    extents = [float(size) for size in patch]
    for one, other in pairs:
        extents[one] = max(extents[one], extent(patch[one], patch[other]))
        extents[other] = max(extents[other], extent(patch[other], patch[one]))
    return extents


def resample(
    images: Tensor, labels: Tensor, affines: Sequence[Matrix], *, patch: Triple, present: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Resample boxes by affines: images (M, C, *box) and labels (M, 1, *box) to (M, C, *patch) and (M, 1, *patch).

    `present` lists the nonzero labels in the boxes. Outside the box, images and labels are 0. A voxel takes the label
    with the largest interpolation weight, the lower one of equals; OUTSIDE becomes 0.
    """
    grid = _grid(affines, patch=patch, box=images.shape[2:], like=images)
    channels = images.shape[1]
    seen, chosen, best, background = images, labels.new_zeros(()), images.new_zeros(()), images.new_ones(())
    for first in range(0, max(1, len(present)), CLASSES_AT_ONCE):
        values = torch.tensor(present[first : first + CLASSES_AT_ONCE], dtype=labels.dtype, device=labels.device)
        before = 0 if first else channels
        together = images.new_empty(len(images), before + len(values), *images.shape[2:])
        together[:, :before] = images[:, :before]
        torch.eq(labels, values.view(1, -1, 1, 1, 1), out=together[:, before:])
        shown = functional.grid_sample(together, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        if not first:
            seen, shown = shown[:, :channels], shown[:, channels:]
        if not len(values):
            return seen, torch.zeros_like(seen[:, :1])
        background = background - shown.sum(1, keepdim=True)  # the weight that no other label has
        largest, place = shown.max(1, keepdim=True)  # (M, 1, *patch)
        chosen = torch.where(largest > best, values[place], chosen)
        best = torch.maximum(best, largest)
    return seen, torch.where(background >= best, 0, chosen).clamp_(min=0)


def _grid(affines: Sequence[Matrix], *, patch: Triple, box: Sequence[int], like: Tensor) -> Tensor:
    """Return the position of each patch voxel in its box, in `grid_sample`'s coordinates: (M, D, H, W, 3)."""
    theta = torch.from_numpy(_theta(affines, patch=patch, box=box)).to(like.device, like.dtype)
    lines = [(2 * torch.arange(size, device=like.device, dtype=like.dtype) + 1) / size - 1 for size in patch]
    d, h, w = (line.view([-1 if axis == own else 1 for axis in range(3)] + [1]) for own, line in enumerate(lines))
    along = theta[:, None, None, None]  # (M, 1, 1, 1, 3, 3): rows and columns from W to D
    return w * along[..., 0] + (h * along[..., 1] + d * along[..., 2])


def _theta(affines: Sequence[Matrix], *, patch: Triple, box: Sequence[int]) -> NDArray[np.float64]:
    """Return the affines in `grid_sample`'s coordinates (-1 to 1, axes ordered W, H, D): (M, 3, 3)."""
    scaled = [np.diag(2 / np.array(box)) @ matrix @ np.diag(np.array(patch) / 2) for matrix in affines]
    return np.stack(scaled)[:, ::-1, ::-1].copy()
