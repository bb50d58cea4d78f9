"""Abstract tensors: size, strides and dtype without values; operators allocate nothing, but bytes are counted."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, ClassVar

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from search.costs.cuda_dispatch import KEY, as_on_cuda
from search.costs.cuda_kernels import run_empty_as_cuda, workspace_bytes
from search.costs.empty import run_empty
from search.costs.quick_meta import META

Spec = tuple[tuple[int, ...], tuple[int, ...], torch.dtype]  # size, strides, dtype


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
        count.live_bytes += size_bytes
        count.peak_bytes = max(count.peak_bytes, count.live_bytes)

    def __del__(self) -> None:
        self.count.live_bytes -= self.size_bytes


class AbstractTensor(torch.Tensor):
    """A CPU tensor's size, strides and dtype; created by AbstractTensors."""

    storage_shared: Storage

    @staticmethod
    def __new__(cls, spec: Spec, storage: Storage) -> AbstractTensor:  # noqa: D102
        size, stride, dtype = spec
        tensor: AbstractTensor = torch.Tensor._make_wrapper_subclass(cls, size, strides=stride, dtype=dtype, device=CPU)
        tensor.storage_shared = storage
        return tensor

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Raise ValueError: only AbstractTensors can run operators on abstract tensors."""
        raise ValueError(f"{func} ran on abstract tensors outside of AbstractTensors")

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return f"{type(self).__name__}({tuple(self.shape)}, {self.dtype})"


class AbstractCudaTensor(AbstractTensor):
    """An abstract GPU tensor: `is_cuda` and a dispatch key mark it, while its device is the CPU (see cuda_dispatch)."""

    @staticmethod
    def __new__(cls, spec: Spec, storage: Storage) -> AbstractCudaTensor:  # noqa: D102
        size, stride, dtype = spec
        tensor: AbstractCudaTensor = torch.Tensor._make_wrapper_subclass(
            cls, size, strides=stride, dtype=dtype, device=CPU, _extra_dispatch_keys=KEY
        )
        tensor.storage_shared = storage
        return tensor

    is_cuda = property(lambda self: True)
    is_cpu = property(lambda self: False)


CPU = torch.device("cpu")
MAX_KNOWN = 200_000  # cached results, a few hundred megabytes


@dataclass(frozen=True)
class TensorResult:
    """One tensor that an operator returns: in a new storage, or a view of the tensor argument with this number."""

    spec: Spec
    argument: int | None
    storage: int
    size_bytes: int


@dataclass(frozen=True)
class Results:
    """The results of an operator: TensorResults and plain values, in a `sequence` type or single (None).

    `workspace_bytes` are allocated only while the operator runs.
    """

    items: tuple[Any, ...]
    sequence: type | None
    workspace_bytes: int


class AbstractTensors(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A context in which new tensors are abstract and the live bytes of their storages are counted.

    The results of an operator depend only on sizes, strides and dtypes. They are determined once per process, with the
    layouts of CPU kernels (empty.py), and cached: ten times faster than torch's fake tensors, which compute them at
    every call. Tensors of known values (`torch.tensor`, `arange`, `linspace`) stay real, since code reads their values,
    and are not counted. With `cuda`, operators and autocast behave as on a GPU; none needs to be present.
    """

    known: ClassVar[dict[tuple[Any, ...], Results]] = {}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Return False: nothing is compiled in the context, and torch's wrapper against it takes time at every call."""
        return False

    def __init__(self, *, cuda: bool = False) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count, self.cuda = ByteCount(), cuda
        self.contexts: list[ExitStack] = []
        self.kind: type[AbstractTensor] = AbstractCudaTensor if cuda else AbstractTensor

    def __enter__(self) -> AbstractTensors:
        self.contexts.append(ExitStack())
        if len(self.contexts) == 1:  # a composite operator enters its mode again
            self.contexts[0].enter_context(paused_collector())
            if self.cuda:
                self.contexts[0].enter_context(as_on_cuda())
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        self.contexts.pop().close()

    @property
    def peak_bytes(self) -> int:
        """The maximum of the live bytes since the start or `restart_peak`."""
        return self.count.peak_bytes

    def restart_peak(self) -> None:
        """Reset the peak to the bytes that are live now."""
        self.count.peak_bytes = self.count.live_bytes

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Return the operator's results without running it."""
        kwargs = kwargs or {}
        kind = _kind(func)
        if kind == "in place":
            return args[0]
        if kind == "nothing":
            return None
        if kind == "composite":
            with self:
                return func.decompose(*args, **kwargs)
        tensors: list[torch.Tensor] = []
        key: tuple[Any, ...] = (func, self.cuda, _key(args, tensors))
        if kwargs:
            key = (*key, *kwargs, _key(kwargs.values(), tensors))
        if kind == "series" or (tensors and not any(isinstance(each, AbstractTensor) for each in tensors)):
            return func(*args, **kwargs)
        results = self.known.get(key)
        if results is None:
            if len(self.known) > MAX_KNOWN:
                self.known.clear()
            results = self.known[key] = _learn(func, args, kwargs, cuda=self.cuda)
        return self._instantiate(results, tensors)

    def _instantiate(self, results: Results, tensors: Sequence[torch.Tensor]) -> Any:
        """Create the results as abstract tensors; those with equal storage numbers share a storage."""
        storages: dict[int, Storage] = {}
        created = []
        for item in results.items:
            if isinstance(item, TensorResult):
                if item.argument is not None:
                    shared = tensors[item.argument]  # a view of a real tensor adds no bytes
                    storage = shared.storage_shared if isinstance(shared, AbstractTensor) else Storage(0, self.count)
                elif item.storage in storages:
                    storage = storages[item.storage]
                else:
                    storage = storages[item.storage] = Storage(item.size_bytes, self.count)
                item = self.kind(item.spec, storage)
            created.append(item)
        self.count.peak_bytes = max(self.count.peak_bytes, self.count.live_bytes + results.workspace_bytes)
        return created[0] if results.sequence is None else results.sequence(created)


