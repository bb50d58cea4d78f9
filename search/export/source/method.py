"""A trace as the source of a method: names come from the original source, values used once are written in place."""

from __future__ import annotations

import keyword
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from search.export.source.expressions import Expressions, Text
from search.export.source.naming import StatementNames, statement_names
from search.export.source.nodes import Node, Trace
from search.export.source.usage import Usage, nodes_in, root

RESERVED = {"self", "torch", "nn", "F", *keyword.kwlist}
MAX_IN_PLACE = 96  # characters of an expression that is written in place


@dataclass
class Method:
    """The source lines of a method, and the numeric attributes of modules that it reads."""

    name: str
    arguments: list[str]
    lines: list[str]
    attributes: dict[tuple[nn.Module, str], None]


class Writer:
    """Writes one traced method; `path` returns how this module names a module or parameter."""

    def __init__(self, trace: Trace, path: Callable[[Any], str]) -> None:
        self.trace, self.path = trace, path
        self.expressions = Expressions(trace, path)
        self.usage = Usage(trace)
        self.lines: list[str] = []
        self.order = {node: index for index, node in enumerate(trace.calls)}
        self.names = [statement_names(trace.calls, index) for index in range(len(trace.calls))]
        self.in_use: dict[str, int] = {}  # names, with the index of the last call that uses their value

    def write(self) -> Method:
        """Return the method's source."""
        for name, value in self.trace.inputs:
            node = self.trace.nodes.get(id(value)) if isinstance(value, Tensor) else None
            self.in_use[name] = self.usage.last.get(node, -1) if node else len(self.trace.calls)
        pending: list[Node] = []
        for index, node in enumerate(self.trace.calls):
            used = self._pending_in(pending, (node.args, node.kwargs))
            if used != pending[len(pending) - len(used) :]:
                pending = self._flush(pending)
                used = []
            rendered = self.expressions.call(node)
            pending = pending[: len(pending) - len(used)]
            if self._in_place(index, node, rendered):
                self.expressions.text[node] = rendered
                pending.append(node)
                continue
            pending = self._flush(pending)
            self._assign(index, node, rendered)
        used = self._pending_in(pending, self.trace.output)
        if used != pending:
            self._flush(pending)
        self.lines.append(f"return {self.expressions.value(self.trace.output).code}")
        arguments = [name for name, _ in self.trace.inputs]
        return Method(self.trace.method, arguments, self.lines, self.expressions.attributes)

    def _pending_in(self, pending: list[Node], value: Any) -> list[Node]:
        return [root(node) for node in nodes_in(value) if root(node) in pending]

    def _flush(self, pending: list[Node]) -> list[Node]:
        """Assign the values that wait to be written in place, in their order."""
        for node in pending:
            self._assign(self.order[node], node, self.expressions.text.pop(node))
        return []

    def _in_place(self, index: int, node: Node, rendered: Text) -> bool:
        used_once = self.usage.count.get(node, 0) == 1 and node not in self.usage.sized
        return used_once and not self.names[index].names and len(rendered.code) <= MAX_IN_PLACE

    def _assign(self, index: int, node: Node, rendered: Text) -> None:
        names = self.names[index]
        comment = f"  # {names.comment}" if names.comment else ""
        if not self.usage.count.get(node):
            self.lines.append(rendered.code)
            return
        if len(names.names) > 1:
            self._assign_parts(index, node, rendered, names)
            return
        name = self._unused_name(index, node, names)
        self.expressions.text[node] = Text(name)
        self.lines.append(f"{name} = {rendered.code}{comment}")

    def _assign_parts(self, index: int, node: Node, rendered: Text, names: StatementNames) -> None:
        """Unpack a tuple as the original source does."""
        unpacked = self.usage.parts.get(node) and not any(
            value is node for call in self.trace.calls for value in nodes_in((call.args, call.kwargs))
        )
        if not unpacked:
            name = self._unused_name(index, node, StatementNames())
            self.expressions.text[node] = Text(name)
            self.lines.append(f"{name} = {rendered.code}")
            return
        targets = []
        for number, wanted in enumerate(names.names):
            used = number in self.usage.parts[node] and wanted != "_"
            targets.append(self._unused_name(index, node, StatementNames((wanted,))) if used else "_")
        self.expressions.text[node] = Text("\0".join(targets))
        self.lines.append(f"{', '.join(targets)} = {rendered.code}")

    def _unused_name(self, index: int, node: Node, names: StatementNames) -> str:
        until = self.usage.last[node]
        wanted = names.names[0] if names.names else ""
        fallback = self._fallback(node) if node.kind == "module" or not wanted else wanted
        # A child's result can also take the child's name, and leaves the statement's name to a later value
        tries = [wanted] if wanted and not (node.kind == "module" and self._wanted_before(wanted, index, until)) else []
        tries += [fallback, *(f"{fallback}_{number}" for number in range(2, 1000))]
        name = next(name for name in tries if name not in RESERVED and self.in_use.get(name, -1) <= index)
        self.in_use[name] = until
        return name

    def _wanted_before(self, name: str, index: int, until: int) -> bool:
        """Return whether a later value needs the name before call `until`."""
        return any(name in self.names[later].names for later in range(index + 1, min(until, len(self.names))))

    def _fallback(self, node: Node) -> str:
        if node.kind == "module":
            parts = [part for part in self.path(node.args[0]).replace("]", "").replace('"', "").split("[")]
            tail = parts[-1] if len(parts) > 1 and not parts[-1].isdigit() else "".join(parts)
            name = tail.rpartition(".")[2]
        else:
            name = node.target.rpartition(".")[2].strip("_")
        return name if name.isidentifier() and name not in RESERVED else "value"
