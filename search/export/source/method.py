"""A trace as the text of a method: names from the sources, values that are used once in place."""

from __future__ import annotations

import inspect
import keyword
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from search.export.source.places import Named, named
from search.export.source.trace import COMPUTED_IN, Node, NotWritable, Trace
from search.export.source.tracked import Argument, Attribute, Operation, Size, origin_of

INFIX = {
    "add": "+",
    "sub": "-",
    "mul": "*",
    "div": "/",
    "true_divide": "/",
    "matmul": "@",
    "floor_divide": "//",
    "pow": "**",
    "eq": "==",
    "ne": "!=",
    "lt": "<",
    "le": "<=",
    "gt": ">",
    "ge": ">=",
    "remainder": "%",
}
PROPERTIES = {"T", "mT", "H", "mH", "real", "imag", "data"}
RESERVED = {"self", "torch", "nn", "F", *keyword.kwlist}
LONGEST = 96  # characters of a value that is written in place


@dataclass(frozen=True)
class Text:
    """An expression; one that isn't an atom needs parentheses beside an operator."""

    code: str
    atom: bool = True

    @property
    def operand(self) -> str:
        """The expression as an operand."""
        return self.code if self.atom else f"({self.code})"


@dataclass
class Method:
    """The text of a method, and which numbers of which modules it reads."""

    name: str
    arguments: list[str]
    lines: list[str]
    attributes: dict[tuple[nn.Module, str], None] = field(default_factory=dict)


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
    """Return the call, input or parameter that an item is of."""
    while node.kind == "item":
        node = node.args[0]
    return node


