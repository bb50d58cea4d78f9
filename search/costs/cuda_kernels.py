"""Run operators on tensors without data, with the memory layouts and workspaces of CUDA kernels.

The rules describe an H100 with torch 2.11 and cuDNN 9.19, measured per operator by tests/gpu/check.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from search.costs.quick_meta import run_on_meta
from search.costs.quick_norms import group_statistics

ATEN = torch.ops.aten
ROWS = torch.contiguous_format
FEW_CHANNELS = 64


def run_empty_as_cuda(func: Any, args: Any, kwargs: Any, *, given: Any) -> Any:
    """Run an operator on `meta` tensors, by a rule of RULES if CUDA kernels produce another layout."""
    rule = RULES.get(func.overloadpacket)
    return rule(func, args) if rule else run_on_meta(func, args, kwargs)


def workspace_bytes(func: Any, args: Any, out: Any) -> int:
    """Return the bytes that the operator allocates while it runs, beyond its inputs and results."""
    rule = WORKSPACES.get(func.overloadpacket)
    return rule(args, out) if rule else 0


def _convolution(func: Any, args: Any) -> Tensor:
    out: Tensor = run_on_meta(func, args, {}).contiguous(memory_format=_convolution_format(args[0], args[1]))
    return out


def _convolution_backward(func: Any, args: Any) -> tuple[Tensor | None, ...]:
    format = _convolution_format(args[1], args[2])
    *gradients, bias = run_on_meta(func, args, {})  # of image, weight and bias
    return (*(each if each is None else each.contiguous(memory_format=format) for each in gradients), bias)


def _convolution_format(image: Tensor, weight: Tensor) -> torch.memory_format:
    """Return channels last if the image or the weight has this layout."""
    formats = {_format(each) for each in (image, weight)} - {ROWS}
    return formats.pop() if formats else ROWS


def _format(image: Tensor) -> torch.memory_format:
    """Return channels last if a tensor has this layout and is not row-major too; strides of size-1 axes don't count."""
    last = {4: torch.channels_last, 5: torch.channels_last_3d}.get(image.dim())
    if last is None or image.is_contiguous() or not image.is_contiguous(memory_format=last):
        return ROWS
    return last


def _max_pool(func: Any, args: Any) -> tuple[Tensor, Tensor]:
    format = _format(args[0])
    pooled, indices = run_on_meta(func, args, {})
    return pooled.contiguous(memory_format=format), indices.contiguous(memory_format=format)


def _max_pool_backward(func: Any, args: Any) -> Tensor:
    out: Tensor = run_on_meta(func, args, {}).contiguous(memory_format=_format(args[1]))
    return out


def _max_pool_backward_workspace(args: Any, out: Any) -> int:
    return _copies(args[:1], _format(args[1]))


def _group_norm(func: Any, args: Any) -> tuple[Tensor, Tensor, Tensor]:
    image, _, _, batch, _, _, groups, _ = args
    return image.new_empty(image.shape), *group_statistics(image, batch, groups)


def _group_norm_backward(func: Any, args: Any) -> tuple[Tensor | None, ...]:
    gradient, image, _, _, weight, _, channels, _, _, requested = args
    scales = (image.new_empty((channels,), dtype=None if weight is None else weight.dtype) for _ in range(2))
    gradients = (image.new_empty(image.shape, dtype=gradient.dtype), *scales)
    return tuple(each if wanted else None for each, wanted in zip(gradients, requested, strict=True))


def _upsample(func: Any, args: Any) -> Tensor:
    image, size = args[:2]
    out: Tensor = image.new_empty((*image.shape[:2], *size)).contiguous(memory_format=_format(image))
    return out


def _row_major(func: Any, args: Any) -> Tensor:
    """Return a row-major result for any input layout."""
    out: Tensor = func(*args).contiguous()
    return out


def _upsample_backward_like_gradient(func: Any, args: Any) -> Tensor:
    out: Tensor = func(*args).contiguous(memory_format=_format(args[0]))
    return out


def _copies(tensors: Sequence[Any], format: torch.memory_format = ROWS) -> int:
    """Return the bytes of copies of the tensors that are not in this format."""
    return sum(
        each.numel() * each.element_size()
        for each in tensors
        if isinstance(each, Tensor) and each.dim() > 1 and not each.is_contiguous(memory_format=format)
    )


def _convolution_workspace(args: Any, out: Any) -> int:
    image, weight = args[:2]
    padded = _padded_bytes(image) if image.shape[1] > 1 and image.shape[1] % _multiple(image) else 0
    return _copies((image, weight), _convolution_format(image, weight)) + padded


