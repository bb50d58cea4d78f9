"""Results on `meta` tensors of operators that return row-major tensors (see quick_meta)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from search.costs.quick_layouts import META, elementwise, floating, like, suggested_format

ATEN = torch.ops.aten


def _rows(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    return torch.empty(shape, dtype=dtype, device=META)


def _matrix_product(one: Tensor, other: Tensor) -> Tensor | None:
    return _rows((one.shape[0], other.shape[1]), one.dtype) if one.dtype == other.dtype else None


def _batch_product(one: Tensor, other: Tensor) -> Tensor | None:
    return _rows((one.shape[0], one.shape[1], other.shape[2]), one.dtype) if one.dtype == other.dtype else None


def _added_product(bias: Tensor, one: Tensor, other: Tensor, **kwargs: Any) -> Tensor | None:
    """Multiply matrices and add a row."""
    if not (bias.dtype == one.dtype == other.dtype and floating(one) and bias.dim() == 1):
        return None
    return _rows((one.shape[0], other.shape[1]), one.dtype)


def _stacked(images: Sequence[Tensor], axis: int = 0) -> Tensor | None:
    """Stack row-major tensors that are not also channels last."""
    first = images[0]
    if any(each.dtype != first.dtype or not each.is_contiguous() for each in images):
        return None
    if any(suggested_format(each) != torch.contiguous_format for each in images):
        return None
    shape = list(first.shape)
    shape.insert(axis % (first.dim() + 1), len(images))
    return _rows(shape, first.dtype)


def _added_batch_product(bias: Tensor, one: Tensor, other: Tensor, **kwargs: Any) -> Tensor | None:
    return _batch_product(one, other) if bias.dtype == one.dtype else None


def _norm(
    tensor: Tensor, order: Any = 2, dim: Any = None, keepdim: bool = False, *, dtype: Any = None
) -> Tensor | None:
    """Reduce all elements to one."""
    if dim is not None or keepdim or dtype is not None:
        return None
    return _rows((), tensor.dtype)


def _reduced(image: Tensor, axes: Any = (), keep: bool = False, **kwargs: Any) -> Tensor | None:
    """Reduce given axes."""
    if not (floating(image) and axes):
        return None
    axes = {axis % image.dim() for axis in axes}
    sizes = [1 if axis in axes else size for axis, size in enumerate(image.shape) if keep or axis not in axes]
    return _rows(sizes, kwargs.get("dtype") or image.dtype)


def _sum(image: Tensor, axes: Any, keep: bool = False, **kwargs: Any) -> Tensor | None:
    """Sum over given axes; whole numbers become int64."""
    if image.device != META or image.is_floating_point() or kwargs.get("dtype"):
        return _reduced(image, axes, keep, **kwargs)
    summed = _reduced(like(image, torch.float32), axes, keep)
    return None if summed is None else like(summed, torch.int64)


def _position(image: Tensor, axis: int | None = None, keep: bool = False) -> Tensor | None:
    """Return the positions of maxima along an axis."""
    found = None if axis is None else _reduced(image, [axis], keep)
    return None if found is None else like(found, torch.int64)


def _scattered(image: Tensor, *options: Any) -> Tensor:
    return _rows(image.shape, image.dtype)


def _mean(image: Tensor, **kwargs: Any) -> Tensor | None:
    return None if kwargs or not floating(image) else _rows((), image.dtype)


def _gathered(image: Tensor, axis: int, index: Tensor, **kwargs: Any) -> Tensor:
    return _rows(index.shape, image.dtype)


def _of_part(gradient: Tensor, sizes: Sequence[int], *part: Any) -> Tensor:
    """Return the gradient of a tensor of which a part was taken."""
    return _rows(sizes, gradient.dtype)


def _softmax(image: Tensor, axis: int, to_float: bool) -> Tensor | None:
    return None if to_float or not image.is_floating_point() else _rows(image.shape, image.dtype)


def _safe_softmax(image: Tensor, axis: int, dtype: torch.dtype | None = None) -> Tensor | None:
    return _softmax(image, axis, False) if dtype is None else None


def _softmax_backward(gradient: Tensor, out: Tensor, axis: int, dtype: torch.dtype) -> Tensor | None:
    if not gradient.dtype == out.dtype == dtype == torch.float32:
        return None
    return elementwise(gradient, out, dtype).contiguous()


def _entropy(logits: Tensor, labels: Tensor, weight: Any, reduction: int, ignored: int) -> tuple[Tensor, Tensor]:
    """Return the negative log likelihood, per voxel if it isn't reduced, and the total weight."""
    return _rows(() if reduction else labels.shape, logits.dtype), _rows((), logits.dtype)


def _entropy_backward(gradient: Tensor, logits: Tensor, *options: Any) -> Tensor | None:
    return _rows(logits.shape, logits.dtype) if logits.is_contiguous() else None


ROWS: dict[Any, Callable[..., Any]] = {
    ATEN.mm.default: _matrix_product,
    ATEN.bmm.default: _batch_product,
    ATEN.addmm.default: _added_product,
    ATEN.baddbmm.default: _added_batch_product,
    ATEN.stack.default: _stacked,
    ATEN.linalg_vector_norm.default: _norm,
    ATEN.sum.dim_IntList: _sum,
    ATEN.amax.default: _reduced,
    ATEN.argmax.default: _position,
    ATEN.scatter_add.default: _scattered,
    ATEN.mean.default: _mean,
    ATEN.gather.default: _gathered,
    ATEN.select_backward.default: _of_part,
    ATEN.slice_backward.default: _of_part,
    **dict.fromkeys((ATEN._softmax.default, ATEN._log_softmax.default), _softmax),
    **dict.fromkeys((ATEN._softmax_backward_data.default, ATEN._log_softmax_backward_data.default), _softmax_backward),
    ATEN._safe_softmax.default: _safe_softmax,
    ATEN.nll_loss2d_forward.default: _entropy,
    ATEN.nll_loss2d_backward.default: _entropy_backward,
}
