"""Run operators on tensors without data, with the memory layouts that CPU kernels produce."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from search.costs.quick_layouts import dense, like
from search.costs.quick_meta import run_on_meta
from search.costs.quick_norms import group_statistics

ATEN = torch.ops.aten


def run_empty(func: Any, args: Any, kwargs: Any, *, given: Any) -> Any:
    """Run an operator on `meta` tensors; by a rule of RULES if CPU kernels differ in layout or `meta` is slow.

    `given` holds the same arguments as tensors that report a CPU device.
    """
    rule = RULES.get(func.overloadpacket)
    return rule(func, args, given) if rule else run_on_meta(func, args, kwargs)


def _convolution(func: Any, args: Any, given: Any) -> Tensor:
    image, weight, bias, *how = given
    format = _backend_format(image, weight, None if bias is None else bias.shape, how)
    out: Tensor = run_on_meta(func, args, {}).contiguous(memory_format=format)
    return out


def _convolution_backward(func: Any, args: Any, given: Any) -> tuple[Tensor | None, ...]:
    _, image, weight, bias_sizes, *how, _ = given
    format = _backend_format(image, weight, bias_sizes, how)
    *gradients, bias = run_on_meta(func, args, {})  # of image, weight and bias
    return (*(each if each is None else each.contiguous(memory_format=format) for each in gradients), bias)


def _backend_format(image: Tensor, weight: Tensor, bias_sizes: Sequence[int] | None, how: Any) -> torch.memory_format:
    """Return the output layout of the CPU backend that torch would select."""
    if weight.dim() < 4:
        return torch.contiguous_format
    names = ("stride", "padding", "dilation", "transposed", "output_padding", "groups")
    backend = torch._C._select_conv_backend(
        image, weight, bias=None, bias_sizes=bias_sizes, **dict(zip(names, how, strict=True))
    )
    return torch._C._conv_determine_backend_memory_format(image, weight, backend)


def _attention_kernel(func: Any, args: Any, given: Any) -> Any:
    """Select the CPU's attention kernel without Python dispatch; the choice depends on sizes only."""
    with torch._C._DisableTorchDispatch():
        return func(*given)


def _group_norm(func: Any, args: Any, given: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Keep the input's layout: `meta` returns contiguous tensors, and later copies depend on the layout."""
    image, _, _, batch, _, _, groups, _ = args
    return _empty_like(image, image.dtype), *group_statistics(image, batch, groups)


def _group_norm_backward(func: Any, args: Any, given: Any) -> tuple[Tensor | None, ...]:
    """Return the requested gradients of input, weight and bias."""
    gradient, image, _, _, weight, _, channels, _, _, requested = args
    scales = (image.new_empty((channels,), dtype=None if weight is None else weight.dtype) for _ in range(2))
    gradients = (_empty_like(image, gradient.dtype), *scales)
    return tuple(each if wanted else None for each, wanted in zip(gradients, requested, strict=True))


def _empty_like(image: Tensor, dtype: torch.dtype) -> Tensor:
    return like(image, dtype) if dense(image) else torch.empty_like(image, dtype=dtype)


RULES: dict[Any, Callable[[Any, Any, Any], Any]] = {
    ATEN.convolution: _convolution,
    ATEN.convolution_backward: _convolution_backward,
    ATEN._fused_sdp_choice: _attention_kernel,
    ATEN.native_group_norm: _group_norm,
    ATEN.native_group_norm_backward: _group_norm_backward,
}