def _convolution_backward_workspace(args: Any, out: Any) -> int:
    """Return the bytes of copies into one layout, and of cuDNN's own copies of gradient and image.

    cuDNN copies them if volumes are row-major, if the channels are no multiple of 4 (8 in half precision), and in
    float32 if there are at most FEW_CHANNELS. The rule is fitted to 674 convolutions; with more channels, cuDNN's
    heuristics go either way.
    """
    gradient, image, weight = args[:3]
    format = _convolution_format(image, weight)
    own = _padded_bytes(gradient) + _padded_bytes(image)
    uneven = image.shape[1] % _multiple(image) or gradient.shape[1] % _multiple(image)
    few = image.dtype == torch.float32 and image.shape[1] <= FEW_CHANNELS
    kernel = weight[0, 0].numel()
    rearranged = format == ROWS or (kernel > 1 and (uneven or few))
    return _copies((gradient, image, weight), format) + (own if rearranged else 0)


def _multiple(image: Tensor) -> int:
    """Return the number that tensor cores require channels to be a multiple of."""
    return 4 if image.dtype == torch.float32 else 8


def _padded_bytes(image: Tensor) -> int:
    channels, multiple = image.shape[1], _multiple(image)
    return image.numel() // channels * -(-channels // multiple) * multiple * image.element_size()


def _efficient_attention_workspace(args: Any, out: Any) -> int:
    """Return the bytes of the queries' gradient in float32, with the head width padded to a multiple of 64."""
    query = args[1]
    return int(query.numel() // query.shape[-1] * -(-query.shape[-1] // 64) * 64 * 4)


def _flash_attention_workspace(args: Any, out: Any) -> int:
    """Return the bytes of the queries' gradient in float32, with a head width of at least 32."""
    query = args[1]
    return int(query.numel() // query.shape[-1] * max(32, query.shape[-1]) * 4)


def _through_rows(args: Any, out: Any) -> int:
    """Return the bytes of row-major copies of the first input and of the results."""
    return _copies([args[0], *(out if isinstance(out, tuple | list) else [out])])


def _inputs_as_rows(args: Any, out: Any) -> int:
    return _copies(args[:2])


def _input_as_rows(args: Any, out: Any) -> int:
    return _copies(args[:1])


def _softmax_backward_workspace(args: Any, out: Any) -> int:
    """Return the bytes of the product of gradient and result."""
    gradient = args[0]
    return int(gradient.numel() * gradient.element_size())


RULES: dict[Any, Callable[[Any, Any], Any]] = {
    ATEN.convolution: _convolution,
    ATEN.convolution_backward: _convolution_backward,
    ATEN.native_group_norm: _group_norm,
    ATEN.native_group_norm_backward: _group_norm_backward,
    ATEN.upsample_trilinear3d: _upsample,
    ATEN.upsample_nearest3d: _upsample,
    ATEN.upsample_linear1d: _upsample,
    ATEN.upsample_bilinear2d: _upsample,
    ATEN.upsample_trilinear3d_backward: _upsample_backward_like_gradient,
    ATEN.upsample_nearest3d_backward: _row_major,
    ATEN.max_pool3d_with_indices: _max_pool,
    ATEN.max_pool3d_with_indices_backward: _max_pool_backward,
    ATEN.avg_pool3d: _row_major,
    ATEN.avg_pool3d_backward: _row_major,
    ATEN._softmax: _row_major,
    ATEN._log_softmax: _row_major,
}
WORKSPACES: dict[Any, Callable[[Any, Any], int]] = {
    ATEN.convolution: _convolution_workspace,
    ATEN.convolution_backward: _convolution_backward_workspace,
    ATEN.native_group_norm_backward: _inputs_as_rows,
    ATEN.upsample_trilinear3d: _through_rows,
    ATEN.upsample_nearest3d: _through_rows,
    ATEN.upsample_trilinear3d_backward: _through_rows,
    ATEN.upsample_nearest3d_backward: _through_rows,
    ATEN.max_pool3d_with_indices_backward: _max_pool_backward_workspace,
    ATEN.avg_pool3d: _input_as_rows,
    ATEN.avg_pool3d_backward: _input_as_rows,
    ATEN._softmax: _input_as_rows,
    ATEN._log_softmax: _input_as_rows,
    ATEN._softmax_backward_data: _softmax_backward_workspace,
    ATEN.native_layer_norm: _input_as_rows,
    ATEN.native_layer_norm_backward: _inputs_as_rows,
    ATEN._scaled_dot_product_efficient_attention_backward: _efficient_attention_workspace,
    ATEN._scaled_dot_product_flash_attention_backward: _flash_attention_workspace,
}
