"""Changes of intensity: pure functions of rows, one channel of one sample each, and of a value for each row.

Shapes: x is (N, D, H, W) and parameters are (N,) unless said otherwise. Nothing is changed in place.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

TINY = 1e-7
REACH = 3.0  # sigmas on each side of a blurred voxel


def noise(x: Tensor, *, std: float, seed: int) -> Tensor:
    """Add Gaussian noise to one sample (C, D, H, W); a seed's field differs between kinds of device."""
    generator = torch.Generator(x.device).manual_seed(seed)
    return x + std * torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)


def brightness(x: Tensor, factor: Tensor) -> Tensor:
    """Multiply."""
    return x * _column(factor)


def contrast(x: Tensor, factor: Tensor) -> Tensor:
    """Stretch around the mean, within the range that there was."""
    flat = x.flatten(1)
    low, high = (_column(bound) for bound in torch.aminmax(flat, dim=1))
    mean = _column(flat.mean(1))
    return torch.minimum(torch.maximum((x - mean) * _column(factor) + mean, low), high)


def gamma(x: Tensor, exponent: Tensor) -> Tensor:
    """Raise the intensities, brought between 0 and 1, to a power; mean and standard deviation are kept."""
    flat = x.flatten(1)
    low, high = torch.aminmax(flat, dim=1, keepdim=True)
    span = high - low
    changed = ((flat - low) / span.clamp(min=TINY)) ** exponent[:, None] * span + low
    ratio = _std(flat) / _std(changed).clamp(min=TINY)
    kept = (changed - changed.mean(1, keepdim=True)) * ratio + flat.mean(1, keepdim=True)
    return kept.view_as(x)


def gamma_inverted(x: Tensor, exponent: Tensor) -> Tensor:
    """As `gamma`, on the inverted image."""
    return -gamma(-x, exponent)


def along_axes(x: Tensor, operators: Sequence[Tensor]) -> Tensor:
    """Apply a linear operator (N, n, n) along each of D, H and W."""
    rows, depth, height, width = x.shape
    along_d, along_h, along_w = operators
    x = along_d @ x.reshape(rows, depth, height * width)  # (N, D, H * W)
    x = along_h[:, None] @ x.view(rows, depth, height, width)  # (N, D, H, W)
    return x @ along_w[:, None].mT


def blur_operators(sigmas: NDArray[np.float64], shape: Sequence[int]) -> list[NDArray[np.float32]]:
    """Return, for sigmas (N, 3) in voxels, the operators of a Gaussian blur reflected at the border."""
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
    """Return the operators that reduce by nearest neighbour and enlarge linearly, for factors of the size (N,)."""
    found = []
    for axis, size in enumerate(shape):
        sizes = [size if spare_first and axis == 0 else max(1, round(size * factor)) for factor in factors.tolist()]
        found.append(np.stack([_there_and_back(size, reduced) for reduced in sizes]))
    return found


def _there_and_back(size: int, reduced: int) -> NDArray[np.float32]:
    """Return the operator (size, size) of a line, worked out by torch's own interpolation of unit lines."""
    units = torch.eye(size)[None]
    small = functional.interpolate(units, reduced, mode="nearest-exact")
    back = functional.interpolate(small, size, mode="linear", align_corners=False)[0]
    columns: NDArray[np.float32] = back.T.contiguous().numpy()
    return columns


def _std(flat: Tensor) -> Tensor:
    """Return the standard deviation of each row; a single voxel has none, so 0."""
    return flat.std(1, keepdim=True, correction=min(1, flat.shape[1] - 1))


def _column(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)
