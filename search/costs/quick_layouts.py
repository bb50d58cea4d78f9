"""Tests of layouts, and results of elementwise operators, for tensors on the `meta` device."""

from __future__ import annotations

import torch
from torch import Tensor

META = torch.device("meta")


def elementwise(one: Tensor, other: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the result of an elementwise operator on two tensors, laid out by torch's own iterator."""
    out: Tensor = torch.ops.aten.silu_backward(one, other)  # the one of two tensors whose `meta` kernel is in C++
    return out if out.dtype == dtype else torch.empty_strided(out.shape, out.stride(), dtype=dtype, device=META)


def floating(tensor: Tensor) -> bool:
    """Return whether a tensor is a floating-point one on the `meta` device."""
    return tensor.device == META and tensor.is_floating_point()


def plain(tensor: Tensor) -> bool:
    """Return whether a tensor is a row-major one in float32."""
    return tensor.dtype == torch.float32 and tensor.is_contiguous()


def same_layout(one: Tensor, other: Tensor) -> bool:
    """Return whether two tensors have the same size and strides."""
    return one.shape == other.shape and one.stride() == other.stride()


def dense(tensor: Tensor) -> bool:
    """Return whether a tensor is row-major after some permutation of its axes longer than 1."""
    expected = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size != 1:
            if stride != expected:
                return False
            expected *= size
    return True


def like(tensor: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Return a tensor of the same size and strides, by default also of the same dtype."""
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=dtype or tensor.dtype, device=META)


def suggested_format(image: Tensor) -> torch.memory_format:
    """Return channels last if the strides are so ordered, also where an axis of length 1 would allow row-major.

    torch's own function in Python imports a system of symbolic algebra, which takes half a second.
    """
    format = {4: torch.channels_last, 5: torch.channels_last_3d}.get(image.dim())
    shape, strides = image.shape, image.stride()
    if format is None or strides[1] == 0:
        return torch.contiguous_format
    least = 0
    for axis in (1, *range(image.dim() - 1, 1, -1), 0):
        if shape[axis] == 0 or strides[axis] < least or (axis == 0 and least == strides[1]):
            return torch.contiguous_format
        least = strides[axis] * max(1, shape[axis])
    return format
