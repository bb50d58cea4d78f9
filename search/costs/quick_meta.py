"""Results of common operators on `meta` tensors, without torch's slow functions in Python.

Each rule covers a case in which the result is unambiguous, and leaves the others to torch. Elementwise operators are
laid out by torch's own iterator in C++.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

META = torch.device("meta")
ATEN = torch.ops.aten
NUMBER = torch.empty((), device=META)


def run_on_meta(func: Any, args: Any, kwargs: Any) -> Any:
    """Run an operator on `meta` tensors, by a rule of QUICK if one applies."""
    rule = QUICK.get(func)
    result = rule(*args, **kwargs) if rule else None
    return func(*args, **kwargs) if result is None else result


def _arithmetic(one: Any, other: Any, **kwargs: Any) -> Tensor | None:
    """Broadcast two tensors, or a tensor and a number."""
    tensors = [each for each in (one, other) if isinstance(each, Tensor)]
    if not all(_floating(each) for each in tensors):
        return None
    return _elementwise(tensors[0], tensors[1] if len(tensors) > 1 else NUMBER, torch.result_type(one, other))


def _activation(image: Tensor, *options: Any, **kwargs: Any) -> Tensor | None:
    return _elementwise(image, image, image.dtype) if _floating(image) else None


def _activation_backward(gradient: Tensor, image: Tensor, *options: Any, **kwargs: Any) -> Tensor | None:
    if not (_same_layout(gradient, image) and gradient.dtype == image.dtype and _floating(image)):
        return None
    return _elementwise(gradient, image, image.dtype)


def _elementwise(one: Tensor, other: Tensor, dtype: torch.dtype) -> Tensor:
    out: Tensor = ATEN.silu_backward(one, other)  # the one of two tensors whose `meta` kernel is in C++
    return out if out.dtype == dtype else torch.empty_strided(out.shape, out.stride(), dtype=dtype, device=META)


def _filled(image: Tensor, **kwargs: Any) -> Tensor | None:
    """Keep the layout of a dense tensor."""
    if kwargs.get("memory_format") not in (None, torch.preserve_format) or kwargs.get("dtype") or not _dense(image):
        return None
    return _like(image)


def _product(one: Tensor, other: Tensor) -> Tensor | None:
    """Multiply batches of matrices."""
    if one.dtype != other.dtype:
        return None
    return torch.empty((one.shape[0], one.shape[1], other.shape[2]), dtype=one.dtype, device=META)


def _norm(
    tensor: Tensor, order: Any = 2, dim: Any = None, keepdim: bool = False, *, dtype: Any = None
) -> Tensor | None:
    """Reduce all elements to one."""
    if dim is not None or keepdim or dtype is not None:
        return None
    return torch.empty((), dtype=tensor.dtype, device=META)


def _layer_norm(image: Tensor, shape: Any, weight: Any, bias: Any, eps: float) -> tuple[Tensor, ...] | None:
    if not _plain(image):
        return None
    outer = (*image.shape[: -len(shape)], *[1] * len(shape))
    return _like(image), torch.empty(outer, device=META), torch.empty(outer, device=META)


def _layer_norm_backward(
    gradient: Tensor, image: Tensor, shape: Any, mean: Any, deviation: Any, weight: Any, bias: Any, requested: Any
) -> tuple[Tensor | None, ...] | None:
    if not (_plain(gradient) and _plain(image)) or weight is None or bias is None:
        return None
    return tuple(_like(each) if wanted else None for each, wanted in zip((image, weight, bias), requested, strict=True))


def _group_norm(
    image: Tensor, weight: Any, bias: Any, batch: int, channels: int, pixels: int, groups: int, eps: float
) -> tuple[Tensor, ...] | None:
    if not _plain(image):
        return None
    return _like(image), torch.empty((batch, groups), device=META), torch.empty((batch, groups), device=META)


def _floating(tensor: Tensor) -> bool:
    return tensor.device == META and tensor.is_floating_point()


def _plain(tensor: Tensor) -> bool:
    return tensor.dtype == torch.float32 and tensor.is_contiguous()


def _same_layout(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and one.stride() == other.stride()


def _dense(tensor: Tensor) -> bool:
    """Return whether a tensor is row-major after some permutation of its axes longer than 1."""
    expected = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size != 1:
            if stride != expected:
                return False
            expected *= size
    return True


def _like(tensor: Tensor) -> Tensor:
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=META)


QUICK: dict[Any, Callable[..., Any]] = {
    **dict.fromkeys((ATEN.add.Tensor, ATEN.sub.Tensor, ATEN.mul.Tensor, ATEN.div.Tensor), _arithmetic),
    **dict.fromkeys((ATEN.add.Scalar, ATEN.sub.Scalar, ATEN.mul.Scalar, ATEN.div.Scalar), _arithmetic),
    **dict.fromkeys((ATEN.relu.default, ATEN.leaky_relu.default, ATEN.elu.default, ATEN.gelu.default), _activation),
    **dict.fromkeys((ATEN.silu.default, ATEN.sigmoid.default, ATEN.tanh.default, ATEN.exp.default), _activation),
    ATEN.gelu_backward.default: _activation_backward,
    ATEN.leaky_relu_backward.default: _activation_backward,
    ATEN.sigmoid_backward.default: _activation_backward,
    ATEN.tanh_backward.default: _activation_backward,
    ATEN.threshold_backward.default: _activation_backward,
    ATEN.empty_like.default: _filled,
    ATEN.ones_like.default: _filled,
    ATEN.zeros_like.default: _filled,
    ATEN.bmm.default: _product,
    ATEN.linalg_vector_norm.default: _norm,
    ATEN.native_layer_norm.default: _layer_norm,
    ATEN.native_layer_norm_backward.default: _layer_norm_backward,
    ATEN.native_group_norm.default: _group_norm,
}
