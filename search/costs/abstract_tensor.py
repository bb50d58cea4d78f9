"""A tensor without values: size, strides and dtype, and a storage whose bytes are counted while it is alive."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from search.costs.cuda_dispatch import KEY

CPU = torch.device("cpu")
_MAKE: Any = torch.Tensor._make_wrapper_subclass


@dataclass(frozen=True, eq=False)
class Spec:
    """Size, strides and dtype; `spec_of` returns the same object for equal ones, hence comparing takes no time."""

    size: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype


@cache
def spec_of(size: tuple[int, ...], stride: tuple[int, ...], dtype: torch.dtype) -> Spec:
    """Return the only Spec with these values."""
    return Spec(size, stride, dtype)


@dataclass
class ByteCount:
    """Bytes of live storages, now and at the peak."""

    live_bytes: int = 0
    peak_bytes: int = 0


class Storage:
    """An abstract allocation, shared by its views; its bytes count until the last view is deleted."""

    __slots__ = ("count", "size_bytes")

    def __init__(self, size_bytes: int, count: ByteCount) -> None:
        self.size_bytes, self.count = size_bytes, count
        live_bytes = count.live_bytes = count.live_bytes + size_bytes
        if live_bytes > count.peak_bytes:
            count.peak_bytes = live_bytes

    def __del__(self) -> None:
        self.count.live_bytes -= self.size_bytes


class AbstractTensor(torch.Tensor):
    """A CPU tensor's size, strides and dtype; created by AbstractTensors."""

    spec: Spec
    storage_shared: Storage

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Raise ValueError: only AbstractTensors can run operators on abstract tensors."""
        raise ValueError(f"{func} ran on abstract tensors outside of AbstractTensors")

    @property
    def data(self) -> Any:
        """The tensor without its gradient; assigning another tensor replaces size, strides and storage."""
        return torch.Tensor.data.__get__(self)  # type: ignore[attr-defined]

    @data.setter
    def data(self, other: Any) -> None:
        torch.Tensor.data.__set__(self, other)  # type: ignore[attr-defined]
        self.spec, self.storage_shared = other.spec, other.storage_shared

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return f"{type(self).__name__}({tuple(self.shape)}, {self.dtype})"


class AbstractCudaTensor(AbstractTensor):
    """An abstract GPU tensor: `is_cuda` and a dispatch key mark it, while its device is the CPU (see cuda_dispatch)."""

    is_cuda = property(lambda self: True)
    is_cpu = property(lambda self: False)


def create_on_cpu(spec: Spec, storage: Storage) -> AbstractTensor:
    """Return a new abstract CPU tensor."""
    tensor: AbstractTensor = _MAKE(AbstractTensor, spec.size, strides=spec.stride, dtype=spec.dtype, device=CPU)
    tensor.spec, tensor.storage_shared = spec, storage
    return tensor


def create_on_cuda(spec: Spec, storage: Storage) -> AbstractTensor:
    """Return a new abstract GPU tensor."""
    tensor: AbstractTensor = _MAKE(
        AbstractCudaTensor, spec.size, strides=spec.stride, dtype=spec.dtype, device=CPU, _extra_dispatch_keys=KEY
    )
    tensor.spec, tensor.storage_shared = spec, storage
    return tensor