class Writer:
    """Writes one trace; `path` names modules and parameters as this module reaches them."""

    def __init__(self, trace: Trace, path: Callable[[Any], str]) -> None:
        self.trace, self.path = trace, path
        self.text: dict[Node, Text] = {}
        self.method = Method(trace.method, [name for name, _ in trace.inputs], [])
        self.order = {node: index for index, node in enumerate(trace.calls)}
        self.said = [named(trace.calls, index) for index in range(len(trace.calls))]
        self.last: dict[Node, int] = {}  # where each value is used last
        self.uses: dict[Node, int] = {}
        self.sized: set[Node] = set()
        self.parts: dict[Node, set[Any]] = {}
        self._count()
        self.taken: dict[str, int] = {}  # names and where their value is used last

    def _count(self) -> None:
        end = len(self.trace.calls)
        for index, value in enumerate([*((call.args, call.kwargs) for call in self.trace.calls), self.trace.output]):
            for node in nodes_in(value):
                owner = root(node)
                self.uses[owner] = self.uses.get(owner, 0) + 1
                self.last[owner] = min(index, end)
                if node is not owner:
                    self.parts.setdefault(owner, set()).add(self._first_item(node))
            self.sized.update(root(node) for node in self._sizes_in(value))
            if _names_kind(value):
                self.last[self._first_input()] = min(index, end)

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

    def write(self) -> Method:
        """Return the method's text."""
        for name, value in self.trace.inputs:
            node = self.trace.nodes.get(id(value)) if isinstance(value, Tensor) else None
            self.taken[name] = self.last.get(node, -1) if node else len(self.trace.calls)
        pending: list[Node] = []
        for index, node in enumerate(self.trace.calls):
            used = self._pending_in(pending, (node.args, node.kwargs))
            if used != pending[len(pending) - len(used) :]:
                pending = self._flush(pending)
                used = []
            rendered = self._call(node)
            pending = pending[: len(pending) - len(used)]
            if self._in_place(index, node, rendered):
                self.text[node] = rendered
                pending.append(node)
                continue
            pending = self._flush(pending)
            self._assign(index, node, rendered)
        used = self._pending_in(pending, self.trace.output)
        if used != pending:
            self._flush(pending)
        self.method.lines.append(f"return {self._value(self.trace.output).code}")
        return self.method

    def _pending_in(self, pending: list[Node], value: Any) -> list[Node]:
        return [root(node) for node in nodes_in(value) if root(node) in pending]

    def _flush(self, pending: list[Node]) -> list[Node]:
        """Assign what waits to be written in place, in its order."""
        for node in pending:
            self._assign(self.order[node], node, self.text.pop(node))
        return []

    def _in_place(self, index: int, node: Node, rendered: Text) -> bool:
        lonely = self.uses.get(node, 0) == 1 and node not in self.sized
        return lonely and not self.said[index].names and len(rendered.code) <= LONGEST

    def _assign(self, index: int, node: Node, rendered: Text) -> None:
        said = self.said[index]
        comment = f"  # {said.comment}" if said.comment else ""
        if not self.uses.get(node):
            self.method.lines.append(rendered.code)
            return
        if len(said.names) > 1:
            self._assign_parts(index, node, rendered, said)
            return
        name = self._free_name(index, node, said)
        self.text[node] = Text(name)
        self.method.lines.append(f"{name} = {rendered.code}{comment}")

    def _assign_parts(self, index: int, node: Node, rendered: Text, said: Named) -> None:
        """Unpack a tuple as its source does."""
        whole = sorted(self.parts.get(node, ()), key=str) and not any(
            value is node for call in self.trace.calls for value in nodes_in((call.args, call.kwargs))
        )
        if not whole:
            name = self._free_name(index, node, Named())
            self.text[node] = Text(name)
            self.method.lines.append(f"{name} = {rendered.code}")
            return
        names = []
        for number, wanted in enumerate(said.names):
            used = number in self.parts[node] and wanted != "_"
            names.append(self._free_name(index, node, Named((wanted,))) if used else "_")
        self.text[node] = Text("\0".join(names))
        self.method.lines.append(f"{', '.join(names)} = {rendered.code}")

    def _free_name(self, index: int, node: Node, said: Named) -> str:
        until = self.last[node]
        wanted = said.names[0] if said.names else ""
        fallback = self._fallback(node) if node.kind == "module" or not wanted else wanted
        # A child's result has a second good name, its own: that of the statement then goes to who comes later
        tries = [wanted] if wanted and not (node.kind == "module" and self._wanted_before(wanted, index, until)) else []
        tries += [fallback, *(f"{fallback}_{number}" for number in range(2, 1000))]
        name = next(name for name in tries if name not in RESERVED and self.taken.get(name, -1) <= index)
        self.taken[name] = until
        return name

    def _wanted_before(self, name: str, index: int, until: int) -> bool:
        """Tell whether a later value takes the name while this one is still needed."""
        return any(name in self.said[later].names for later in range(index + 1, min(until, len(self.said))))

    def _fallback(self, node: Node) -> str:
        if node.kind == "module":
            parts = [part for part in self.path(node.args[0]).replace("]", "").replace('"', "").split("[")]
            tail = parts[-1] if len(parts) > 1 and not parts[-1].isdigit() else "".join(parts)
            name = tail.rpartition(".")[2]
        else:
            name = node.target.rpartition(".")[2].strip("_")
        return name if name.isidentifier() and name not in RESERVED else "value"

    def _node(self, node: Node) -> Text:
        if node in self.text:
            return self.text[node]
        if node.kind == "input":
            return Text(node.target)
        if node.kind == "parameter":
            return Text(self.path(node.args[0]))
        if node.kind == "item":
            owner = self._node(node.args[0])
            if "\0" in owner.code:
                return Text(owner.code.split("\0")[node.args[1]])
            return Text(f"{owner.operand}.{node.target}" if node.target else f"{owner.operand}[{node.args[1]!r}]")
        raise ValueError(f"{node.target} is used before it is there")

    def _call(self, node: Node) -> Text:
        if node.kind == "module":
            module, *args = node.args
            called = self.path(module) + ("" if node.target == "forward" else f".{node.target}")
            return Text(f"{called}({self._arguments(args, node.kwargs)})")
        head, _, name = node.target.rpartition(".")
        if head == "torch.Tensor":
            return self._tensor_method(name, node)
        prefix = {"torch": "torch", "torch.nn.functional": "F", "torch._C._nn": "F", "torch.special": "torch.special"}
        if head not in prefix:
            raise NotWritable(f"{node.target} is no function that the source could name")
        kwargs = {key: value for key, value in node.kwargs.items() if not _is_default(node.target, key, value)}
        return Text(f"{prefix[head]}.{name}({self._arguments(node.args, kwargs)})")

    def _tensor_method(self, name: str, node: Node) -> Text:
        bare = name.strip("_") if name.startswith("__") else name
        operands = node.args
        if bare not in INFIX and bare[:1] == "r" and bare[1:] in INFIX and len(operands) == 2:
            bare, operands = bare[1:], operands[::-1]
        if bare == "rsub":
            bare, operands = "sub", operands[::-1]
        if bare in INFIX and len(operands) == 2 and not node.kwargs:
            one, other = (self._value(each).operand for each in operands)
            return Text(f"{one} {INFIX[bare]} {other}", atom=False)
        if bare == "neg":
            return Text(f"-{self._value(operands[0]).operand}", atom=False)
        if bare == "getitem":
            return Text(f"{self._value(operands[0]).operand}[{self._index(operands[1])}]")
        receiver = self._value(operands[0]).operand
        if name in PROPERTIES:
            return Text(f"{receiver}.{name}")
        if name.startswith("__"):
            raise NotWritable(f"{node.target} is no method that the source could name")
        return Text(f"{receiver}.{name}({self._arguments(operands[1:], node.kwargs)})")

    def _index(self, index: Any) -> str:
        parts = index if isinstance(index, tuple) else (index,)
        return ", ".join(self._slice(part) if isinstance(part, slice) else self._value(part).code for part in parts)

    def _slice(self, part: slice) -> str:
        start, stop = ("" if each is None else self._value(each).operand for each in (part.start, part.stop))
        step = "" if part.step is None else f":{self._value(part.step).operand}"
        return f"{start}:{stop}{step}"

    def _arguments(self, args: Any, kwargs: dict[str, Any]) -> str:
        said = self._items(args)
        return ", ".join([*said, *(f"{name}={self._value(value).code}" for name, value in kwargs.items())])

    def _items(self, values: Any) -> list[str]:
        """Write values with commas; the last axes of a shape, or the items of an attribute, as one."""
        said: list[str] = []
        position, values = 0, list(values)
        while position < len(values):
            run = self._run(values[position:])
            if run:
                text, count = run
                said.append(f"*{text}")
                position += count
            else:
                said.append(self._value(values[position]).code)
                position += 1
        return said

    def _run(self, values: list[Any]) -> tuple[str, int] | None:
        """Return a shape's end or a whole tuple that these values begin with, and how many they are."""
        first = origin_of(values[0])
        origins = [origin_of(value) for value in values]
        if isinstance(first, Size):
            count = 1
            while (
                count < len(values)
                and isinstance(other := origins[count], Size)
                and (other.value is first.value and other.axis == first.axis + count)
            ):
                count += 1
            if count > 1 and first.axis + count == self._dimensions(first.value):
                start = f"[{first.axis}:]" if first.axis else ""
                return f"{self._node(first.value).operand}.shape{start}", count
        if isinstance(first, Attribute) and first.index == 0:
            whole = getattr(first.module, first.name)
            same = [
                isinstance(each, Attribute) and (each.module, each.name, each.index) == (first.module, first.name, n)
                for n, each in enumerate(origins[: len(whole)])
            ]
            if all(same) and len(same) == len(whole):
                return self._attribute(first.module, first.name), len(whole)
        return None

    def _dimensions(self, node: Node) -> int:
        for tensor in self.trace.alive:
            if self.trace.nodes.get(id(tensor)) is node:
                return int(tensor.dim())
        return -1

    def _attribute(self, module: nn.Module, name: str) -> str:
        self.method.attributes[module, name] = None
        return f"{self.path(module)}.{name}"

    def _value(self, value: Any) -> Text:
        if isinstance(value, Node):
            return self._node(value)
        origin = origin_of(value)
        if origin is not None:
            return self._number(origin)
        if isinstance(value, (tuple, list)):
            items = self._items(value)
            if len(items) == 1 and items[0].startswith("*"):
                return Text(items[0][1:])
            inside = ", ".join(items)
            if isinstance(value, list):
                return Text(f"[{inside}]")
            return Text(f"({inside},)" if len(items) == 1 else f"({inside})")
        if isinstance(value, dict):
            return Text("{" + ", ".join(f"{key!r}: {self._value(part).code}" for key, part in value.items()) + "}")
        if isinstance(value, torch.dtype) and value == COMPUTED_IN:
            return Text(f"{self._first_input().target}.dtype")
        if isinstance(value, torch.device):
            return Text(f"{self._first_input().target}.device")
        if isinstance(value, slice):
            return Text(f"slice({', '.join(self._value(part).code for part in (value.start, value.stop, value.step))})")
        if isinstance(value, (torch.dtype, torch.memory_format)):
            return Text(str(value))
        if value is ...:
            return Text("...")
        if isinstance(value, (int, float)) and value < 0:
            return Text(repr(value), atom=False)
        if value is None or isinstance(value, (bool, int, float, str)):
            return Text(repr(value))
        raise NotWritable(f"{type(self.trace.module).__name__}.{self.trace.method} uses {value!r}")

    def _number(self, origin: Any) -> Text:
        if isinstance(origin, Size):
            return Text(f"{self._node(origin.value).operand}.shape[{origin.axis}]")
        if isinstance(origin, Attribute):
            text = self._attribute(origin.module, origin.name)
            return Text(text if origin.index is None else f"{text}[{origin.index}]")
        if isinstance(origin, Argument):
            return Text(origin.text)
        if origin.symbol.isidentifier():
            return Text(f"{origin.symbol}({self._arguments(origin.operands, {})})")
        parts = [self._value(operand).operand for operand in origin.operands]
        code = f"{parts[0]} {origin.symbol} {parts[1]}" if len(parts) == 2 else f"{origin.symbol}{parts[0]}"
        return Text(code, atom=False)

    def _first_input(self) -> Node:
        """Return the tensor whose precision and device stand for the method's."""
        for _, value in self.trace.inputs:
            if isinstance(value, Tensor):
                return self.trace.nodes[id(value)]
        raise NotWritable(f"{type(self.trace.module).__name__}.{self.trace.method} makes a tensor without an input")


def _is_default(target: str, name: str, value: Any) -> bool:
    """Tell whether an argument of one of torch's functions says what it is anyway."""
    function: Any = torch.nn.functional if target.startswith("torch.nn.functional.") else None
    function = getattr(function, target.rpartition(".")[2], None)
    try:
        default = inspect.signature(function).parameters[name].default
    except (TypeError, ValueError, KeyError):
        return False
    return type(default) is type(value) and default == value


def _names_kind(value: Any) -> bool:
    """Tell whether a nested value names the precision or the device that the network runs in."""
    if isinstance(value, (tuple, list)):
        return any(_names_kind(part) for part in value)
    if isinstance(value, dict):
        return any(_names_kind(part) for part in value.values())
    return isinstance(value, torch.device) or (isinstance(value, torch.dtype) and value == COMPUTED_IN)