@contextmanager
def paused_collector() -> Iterator[None]:
    """Pause the collector of reference cycles, which would visit the cached results again and again."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@cache
def _kind(func: Any) -> str:
    """Classify an operator: `series` runs for real, `composite` is decomposed, `learned` runs once per signature.

    The results of `nothing` and `in place` follow from the schema.
    """
    schema = func._schema
    if func.overloadpacket in SERIES:
        return "series"
    has_kernel = partial(torch._C._dispatch_has_kernel_for_dispatch_key, func.name())
    if has_kernel("CompositeImplicitAutograd") and not has_kernel("CPU"):
        return "composite"
    if not schema.returns:
        return "nothing"
    first = schema.arguments[0].alias_info if schema.arguments else None
    if first is not None and first.is_write and schema.name.endswith("_"):
        if func.overloadpacket in RESHAPED:
            raise ValueError(f"{func} changes a tensor's size in place, which abstract tensors don't support")
        return "in place"
    return "learned"


ATEN = torch.ops.aten
SERIES = (ATEN.arange, ATEN.linspace)
RESHAPED = (
    ATEN.resize_,
    ATEN.set_,
    ATEN.squeeze_,
    ATEN.unsqueeze_,
    ATEN.t_,
    ATEN.transpose_,
    ATEN.as_strided_,
    ATEN.swapdims_,
)


def _key(values: Iterable[Any], tensors: list[torch.Tensor]) -> tuple[Any, ...]:
    """Return the parts of arguments that determine the results; append their tensors to `tensors`."""
    parts: list[Any] = []
    for value in values:
        kind = type(value)
        if kind is int or kind is bool or value is None:
            parts.append(value)
        elif isinstance(value, torch.Tensor):
            tensors.append(value)
            parts.append((value.shape, value.stride(), value.dtype, isinstance(value, AbstractTensor)))
        elif isinstance(value, list | tuple):
            parts.append(_key(value, tensors))
        else:
            parts.append((value, float) if kind is float else value)  # 1 == 1.0, but the result dtypes differ
    return tuple(parts)


def _learn(func: Any, args: Any, kwargs: Any, *, cuda: bool) -> Results:
    """Run an operator on `meta` tensors of the same sizes and describe its results."""
    given: list[torch.Tensor] = []
    empty_args = _empty(args, given)
    empty_kwargs = {name: _empty(value, given) for name, value in kwargs.items()}
    run = run_empty_as_cuda if cuda else run_empty
    out = run(func, empty_args, empty_kwargs, given=args)
    storages = [each.untyped_storage()._cdata for each in given]
    items = out if isinstance(out, list | tuple) else (out,)
    sequence = type(out) if isinstance(out, list | tuple) else None
    workspace = workspace_bytes(func, empty_args, out) if cuda else 0
    return Results(tuple(_describe(item, storages) for item in items), sequence, workspace)


def _empty(value: Any, given: list[torch.Tensor]) -> Any:
    """Replace abstract tensors by `meta` tensors and devices by META; append all tensors to `given` in _key's order."""
    if isinstance(value, torch.Tensor):
        if value.dim() or isinstance(value, AbstractTensor):
            value = torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device=META)
        given.append(value)
    elif isinstance(value, list | tuple):
        return type(value)(_empty(each, given) for each in value)
    return META if isinstance(value, torch.device) else value


def _describe(item: Any, storages: list[int]) -> Any:
    if not isinstance(item, torch.Tensor):
        return item
    storage = item.untyped_storage()
    argument = storages.index(storage._cdata) if storage._cdata in storages else None
    return TensorResult((tuple(item.shape), item.stride(), item.dtype), argument, storage._cdata, storage.nbytes())
