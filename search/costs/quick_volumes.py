"""Results on `meta` tensors of convolutions, pooling and resizing (see quick_meta)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from search.costs.quick_layouts import suggested_format

ATEN = torch.ops.aten


def _convolution(
    image: Tensor,
    weight: Tensor,
    bias: Any,
    strides: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    added: Sequence[int],
    groups: int,
) -> Tensor | None:
    """Return a row-major result, as torch does; None unless each axis has its own stride, and for an error."""
    sizes, kernel = image.shape[2:], weight.shape[2:]
    if not len(sizes) == len(strides) == len(padding) == len(dilation):
        return None
    reach = [step * (size - 1) for step, size in zip(dilation, kernel, strict=True)]
    margins = [reached - 2 * pad for reached, pad in zip(reach, padding, strict=True)]
    if transposed:
        grown = zip(sizes, strides, margins, added, strict=True)
        inner = [(size - 1) * stride + margin + more + 1 for size, stride, margin, more in grown]
        channels = groups * weight.shape[1]
    else:
        inner = [
            (size - margin - 1) // stride + 1 for size, stride, margin in zip(sizes, strides, margins, strict=True)
        ]
        channels = weight.shape[0]
    if min(inner) < 1 or (weight.shape[0] if transposed else weight.shape[1] * groups) != image.shape[1]:
        return None
    return image.new_empty((image.shape[0], channels, *inner))


def _convolution_backward(gradient: Tensor, image: Tensor, weight: Tensor, bias_sizes: Any, *options: Any) -> Any:
    """Return the requested gradients, channels last if the image or the weight is."""
    formats = {suggested_format(image), suggested_format(weight)} - {torch.contiguous_format}
    format = formats.pop() if formats else torch.contiguous_format
    shapes = (image.shape, weight.shape, bias_sizes)
    first, second, third = (
        gradient.new_empty(shape) if wanted else None for shape, wanted in zip(shapes, options[-1], strict=True)
    )
    return *(each if each is None else each.to(memory_format=format) for each in (first, second)), third


def _resized(image: Tensor, size: Sequence[int], *options: Any) -> Tensor:
    """Return the requested size in the input's layout."""
    resized = image.new_empty((*image.shape[:2], *size))
    return resized.contiguous(memory_format=suggested_format(image))


def _resized_to_nearest(image: Tensor, size: Sequence[int], *options: Any) -> Tensor:
    resized = image.new_empty((*image.shape[:2], *size))
    return resized.to(memory_format=suggested_format(image))


def _max_pool(
    image: Tensor,
    kernel: Sequence[int],
    strides: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    dilation: Sequence[int] = (1,),
    ceil: bool = False,
) -> tuple[Tensor, Tensor] | None:
    """Return maxima and their positions; None unless each axis has its own settings, and for an error."""
    if image.dim() != 5 or not len(kernel) == len(strides) == len(padding) == len(dilation) == 3:
        return None
    axes = zip(image.shape[2:], kernel, strides, padding, dilation, strict=True)
    inner = [_pooled(*each, ceil=ceil) for each in axes]
    if min(inner) < 1:
        return None
    shape, format = (*image.shape[:2], *inner), suggested_format(image)
    maxima, positions = (image.new_empty(shape, dtype=dtype) for dtype in (image.dtype, torch.int64))
    return maxima.to(memory_format=format), positions.to(memory_format=format)


def _pooled(size: int, kernel: int, stride: int, padding: int, dilation: int, *, ceil: bool) -> int:
    """Return the size after pooling; with `ceil` a window may reach over the end, but must begin inside."""
    reach = size + 2 * padding - dilation * (kernel - 1) - 1
    count = (reach + (stride - 1 if ceil else 0)) // stride + 1
    return count - 1 if ceil and (count - 1) * stride >= size + padding else count


def _max_pool_backward(gradient: Tensor, image: Tensor, *options: Any) -> Tensor:
    return image.new_empty(image.shape).to(memory_format=suggested_format(image))


VOLUMES: dict[Any, Callable[..., Any]] = {
    ATEN.convolution.default: _convolution,
    ATEN.convolution_backward.default: _convolution_backward,
    **dict.fromkeys((ATEN.upsample_nearest3d.default, ATEN._upsample_nearest_exact3d.default), _resized_to_nearest),
    **dict.fromkeys((ATEN.upsample_linear1d.default, ATEN.upsample_bilinear2d.default), _resized),
    ATEN.upsample_trilinear3d.default: _resized,
    ATEN.max_pool3d_with_indices.default: _max_pool,
    ATEN.max_pool3d_with_indices_backward.default: _max_pool_backward,
}
