"""Trace the memory of each operator of a real step: its results, and its workspace."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from search.costs.live_bytes import LiveBytes


@dataclass(frozen=True)
class Operator:
    """One call: tensors as (shape, stride, type); bytes before, after, and the most meanwhile."""

    name: str
    inputs: tuple[Any, ...]
    outputs: tuple[Any, ...]
    live: int
    before: int
    peak: int
    after: int

    @property
    def workspace(self) -> int:
        """Bytes that were held while it ran, beside its inputs and results."""
        return self.peak - max(self.before, self.after)


class OperatorTrace(TorchDispatchMode):
    """Note the operators of a step on a GPU with the allocator's bytes around each."""

    def __init__(self, live: LiveBytes) -> None:
        super().__init__()
        self.live, self.operators = live, []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operator between two readings of the allocator."""
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        out = func(*args, **(kwargs or {}))
        peak, after = torch.cuda.max_memory_allocated(), torch.cuda.memory_allocated()
        given, made = _specs((args, kwargs)), _specs(out)
        self.operators.append(Operator(str(func), given, made, self.live.live_bytes, before, peak, after))
        return out

    def largest(self) -> dict[str, int]:
        """Return each operator's largest workspace, where it had any."""
        found: dict[str, int] = {}
        for each in self.operators:
            if each.workspace > 0:
                found[each.name] = max(found.get(each.name, 0), each.workspace)
        return dict(sorted(found.items(), key=lambda item: -item[1]))

    @property
    def peak(self) -> int:
        """The most bytes that the allocator gave out at any time."""
        return max((each.peak for each in self.operators), default=0)


def _specs(values: Any) -> tuple[Any, ...]:
    tensors = [leaf for leaf in tree_leaves(values) if isinstance(leaf, torch.Tensor)]
    return tuple((tuple(each.shape), each.stride(), str(each.dtype).removeprefix("torch.")) for each in tensors)
