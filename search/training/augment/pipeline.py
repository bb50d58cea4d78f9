"""Intensity augmentation of a batch in nnU-Net's order; each transform runs once, on all affected channels."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from search.training.augment import intensity
from search.training.augment.parameters import Parameters
from search.training.augment.spatial import only_in_plane


def change_intensities(images: Tensor, drawn: Sequence[Parameters]) -> Tensor:
    """Apply each sample's drawn intensity transforms to a batch (B, C, D, H, W), in place."""
    for number, each in enumerate(drawn):
        if each.noise is not None:
            std, seed = each.noise
            images[number] = intensity.noise(images[number], std=std, seed=seed)
    shape = images.shape[2:]
    plane = only_in_plane((shape[0], shape[1], shape[2]))

    def blur(x: Tensor, sigmas: NDArray[np.float64]) -> Tensor:
        return _along_axes(x, intensity.blur_operators(sigmas, shape))

    def low_resolution(x: Tensor, factors: NDArray[np.float64]) -> Tensor:
        return _along_axes(x, intensity.low_resolution_operators(factors, shape, spare_first=plane))

    _apply(images, [each.blur for each in drawn], blur)
    _apply(images, [each.brightness for each in drawn], _with_values(intensity.brightness))
    _apply(images, [each.contrast for each in drawn], _with_values(intensity.contrast))
    _apply(images, [each.low_resolution for each in drawn], low_resolution)
    _apply(images, [each.gamma_inverted for each in drawn], _with_values(intensity.gamma_inverted))
    _apply(images, [each.gamma for each in drawn], _with_values(intensity.gamma))
    return images


def _apply(
    images: Tensor,
    values: Sequence[NDArray[np.float64] | None],
    change: Callable[[Tensor, NDArray[np.float64]], Tensor],
) -> None:
    """Apply a transform, in place, to the rows (one channel of one sample each) that have parameters."""
    channels = images.shape[1]
    indices, parameters = [], []
    for sample, each in enumerate(values):
        for channel, value in enumerate(() if each is None else each):
            if not np.isnan(value).any():
                indices.append(sample * channels + channel)
                parameters.append(value)
    if not indices:
        return
    rows = images.view(-1, *images.shape[2:])
    chosen = torch.tensor(indices, device=images.device)
    rows[chosen] = change(rows[chosen], np.array(parameters))


def _with_values(change: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, NDArray[np.float64]], Tensor]:
    """Wrap a transform so that it takes its parameters as a NumPy array."""
    return lambda x, values: change(x, torch.from_numpy(values).to(x.device, x.dtype))


def _along_axes(x: Tensor, operators: Sequence[NDArray[np.float32]]) -> Tensor:
    return intensity.along_axes(x, [torch.from_numpy(each).to(x.device, x.dtype) for each in operators])
