"""Abstract tensors: size, strides and dtype without values; operators allocate nothing, but bytes are counted."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, ClassVar

from torch.utils._python_dispatch import TorchDispatchMode

from search.costs.abstract_tensor import AbstractTensor, ByteCount, Storage, create_on_cpu, create_on_cuda
from search.costs.cuda_dispatch import as_on_cuda
from search.costs.operators import Results, TensorResult, append_parts, learn, operator_of

MAX_KNOWN = 200_000  # cached results, a few hundred megabytes


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
        self.contexts = ExitStack()
        self.create = create_on_cuda if cuda else create_on_cpu

    def __enter__(self) -> AbstractTensors:
        with ExitStack() as contexts:
            contexts.enter_context(paused_collector())
            if self.cuda:
                contexts.enter_context(as_on_cuda())
            super().__enter__()  # type: ignore[no-untyped-call]
            self.contexts = contexts.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        self.contexts.close()

    @property
    def peak_bytes(self) -> int:
        """The maximum of the live bytes since the start or `restart_peak`."""
        return self.count.peak_bytes

    def restart_peak(self) -> None:
        """Reset the peak to the bytes that are live now."""
        self.count.peak_bytes = self.count.live_bytes

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Return the operator's results without running it."""
        operator = operator_of(func)
        kind = operator.kind
        if kind == "in place":
            return args[0]
        if kind == "nothing":
            return None
        kwargs = kwargs or {}
        if kind == "composite":
            return self._decompose(func, args, kwargs)
        tensors: list[Any] = []
        parts: list[Any] = [operator, self.cuda]
        append_parts(args, parts, tensors)
        if kwargs:
            parts.append(tuple(kwargs))
            append_parts(kwargs.values(), parts, tensors)
        if kind == "series" or (tensors and not _any_abstract(tensors)):
            return func(*args, **kwargs)
        key = tuple(parts)
        results = self.known.get(key)
        if results is None:
            if len(self.known) > MAX_KNOWN:
                self.known.clear()
            results = self.known[key] = learn(func, args, kwargs, cuda=self.cuda)
        return self._instantiate(results, tensors)

    def _decompose(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Run an operator's parts in this mode, which torch leaves while the mode handles an operator."""
        super().__enter__()  # type: ignore[no-untyped-call]
        try:
            return func.decompose(*args, **kwargs)
        finally:
            super().__exit__(None, None, None)  # type: ignore[no-untyped-call]

    def _instantiate(self, results: Results, tensors: Sequence[Any]) -> Any:
        """Create the results as abstract tensors; those with equal storage numbers share a storage."""
        count, created = self.count, []
        storages: dict[int, Storage] = {}
        for item in results.items:
            if type(item) is TensorResult:
                if item.argument is not None:
                    shared = tensors[item.argument]  # a view of a real tensor adds no bytes
                    storage = shared.storage_shared if isinstance(shared, AbstractTensor) else Storage(0, count)
                else:
                    storage = storages.get(item.storage) or Storage(item.size_bytes, count)
                    storages[item.storage] = storage
                item = self.create(item.spec, storage)
            created.append(item)
        if results.workspace_bytes:
            count.peak_bytes = max(count.peak_bytes, count.live_bytes + results.workspace_bytes)
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


def _any_abstract(tensors: Sequence[Any]) -> bool:
    return isinstance(tensors[0], AbstractTensor) or any(isinstance(each, AbstractTensor) for each in tensors)
