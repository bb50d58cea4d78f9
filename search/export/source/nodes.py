"""The record of a traced method: its values as nodes, with the source lines that computed them."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from torch import Tensor, nn

# (frame, instruction, file, line); the frame object itself, so that no later frame can reuse its id
Location = tuple[FrameType, int, str, int]
PACKAGE = os.path.dirname(__file__) + os.sep  # its frames are not part of the original source


class NotWritable(ValueError):
    """The source of a network can't be written."""


@dataclass(eq=False)
class Node:
    """One value of a trace.

    `kind` is input, parameter, call (of the function or method with the full name `target`), module (a call of a child)
    or item (of `args[0]`). `frames` holds the locations of the call, innermost first.
    """

    kind: str
    target: str
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    frames: list[Location] = field(default_factory=list)


@dataclass(eq=False)
class Trace:
    """One method of one module: its inputs, its calls in order, and its output (Nodes, possibly nested)."""

    module: nn.Module
    method: str
    inputs: list[tuple[str, Any]] = field(default_factory=list)
    static: dict[str, Any] = field(default_factory=dict)
    calls: list[Node] = field(default_factory=list)
    output: Any = None
    nodes: dict[int, Node] = field(default_factory=dict)
    alive: list[Any] = field(default_factory=list)  # keeps tensors alive, so that their ids stay unique
    base: FrameType | None = None

    def bind(self, tensor: Tensor, node: Node) -> None:
        """Associate a tensor with a node."""
        self.nodes[id(tensor)] = node
        self.alive.append(tensor)

    def add(self, node: Node) -> Node:
        """Append a call, with its locations in the original source."""
        frame = sys._getframe(1)
        while frame is not None and frame is not self.base:
            name = frame.f_code.co_filename
            if not name.startswith(PACKAGE) and "/torch/" not in name:
                node.frames.append((frame, frame.f_lasti, name, frame.f_lineno))
            frame = frame.f_back  # type: ignore[assignment]
        self.calls.append(node)
        return node

    def bind_result(self, result: Any, node: Node) -> Any:
        """Associate a call's result with its node, and the result's parts with items of the node."""
        if isinstance(result, Tensor):
            self.bind(result, node)
        elif isinstance(result, (tuple, list)):
            fields = getattr(type(result), "_fields", None) or _struct_fields(result)
            for index, part in enumerate(result):
                self.bind_result(part, Node("item", fields[index] if fields else "", (node, index)))
        elif isinstance(result, dict):
            for key, part in result.items():
                self.bind_result(part, Node("item", "", (node, key)))
        return result


def _struct_fields(result: Any) -> tuple[str, ...]:
    """Return the field names of a named tuple of torch, as `max(dim=...)` returns it."""
    if type(result).__module__ != "torch.return_types":
        return ()
    names = [name for name in dir(type(result)) if not name.startswith(("_", "n_")) and name not in ("count", "index")]
    positions = {id(part): position for position, part in enumerate(result)}
    return tuple(sorted(names, key=lambda name: positions[id(getattr(result, name))]))
