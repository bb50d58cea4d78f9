"""Results of common operators on `meta` tensors, without torch's slow functions in Python.

Each rule covers a case in which the result is unambiguous, and leaves the others to torch. Elementwise operators are
laid out by torch's own iterator in C++. At the first use of one of those functions, torch imports sympy, and for some
also its compiler: 0.4 and 0.9 s.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from search.costs.quick_layouts import META, dense, elementwise, floating, like, suggested_format
from search.costs.quick_norms import batch_norm, batch_norm_backward, group_norm, layer_norm, layer_norm_backward
from search.costs.quick_rows import ROWS
from search.costs.quick_volumes import VOLUMES

ATEN = torch.ops.aten
NUMBER = torch.empty((), device=META)


def run_on_meta(func: Any, args: Any, kwargs: Any) -> Any:
    """Run an operator on `meta` tensors, by a rule of QUICK if one applies."""
    rule = QUICK.get(func)
    result = rule(*args, **kwargs) if rule else None
    return func(*args, **kwargs) if result is None else result


def _arithmetic(one: Any, other: Any, *options: Any, **kwargs: Any) -> Tensor | None:
    """Broadcast two tensors, or a tensor and a number."""
    if not floating(one) or (isinstance(other, Tensor) and other.device != META):
        return None
    return elementwise(one, _as_floating(other), torch.result_type(one, other))


def _whole_arithmetic(one: Any, other: Any, **kwargs: Any) -> Tensor | None:
    """Add, subtract or multiply also int64 tensors, with one another or with whole numbers."""
    whole = one.dtype == torch.int64 and getattr(other, "dtype", type(other)) in (torch.int64, int)
    if not whole or one.device != META or (isinstance(other, Tensor) and other.device != META):
        return _arithmetic(one, other, **kwargs)
    return elementwise(_as_floating(one), _as_floating(other), torch.int64)


def _added_product(image: Tensor, one: Tensor, other: Tensor, **kwargs: Any) -> Tensor | None:
    """Add a product of two tensors, the first of which has the size of the result."""
    if not image.dtype == one.dtype == other.dtype or not floating(image):
        return None
    shape = np.broadcast_shapes(image.shape, one.shape, other.shape)
    return elementwise(image, one, image.dtype) if shape == one.shape else None


def _where(condition: Tensor, one: Tensor, other: Tensor) -> Tensor | None:
    """Select from a tensor and a single value."""
    if condition.device != META or not floating(one) or one.dtype != other.dtype or other.dim():
        return None
    return elementwise(_as_floating(condition), one, one.dtype) if condition.shape == one.shape else None


def _as_floating(other: Any) -> Tensor:
    """Return a floating-point tensor with the layout of a tensor, or of a number's."""
    if not isinstance(other, Tensor):
        return NUMBER
    return other if other.is_floating_point() else like(other, NUMBER.dtype)


def _comparison(one: Tensor, other: Any) -> Tensor | None:
    """Compare two tensors, or a tensor and a number."""
    if one.device != META or (isinstance(other, Tensor) and other.device != META):
        return None
    return elementwise(_as_floating(one), _as_floating(other), torch.bool)


def _activation(image: Tensor, *options: Any, **kwargs: Any) -> Tensor | None:
    return elementwise(image, image, image.dtype) if floating(image) else None


def _activation_backward(gradient: Tensor, image: Tensor, *options: Any, **kwargs: Any) -> Tensor | None:
    same = gradient.shape == image.shape and gradient.dtype == image.dtype
    return elementwise(gradient, image, image.dtype) if same else None


def _step_backward(gradient: Tensor, image: Tensor, *options: Any, **kwargs: Any) -> Tensor | None:
    """Return the gradient of an activation with a kink, laid out as the image."""
    return _activation_backward(image, gradient) if dense(image) else None


def _filled(image: Tensor, **kwargs: Any) -> Tensor | None:
    """Keep the layout of a dense tensor."""
    if kwargs.get("memory_format") not in (None, torch.preserve_format) or kwargs.get("dtype") or not dense(image):
        return None
    return like(image)


