"""Results of norms on `meta` tensors, without torch's slow functions in Python (see quick_meta)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from search.costs.quick_layouts import META, dense, elementwise, like, plain, same_layout

SINGLE_STATISTICS = (torch.float32, torch.bfloat16)  # dtypes whose statistics are float32


def layer_norm(image: Tensor, shape: Any, weight: Any, bias: Any, eps: float) -> tuple[Tensor, ...] | None:
    """Normalise the last axes; the result is row-major."""
    if image.dtype != torch.float32:
        return None
    outer = (*image.shape[: -len(shape)], *[1] * len(shape))
    return (
        like(image) if plain(image) else image.new_empty(image.shape),
        torch.empty(outer, device=META),
        torch.empty(outer, device=META),
    )


def layer_norm_backward(
    gradient: Tensor, image: Tensor, shape: Any, mean: Any, deviation: Any, weight: Any, bias: Any, requested: Any
) -> tuple[Tensor | None, ...] | None:
    """Return the requested gradients of `layer_norm`."""
    single = gradient.dtype == image.dtype == torch.float32 and dense(gradient) and dense(image)
    missing = any(wanted and each is None for each, wanted in zip((weight, bias), requested[1:], strict=True))
    if not single or missing or (weight is None and not same_layout(gradient, image)):
        return None
    of_image = elementwise(gradient, image, image.dtype) if requested[0] else None
    return of_image, *(
        like(each) if wanted else None for each, wanted in zip((weight, bias), requested[1:], strict=True)
    )


def group_norm(
    image: Tensor, weight: Any, bias: Any, batch: int, channels: int, pixels: int, groups: int, eps: float
) -> tuple[Tensor, ...] | None:
    """Normalise groups of channels."""
    return (like(image), *group_statistics(image, batch, groups)) if plain(image) else None


def group_statistics(image: Tensor, batch: int, groups: int) -> tuple[Tensor, Tensor]:
    """Return the mean and the deviation of each group of channels."""
    mean, deviation = (torch.empty((batch, groups), dtype=image.dtype, device=META) for _ in range(2))
    return mean, deviation


def batch_norm(
    image: Tensor, weight: Any, bias: Any, mean: Any, variance: Any, training: bool, momentum: float, eps: float
) -> tuple[Tensor, ...] | None:
    """Normalise channels over the batch."""
    if not (image.dtype in SINGLE_STATISTICS and dense(image)):
        return None
    return elementwise(image, image, image.dtype), *_of_channels(image, torch.float32)


def batch_norm_backward(
    gradient: Tensor,
    image: Tensor,
    weight: Any,
    mean: Any,
    variance: Any,
    saved_mean: Any,
    saved_deviation: Any,
    training: bool,
    eps: float,
    requested: Any,
) -> tuple[Tensor, ...] | None:
    """Return the gradients of `batch_norm`, if all are requested."""
    plain_case = all(requested) and weight is not None and image.dtype in SINGLE_STATISTICS
    if not (plain_case and gradient.dtype == image.dtype and dense(gradient) and dense(image)):
        return None
    return elementwise(gradient, image, image.dtype), *_of_channels(image, weight.dtype)


def _of_channels(image: Tensor, dtype: torch.dtype) -> list[Tensor]:
    return [torch.empty(image.shape[1:2], dtype=dtype, device=META) for _ in range(2)]
