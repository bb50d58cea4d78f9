"""Count the bytes of live tensors in torch's dispatcher."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Count the bytes of live storages that are created inside the `with` block.

    `peak_bytes` is the maximum at any time, `largest_bytes` the largest single new storage; `hold` adds tensors
    created before. Weak references track the storages, and a view of a tracked storage adds no bytes. Memory that a
    kernel allocates and frees within an operator is not counted, nor is the allocator's rounding.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live_bytes: int = 0
        self.peak_bytes: int = 0
        self.largest_bytes: int = 0
        self._watched: dict[int, weakref.ref[torch.UntypedStorage]] = {}

    def hold(self, *tensors: torch.Tensor) -> LiveBytes:
        """Count tensors that were created before the block."""
        for tensor in tensors:
            self._watch(tensor.untyped_storage())
        self.largest_bytes = 0
        return self

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operator, then count the storages of its outputs."""
        out = func(*args, **(kwargs or {}))
        for leaf in (out,) if isinstance(out, torch.Tensor) else tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                self._watch(leaf.untyped_storage())
        return out

    def _watch(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._watched:
            return

        def forget(_: object) -> None:
            del self._watched[key]
            self.live_bytes -= size

        self._watched[key] = weakref.ref(storage, forget)
        self.live_bytes += size
        self.largest_bytes = max(self.largest_bytes, size)
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)
