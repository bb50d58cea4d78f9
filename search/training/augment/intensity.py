"""Intensity transforms: pure functions of rows (one channel of one sample each) and one parameter per row.

Shapes: x is (N, D, H, W) and parameters are (N,) unless stated otherwise. Inputs are never modified.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

TINY = 1e-7
REACH = 3.0  # truncation radius of the Gaussian, in sigmas


def noise(x: Tensor, *, std: float, seed: int) -> Tensor:
    """Add Gaussian noise to one sample (C, D, H, W); the same seed gives other values on another device type."""
    generator = torch.Generator(x.device).manual_seed(seed)
    return x + std * torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)


def brightness(x: Tensor, factor: Tensor) -> Tensor:
    """Multiply the intensities by a factor."""
    return x * _column(factor)


def contrast(x: Tensor, factor: Tensor) -> Tensor:
    """Scale the intensities about their mean, clipped to the original range."""
    flat = x.flatten(1)
    low, high = (_column(bound) for bound in torch.aminmax(flat, dim=1))
    mean = _column(flat.mean(1))
    return torch.minimum(torch.maximum((x - mean) * _column(factor) + mean, low), high)


def gamma(x: Tensor, exponent: Tensor) -> Tensor:
    """Rescale to [0, 1], raise to a power, then restore range, mean and standard deviation."""
    flat = x.flatten(1)
    low, high = torch.aminmax(flat, dim=1, keepdim=True)
    span = high - low
    changed = ((flat - low) / span.clamp(min=TINY)) ** exponent[:, None] * span + low
    ratio = _std(flat) / _std(changed).clamp(min=TINY)
    kept = (changed - changed.mean(1, keepdim=True)) * ratio + flat.mean(1, keepdim=True)
    return kept.view_as(x)


def gamma_inverted(x: Tensor, exponent: Tensor) -> Tensor:
    """Apply `gamma` to the negated image and negate the result."""
    return -gamma(-x, exponent)


def along_axes(x: Tensor, operators: Sequence[Tensor]) -> Tensor:
    """Apply linear operators along the axes: (N, D, D) along D, (N, H, H) along H, (N, W, W) along W."""
    rows, depth, height, width = x.shape
    along_d, along_h, along_w = operators
    x = along_d @ x.reshape(rows, depth, height * width)  # (N, D, H * W)
    x = along_h[:, None] @ x.view(rows, depth, height, width)  # (N, D, H, W)
    return x @ along_w[:, None].mT


def blur_operators(sigmas: NDArray[np.float64], shape: Sequence[int]) -> list[NDArray[np.float32]]:
    """Return the operators of a Gaussian blur with reflecting borders, for sigmas (N, 3) in voxels."""
    found = []
    for axis, size in enumerate(shape):
        reach = int(np.ceil(REACH * sigmas[:, axis].max()))
        offsets = np.arange(-reach, reach + 1)
        weights = np.exp(-0.5 * (offsets / sigmas[:, axis, None]) ** 2)
        weights /= weights.sum(1, keepdims=True)
        sources = np.pad(np.arange(size), reach, mode="reflect")
        operators = np.zeros((len(sigmas), size, size), dtype=np.float32)
        for number, weight in enumerate(weights.T):
            operators[:, np.arange(size), sources[number : number + size]] += weight[:, None]
        found.append(operators)
    return found


def low_resolution_operators(
    factors: NDArray[np.float64], shape: Sequence[int], *, spare_first: bool
) -> list[NDArray[np.float32]]:
    """Return the operators that downsample by nearest neighbour and upsample linearly, for factors (N,) of the size.

    `spare_first` leaves D at its resolution.
    """
    found = []
    for axis, size in enumerate(shape):
        sizes = [size if spare_first and axis == 0 else max(1, round(size * factor)) for factor in factors.tolist()]
        found.append(np.stack([_down_and_up(size, reduced) for reduced in sizes]))
    return found


def _down_and_up(size: int, reduced: int) -> NDArray[np.float32]:
    """Return the operator (size, size) of one axis: torch's interpolations applied to the unit vectors."""
    units = torch.eye(size)[None]
    small = functional.interpolate(units, reduced, mode="nearest-exact")
    back = functional.interpolate(small, size, mode="linear", align_corners=False)[0]
    columns: NDArray[np.float32] = back.T.contiguous().numpy()
    return columns


def _std(flat: Tensor) -> Tensor:
    """Return the standard deviation of each row, 0 for a single voxel."""
    return flat.std(1, keepdim=True, correction=min(1, flat.shape[1] - 1))


def _column(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)
