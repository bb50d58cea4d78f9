"""Where the values of a trace are used: how often, where last, and whether their sizes are read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from search.export.source.nodes import Node, NotWritable, Trace
from search.export.source.trace import COMPUTED_IN
from search.export.source.tracked import Operation, Size, origin_of


def nodes_in(value: Any) -> Iterator[Node]:
    """Yield the nodes in a nested value, from left to right."""
    if isinstance(value, Node):
        yield value
    elif isinstance(value, (tuple, list)):
        for part in value:
            yield from nodes_in(part)
    elif isinstance(value, dict):
        for part in value.values():
            yield from nodes_in(part)
    elif isinstance(value, slice):
        yield from nodes_in((value.start, value.stop, value.step))
    elif origin_of(value) is not None:
        yield from _sized(origin_of(value))


def _sized(origin: Any) -> Iterator[Node]:
    if isinstance(origin, Size):
        yield origin.value
    elif isinstance(origin, Operation):
        for operand in origin.operands:
            yield from nodes_in(operand)


def root(node: Node) -> Node:
    """Return the call, input or parameter that an item belongs to."""
    while node.kind == "item":
        node = node.args[0]
    return node


class Usage:
    """The uses of each call, input and parameter of a trace."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.count: dict[Node, int] = {}
        self.last: dict[Node, int] = {}  # index of the last call that uses a value
        self.sized: set[Node] = set()  # values whose sizes are read
        self.parts: dict[Node, set[Any]] = {}  # the items that are used of a value
        self._count()

    def _count(self) -> None:
        end = len(self.trace.calls)
        for index, value in enumerate([*((call.args, call.kwargs) for call in self.trace.calls), self.trace.output]):
            for node in nodes_in(value):
                owner = root(node)
                self.count[owner] = self.count.get(owner, 0) + 1
                self.last[owner] = min(index, end)
                if node is not owner:
                    self.parts.setdefault(owner, set()).add(self._first_item(node))
            self.sized.update(root(node) for node in self._sizes_in(value))
            if _names_dtype_or_device(value):
                self.last[first_input(self.trace)] = min(index, end)

    @staticmethod
    def _first_item(node: Node) -> Any:
        while node.args[0].kind == "item":
            node = node.args[0]
        return node.args[1]

    def _sizes_in(self, value: Any) -> Iterator[Node]:
        if isinstance(value, (tuple, list)):
            for part in value:
                yield from self._sizes_in(part)
        elif isinstance(value, dict):
            yield from self._sizes_in(tuple(value.values()))
        elif isinstance(value, slice):
            yield from self._sizes_in((value.start, value.stop, value.step))
        elif origin_of(value) is not None:
            yield from _sized(origin_of(value))


def first_input(trace: Trace) -> Node:
    """Return the tensor input whose precision and device the method's new tensors take."""
    for _, value in trace.inputs:
        if isinstance(value, Tensor):
            return trace.nodes[id(value)]
    raise NotWritable(f"{type(trace.module).__name__}.{trace.method} creates a tensor but has no tensor input")


def _names_dtype_or_device(value: Any) -> bool:
    """Return whether a nested value contains the dtype or the device that the network runs in."""
    if isinstance(value, (tuple, list)):
        return any(_names_dtype_or_device(part) for part in value)
    if isinstance(value, dict):
        return any(_names_dtype_or_device(part) for part in value.values())
    return isinstance(value, torch.device) or (isinstance(value, torch.dtype) and value == COMPUTED_IN)
