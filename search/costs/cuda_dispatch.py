"""CUDA's autocast, dropout and attention for abstract tensors, without a GPU or its driver.

Above autograd, torch selects these by the tensor's device, and a tensor with a CUDA device needs a driver. Therefore
abstract GPU tensors stay on the CPU and carry a dispatch key that no CPU tensor has (autocast of an out-of-tree
device). The operators that behave differently on CUDA are registered under this key; other tensors never reach them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch._C import DispatchKey, DispatchKeySet, _ExcludeDispatchKeyGuard

NAME = "AutocastPrivateUse1"
KEY = DispatchKeySet(DispatchKey.AutocastPrivateUse1)  # type: ignore[attr-defined]
AUTOCAST = KEY.add(DispatchKey.AutocastCPU)
ATEN = torch.ops.aten

IN_FLOAT32 = (  # CUDA's autocast casts their arguments to float32, the CPU's doesn't
    "layer_norm",
    "native_layer_norm",
    "group_norm",
    "softmax.int",
    "log_softmax.int",
    "sum",
    "sum.dim_IntList",
    "linalg_vector_norm",
    "norm.ScalarOpt_dim",
    "exp",
    "log",
    "pow.Tensor_Scalar",
    "pow.Scalar",
    "reciprocal",
    "rsqrt",
    "softplus",
    "cumsum",
    "cosine_similarity",
    "upsample_nearest3d",
    "upsample_linear1d",
    "upsample_bilinear2d",
    "upsample_trilinear3d",
)
WITHOUT_CAST = (  # the CPU's autocast casts their arguments to float32, CUDA's doesn't
    "avg_pool3d",
    "max_pool3d",
    "adaptive_avg_pool3d",
    "adaptive_max_pool3d",
    "reflection_pad1d",
    "reflection_pad2d",
    "replication_pad1d",
    "replication_pad2d",
    "replication_pad3d",
)


@contextmanager
def as_on_cuda() -> Iterator[None]:
    """Treat tensors that carry KEY as GPU tensors within the context."""
    _register()
    torch.set_autocast_enabled("privateuseone", True)
    try:
        yield
    finally:
        torch.set_autocast_enabled("privateuseone", False)


@cache
def _register() -> tuple[Any, Any]:
    """Register the operators that behave differently on CUDA; the cache keeps the libraries alive."""
    rest: Any = torch.library.Library("_", "IMPL", NAME)  # type: ignore[no-untyped-call]
    rest.fallback(torch.library.fallthrough_kernel, NAME)
    library: Any = torch.library.Library("aten", "IMPL", NAME)  # type: ignore[no-untyped-call]
    for name in IN_FLOAT32:
        library.impl(name, _casting(_operator(name)), NAME)
    for name in WITHOUT_CAST:
        library.impl(name, _without_cast(_operator(name)), NAME)
    library.impl("dropout", _dropout, NAME)
    library.impl("scaled_dot_product_attention", _attention, NAME)
    return rest, library


def _operator(name: str) -> Any:
    packet, _, overload = name.partition(".")
    return getattr(getattr(ATEN, packet), overload or "default")


def _casting(operator: Any) -> Callable[..., Any]:
    """Return an implementation that casts to float32 if autocast is enabled."""

    def run(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_autocast_enabled("cpu"):
            with _ExcludeDispatchKeyGuard(KEY):
                return operator(*args, **kwargs)
        with _ExcludeDispatchKeyGuard(AUTOCAST):
            return operator(*(_to_float32(each) for each in args), **kwargs)

    return run


def _to_float32(value: Any) -> Any:
    lower = isinstance(value, Tensor) and value.dtype in (torch.bfloat16, torch.float16)
    return value.float() if lower else value


def _without_cast(operator: Any) -> Callable[..., Any]:
    """Return an implementation that bypasses autocast."""

    def run(*args: Any, **kwargs: Any) -> Any:
        with _ExcludeDispatchKeyGuard(AUTOCAST):
            return operator(*args, **kwargs)

    return run


def _dropout(image: Tensor, probability: float, train: bool) -> Tensor:
    """Apply CUDA's fused dropout, which keeps a mask of one byte per element."""
    with _ExcludeDispatchKeyGuard(KEY):
        if train and 0 < probability < 1 and image.numel():
            dropped: Tensor = ATEN.native_dropout(image, probability, train)[0]
            return dropped
        return torch.dropout(image, probability, train)


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Apply the attention kernel that a recent GPU selects: fused if the head width allows it, else plain.

    Half precision allows widths up to 256, padded to a multiple of 8; float32 only multiples of 4.
    """
    if torch.is_autocast_enabled("cpu"):
        query, key, value = (each.to(torch.bfloat16) for each in (query, key, value))
    width = query.shape[-1]
    fits = query.dim() == 4 and width == value.shape[-1] and attn_mask is None
    half = query.dtype in (torch.bfloat16, torch.float16) and width <= 256
    with torch.autocast("cpu", enabled=False):
        if fits and (half or width % 4 == 0):
            return _fused_attention(query, key, value, dropout_p, is_causal, scale, flash=half)
        plain: Tensor = ATEN._scaled_dot_product_attention_math(
            query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
        )[0]
        return plain


def _fused_attention(
    query: Tensor, key: Tensor, value: Tensor, dropout: float, causal: bool, scale: float | None, *, flash: bool
) -> Tensor:
    width = query.shape[-1]
    scale = width**-0.5 if scale is None else scale
    if not flash:
        learns = query.requires_grad or key.requires_grad or value.requires_grad
        efficient: Tensor = ATEN._scaled_dot_product_efficient_attention(
            query, key, value, None, learns, dropout, causal, scale=scale
        )[0]
        return efficient
    missing = -width % 8
    if missing:
        query, key, value = (torch.nn.functional.pad(each, (0, missing)) for each in (query, key, value))
    attended: Tensor = ATEN._scaled_dot_product_flash_attention(query, key, value, dropout, causal, False, scale=scale)[
        0
    ]
    return attended[..., :width]
