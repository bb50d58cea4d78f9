"""The values of a trace as Python expressions."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from search.export.source.nodes import Node, NotWritable, Trace
from search.export.source.trace import COMPUTED_IN
from search.export.source.tracked import Argument, Attribute, Size, origin_of
from search.export.source.usage import first_input

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


@dataclass(frozen=True)
class Text:
    """An expression; as an operand it needs parentheses unless it is an atom."""

    code: str
    atom: bool = True

    @property
    def operand(self) -> str:
        """The expression as an operand."""
        return self.code if self.atom else f"({self.code})"


class Expressions:
    """Renders the values of one trace; `path` returns how this module names a module or parameter.

    `text` holds values that have a name or are written in place, `attributes` the numbers that were read of modules.
    """

    def __init__(self, trace: Trace, path: Callable[[Any], str]) -> None:
        self.trace, self.path = trace, path
        self.text: dict[Node, Text] = {}
        self.attributes: dict[tuple[nn.Module, str], None] = {}

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
        raise ValueError(f"{node.target} is used before it is defined")

    def call(self, node: Node) -> Text:
        """Render a call, with its arguments."""
        if node.kind == "module":
            module, *args = node.args
            called = self.path(module) + ("" if node.target == "forward" else f".{node.target}")
            return Text(f"{called}({self._arguments(args, node.kwargs)})")
        head, _, name = node.target.rpartition(".")
        if head == "torch.Tensor":
            return self._tensor_method(name, node)
        prefix = {"torch": "torch", "torch.nn.functional": "F", "torch._C._nn": "F", "torch.special": "torch.special"}
        if head not in prefix:
            raise NotWritable(f"{node.target} has no public name in torch")
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
            one, other = (self.value(each).operand for each in operands)
            return Text(f"{one} {INFIX[bare]} {other}", atom=False)
        if bare == "neg":
            return Text(f"-{self.value(operands[0]).operand}", atom=False)
        if bare == "getitem":
            return Text(f"{self.value(operands[0]).operand}[{self._index(operands[1])}]")
        receiver = self.value(operands[0]).operand
        if name in PROPERTIES:
            return Text(f"{receiver}.{name}")
        if name.startswith("__"):
            raise NotWritable(f"{node.target} has no public name in torch")
        return Text(f"{receiver}.{name}({self._arguments(operands[1:], node.kwargs)})")

    def _index(self, index: Any) -> str:
        parts = index if isinstance(index, tuple) else (index,)
        return ", ".join(self._slice(part) if isinstance(part, slice) else self.value(part).code for part in parts)

    def _slice(self, part: slice) -> str:
        start, stop = ("" if each is None else self.value(each).operand for each in (part.start, part.stop))
        step = "" if part.step is None else f":{self.value(part.step).operand}"
        return f"{start}:{stop}{step}"

    def _arguments(self, args: Any, kwargs: dict[str, Any]) -> str:
        items = self._items(args)
        return ", ".join([*items, *(f"{name}={self.value(value).code}" for name, value in kwargs.items())])

    def _items(self, values: Any) -> list[str]:
        """Render values; write the last axes of a shape, or all items of an attribute, as one starred item."""
        items: list[str] = []
        position, values = 0, list(values)
        while position < len(values):
            run = self._run(values[position:])
            if run:
                text, count = run
                items.append(f"*{text}")
                position += count
            else:
                items.append(self.value(values[position]).code)
                position += 1
        return items

    def _run(self, values: list[Any]) -> tuple[str, int] | None:
        """Return the shape's tail or the attribute that the first values form, and their number, if they do."""
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
        self.attributes[module, name] = None
        return f"{self.path(module)}.{name}"

    def value(self, value: Any) -> Text:
        """Render a value, possibly nested. Raises NotWritable for an object that has no expression."""
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
            return Text("{" + ", ".join(f"{key!r}: {self.value(part).code}" for key, part in value.items()) + "}")
        if isinstance(value, torch.dtype) and value == COMPUTED_IN:
            return Text(f"{first_input(self.trace).target}.dtype")
        if isinstance(value, torch.device):
            return Text(f"{first_input(self.trace).target}.device")
        if isinstance(value, slice):
            return Text(f"slice({', '.join(self.value(part).code for part in (value.start, value.stop, value.step))})")
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
        parts = [self.value(operand).operand for operand in origin.operands]
        code = f"{parts[0]} {origin.symbol} {parts[1]}" if len(parts) == 2 else f"{origin.symbol}{parts[0]}"
        return Text(code, atom=False)


def _is_default(target: str, name: str, value: Any) -> bool:
    """Return whether an argument of one of torch's functions has its default value."""
    function: Any = torch.nn.functional if target.startswith("torch.nn.functional.") else None
    function = getattr(function, target.rpartition(".")[2], None)
    try:
        default = inspect.signature(function).parameters[name].default
    except (TypeError, ValueError, KeyError):
        return False
    return type(default) is type(value) and default == value
