"""Rotation and scaling: one resampling of the batch, images linearly, labels by the largest share of a voxel."""

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
THICK = 3.0  # a patch whose longest axis is over so many times its D is turned within the plane alone (nnU-Net)
LONG = 1.5  # a single slice longer than so many times its width is turned little (nnU-Net)
OUTSIDE = -1  # in labels: beyond the volume
LARGEST_SCALE = 0.85  # a box is at most the turned patch over this (nnU-Net); beyond it is padding
CLASSES_AT_ONCE = 16  # resampled in one call, for memory


def in_plane(patch: Triple) -> bool:
    """Say whether slices are so thick that a patch is turned and scaled within the plane alone."""
    return max(patch) / patch[0] > THICK


def rotation_limit(rotation: Rotation, patch: Triple) -> float:
    """Return the largest angle in degrees: 30, or 180 in the plane, or 15 for a single slice that is long."""
    if rotation.degrees != "auto":
        return rotation.degrees
    if not in_plane(patch):
        return 30.0
    plane = patch[1:]
    return 15.0 if patch[0] == 1 and max(plane) / min(plane) > LONG else 180.0


def mirror(volume: NDArray[np.float32], axes: Sequence[int]) -> NDArray[np.float32]:
    """Flip (C, D, H, W) along axes of (D, H, W)."""
    return np.flip(volume, tuple(1 + axis for axis in axes))


def affine(angles: NDArray[np.float64], factor: float, *, plane: bool) -> Matrix:
    """Return the rotation about D, then H, then W, of offsets scaled by a factor; `plane` keeps D as it is."""
    cos, sin = np.cos(angles), np.sin(angles)
    about_d = np.array([[1, 0, 0], [0, cos[0], -sin[0]], [0, sin[0], cos[0]]])
    if plane:
        return about_d @ np.diag([1, factor, factor])
    about_h = np.array([[cos[1], 0, sin[1]], [0, 1, 0], [-sin[1], 0, cos[1]]])
    about_w = np.array([[cos[2], -sin[2], 0], [sin[2], cos[2], 0], [0, 0, 1]])
    turned: Matrix = about_w @ about_h @ about_d @ (np.eye(3) * factor)
    return turned


def box_around(affines: Sequence[Matrix], *, patch: Triple, limit_degrees: float) -> Triple:
    """Return the box (D, H, W) that holds what the turned and scaled patches show, with the patch's parity.

    It is at most the patch turned by the limit about one axis, over 0.85, as nnU-Net cuts it always.
    """
    shown = np.max([np.abs(matrix) @ np.array(patch) for matrix in affines], axis=0) + 2  # voxels beside the last
    wide = _turned(patch, math.radians(limit_degrees))
    needed = [min(math.ceil(size), math.ceil(most / LARGEST_SCALE)) for size, most in zip(shown, wide, strict=True)]
    flat = [patch[0] if in_plane(patch) else needed[0], *needed[1:]]
    sizes = [max(size, own) for size, own in zip(flat, patch, strict=True)]
    depth, height, width = (size + (size - own) % 2 for size, own in zip(sizes, patch, strict=True))
    return depth, height, width


def _turned(patch: Triple, limit: float) -> list[float]:
    """Return the largest extent of each axis when a patch is turned about one axis by at most the limit."""

    def extent(own: int, other: int) -> float:
        angle = min(limit, math.atan2(other, own))  # where the diagonal lies along the axis
        return own * math.cos(angle) + other * math.sin(angle)

    pairs = [(1, 2)] if in_plane(patch) else [(0, 1), (0, 2), (1, 2)]
    extents = [float(size) for size in patch]
    for one, other in pairs:
        extents[one] = max(extents[one], extent(patch[one], patch[other]))
        extents[other] = max(extents[other], extent(patch[other], patch[one]))
    return extents


def resample(
    images: Tensor, labels: Tensor, affines: Sequence[Matrix], *, patch: Triple, classes: int
) -> tuple[Tensor, Tensor]:
    """Show boxes through affines: images (M, C, *box) and labels (M, 1, *box) to both of the patch's size.

    Beyond the box images are 0 and labels OUTSIDE, which becomes 0 in the result. A voxel's label is the class with
    the largest linear share, the lower one of equals.
    """
    theta = torch.from_numpy(_theta(affines, patch=patch, box=images.shape[2:])).to(images.device, images.dtype)
    grid = functional.affine_grid(theta, [len(images), 1, *patch], align_corners=False)
    channels = images.shape[1]
    best, chosen, total = images.new_zeros(()), labels.new_zeros(()), images.new_zeros(())
    for first in range(OUTSIDE, classes, CLASSES_AT_ONCE):
        values = torch.arange(first, min(first + CLASSES_AT_ONCE, classes), device=labels.device)
        shares = (labels == values.view(1, -1, 1, 1, 1)).to(images.dtype)  # (M, k, *box)
        together = torch.cat([images, shares], 1) if first == OUTSIDE else shares
        shown = functional.grid_sample(together, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        if first == OUTSIDE:
            seen, shown = shown[:, :channels], shown[:, channels:]
        total = total + shown.sum(1, keepdim=True)
        largest, place = shown.max(1, keepdim=True)  # (M, 1, *patch)
        chosen = torch.where(largest > best, values[place].to(labels.dtype), chosen)
        best = torch.maximum(best, largest)
    chosen = torch.where(1 - total > best, 0, chosen).clamp_(min=0)
    return seen, chosen


def _theta(affines: Sequence[Matrix], *, patch: Triple, box: Sequence[int]) -> NDArray[np.float64]:
    """Return the affines as `affine_grid` takes them: (M, 3, 4), between -1 and 1, axes from W to D."""
    theta = np.zeros((len(affines), 3, 4))
    for row, matrix in zip(theta, affines, strict=True):
        row[:, :3] = (np.diag(2 / np.array(box)) @ matrix @ np.diag(np.array(patch) / 2))[::-1, ::-1]
    return theta
