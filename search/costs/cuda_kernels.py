"""Operators on tensors that hold nothing, with the layouts and the workspaces of CUDA's kernels.

Read off an H100 with torch 2.11 and cuDNN 9.19, operator by operator (tests/gpu/check.py notes them).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

ATEN = torch.ops.aten
ROWS = torch.contiguous_format
FEW_CHANNELS = 64


def run_empty_as_cuda(func: Any, args: Any, kwargs: Any, *, given: Any) -> Any:
    """Run an operator on `meta` tensors; where a CUDA kernel makes other layouts, by a rule."""
    rule = RULES.get(func.overloadpacket)
    return rule(func, args) if rule else func(*args, **kwargs)


def workspace_bytes(func: Any, args: Any, out: Any) -> int:
    """Return the bytes that the operator holds beside its inputs and results while it runs."""
    rule = WORKSPACES.get(func.overloadpacket)
    return rule(args, out) if rule else 0


def _convolution(func: Any, args: Any) -> Tensor:
    made: Tensor = func(*args).contiguous(memory_format=_convolution_format(args[0], args[1]))
    return made


def _convolution_backward(func: Any, args: Any) -> tuple[Tensor | None, ...]:
    format = _convolution_format(args[1], args[2])
    *weighty, bias = func(*args)
    return (*(each if each is None else each.contiguous(memory_format=format) for each in weighty), bias)


def _convolution_format(image: Tensor, weight: Tensor) -> torch.memory_format:
    """Return channels last where the image or the weight lies so."""
    formats = {_format(each) for each in (image, weight)} - {ROWS}
    return formats.pop() if formats else ROWS


def _format(image: Tensor) -> torch.memory_format:
    """Return channels last where a tensor lies so and not also row-major; strides of single items don't count."""
    last = {4: torch.channels_last, 5: torch.channels_last_3d}.get(image.dim())
    if last is None or image.is_contiguous() or not image.is_contiguous(memory_format=last):
        return ROWS
    return last


def _max_pool(func: Any, args: Any) -> tuple[Tensor, Tensor]:
    format = _format(args[0])
    pooled, indices = func(*args)
    return pooled.contiguous(memory_format=format), indices.contiguous(memory_format=format)


def _max_pool_backward(func: Any, args: Any) -> Tensor:
    made: Tensor = func(*args).contiguous(memory_format=_format(args[1]))
    return made


def _max_pool_backward_workspace(args: Any, out: Any) -> int:
    return _copies(args[:1], _format(args[1]))


def _group_norm(func: Any, args: Any) -> tuple[Tensor, Tensor, Tensor]:
    out, mean, deviation = func(*args)
    return torch.empty_like(args[0], dtype=out.dtype, memory_format=ROWS), mean, deviation


def _group_norm_backward(func: Any, args: Any) -> tuple[Tensor | None, ...]:
    gradient, image, _, _, weight, _, channels, _, _, asked = args
    scale = image.new_empty((channels,)) if weight is None else torch.empty_like(weight)
    made = (torch.empty_like(image, dtype=gradient.dtype, memory_format=ROWS), scale, torch.empty_like(scale))
    return tuple(each if wanted else None for each, wanted in zip(made, asked, strict=True))


def _upsample(func: Any, args: Any) -> Tensor:
    image, size = args[:2]
    made: Tensor = image.new_empty((*image.shape[:2], *size)).contiguous(memory_format=_format(image))
    return made


def _row_major(func: Any, args: Any) -> Tensor:
    """Make a row-major result, whatever the layout of the input."""
    made: Tensor = func(*args).contiguous()
    return made


def _upsample_backward_like_gradient(func: Any, args: Any) -> Tensor:
    made: Tensor = func(*args).contiguous(memory_format=_format(args[0]))
    return made


def _copies(tensors: Sequence[Any], format: torch.memory_format = ROWS) -> int:
    """Return the bytes of copies of those that don't lie in a format."""
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
    """Copies to one layout, and beside them those that cuDNN makes of gradient and image for its own kernels.

    It makes them where the volumes are row-major, where channels don't come in fours (eights in half precision), and
    in float32 where there are few of them. Fitted to 674 convolutions; above, its heuristics go either way.
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
    """Return what the tensor cores want channels to be a multiple of."""
    return 4 if image.dtype == torch.float32 else 8


def _padded_bytes(image: Tensor) -> int:
    channels, multiple = image.shape[1], _multiple(image)
    return image.numel() // channels * -(-channels // multiple) * multiple * image.element_size()


def _efficient_attention_workspace(args: Any, out: Any) -> int:
    """The queries' gradient in float32, of heads at least 64 wide."""
    query = args[1]
    return int(query.numel() // query.shape[-1] * -(-query.shape[-1] // 64) * 64 * 4)


def _flash_attention_workspace(args: Any, out: Any) -> int:
    """The queries' gradient in float32, of heads at least 32 wide."""
    query = args[1]
    return int(query.numel() // query.shape[-1] * max(32, query.shape[-1]) * 4)


def _through_rows(args: Any, out: Any) -> int:
    """The kernel works on row-major copies of its first input and of its result."""
    return _copies([args[0], *(out if isinstance(out, tuple | list) else [out])])


def _inputs_as_rows(args: Any, out: Any) -> int:
    return _copies(args[:2])


def _input_as_rows(args: Any, out: Any) -> int:
    return _copies(args[:1])


def _softmax_backward_workspace(args: Any, out: Any) -> int:
    """The product of gradient and result."""
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
