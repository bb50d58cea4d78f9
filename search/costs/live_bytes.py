"""Live tensor bytes, counted at the dispatcher."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Count the bytes of storages made inside the block while they live.

    `peak_bytes` is the most at any time, `largest_bytes` the largest single storage that was made; `hold` adds
    tensors made before. Storages are watched by weak references, so that a view costs nothing. What a kernel
    allocates and frees within one operator is not seen, nor what the allocator rounds up.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live_bytes: int = 0
        self.peak_bytes: int = 0
        self.largest_bytes: int = 0
        self._watched: dict[int, weakref.ref[torch.UntypedStorage]] = {}

    def hold(self, *tensors: torch.Tensor) -> LiveBytes:
        """Count tensors that were made before the block."""
        for tensor in tensors:
            self._watch(tensor.untyped_storage())
        self.largest_bytes = 0
        return self

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operator, then count what it made."""
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