def _trimmed(image: Tensor, pads: Sequence[int], value: Any = 0) -> Tensor | None:
    """Pad by negative numbers: cut off the ends of some axes, and copy."""
    if max(pads, default=1) > 0 or not floating(image):
        return None
    for back, (start, end) in enumerate(zip(pads[::2], pads[1::2], strict=True), start=1):
        image = image.narrow(-back, -start, image.shape[-back] + start + end)
    return elementwise(image, image, image.dtype)


def _joined(images: Sequence[Tensor], axis: int = 0) -> Tensor | None:
    """Concatenate; the result is channels last if all tensors are."""
    first = images[0]
    if not first.dim() or any(each.dim() != first.dim() or each.dtype != first.dtype for each in images):
        return None
    formats = {suggested_format(each) for each in images}
    format = formats.pop() if len(formats) == 1 else torch.contiguous_format
    shape = list(first.shape)
    shape[axis] = sum(each.shape[axis] for each in images)
    return torch.empty(shape, dtype=first.dtype, device=META, memory_format=format)


def _attention(query: Tensor, key: Tensor, value: Tensor, *options: Any, **kwargs: Any) -> Any:
    """Return the attended values and the logarithms of the sums of exponentials."""
    if query.dtype != torch.float32:
        return None
    batch, heads, tokens, _ = query.shape
    attended = like(query) if dense(query) else elementwise(query, query, query.dtype)
    return attended, torch.empty((batch, tokens, heads), device=META).transpose(1, 2)


def _into(*inputs: Any, out: Tensor, **kwargs: Any) -> Tensor | None:
    """Return the tensor that takes the results, if it has their size and dtype."""
    tensors = [each for each in inputs if isinstance(each, Tensor)]
    fits = all(each.dtype == out.dtype and floating(each) for each in tensors)
    shape = np.broadcast_shapes(*(each.shape for each in tensors))
    return out if fits and shape == out.shape else None


COMPARISONS = (ATEN.eq, ATEN.ne, ATEN.gt, ATEN.ge, ATEN.lt, ATEN.le)
QUICK: dict[Any, Callable[..., Any]] = {
    **ROWS,
    **VOLUMES,
    **dict.fromkeys((ATEN.add.Tensor, ATEN.sub.Tensor, ATEN.mul.Tensor), _whole_arithmetic),
    ATEN.div.Tensor: _arithmetic,
    ATEN.addcmul.default: _added_product,
    ATEN.where.self: _where,
    **dict.fromkeys((ATEN.add.Scalar, ATEN.sub.Scalar, ATEN.mul.Scalar, ATEN.div.Scalar), _arithmetic),
    **dict.fromkeys((ATEN.relu.default, ATEN.leaky_relu.default, ATEN.elu.default, ATEN.gelu.default), _activation),
    **dict.fromkeys((ATEN.silu.default, ATEN.sigmoid.default, ATEN.tanh.default, ATEN.exp.default), _activation),
    **dict.fromkeys((ATEN.neg.default, ATEN.sqrt.default, ATEN.reciprocal.default, ATEN.rsub.Scalar), _activation),
    **dict.fromkeys((ATEN.clamp.default, ATEN.clamp_min.default), _activation),
    **dict.fromkeys((kind.Tensor for kind in COMPARISONS), _comparison),
    **dict.fromkeys((kind.Scalar for kind in COMPARISONS), _comparison),
    ATEN.gelu_backward.default: _activation_backward,
    ATEN.leaky_relu_backward.default: _step_backward,
    ATEN.sigmoid_backward.default: _activation_backward,
    ATEN.tanh_backward.default: _activation_backward,
    ATEN.threshold_backward.default: _step_backward,
    ATEN.empty_like.default: _filled,
    ATEN.ones_like.default: _filled,
    ATEN.zeros_like.default: _filled,
    ATEN.randn_like.default: _filled,
    ATEN.cat.default: _joined,
    ATEN.constant_pad_nd.default: _trimmed,
    **dict.fromkeys((ATEN.add.out, ATEN.mul.out, ATEN.addcmul.out), _into),
    ATEN._scaled_dot_product_flash_attention_for_cpu.default: _attention,
    ATEN.native_layer_norm.default: layer_norm,
    ATEN.native_layer_norm_backward.default: layer_norm_backward,
    ATEN.native_group_norm.default: group_norm,
    ATEN.native_batch_norm.default: batch_norm,
    ATEN.native_batch_norm_backward.default: batch_norm_backward,
}
