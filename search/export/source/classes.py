"""Groups modules into classes: modules that differ only in numbers share a class, with the numbers as arguments."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from search.export.source.construction import (
    Alias,
    Body,
    Construction,
    ConstructorArgument,
    Container,
    Leaf,
    OwnModule,
    Weights,
    own_modules,
)
from search.export.source.method import Method
from search.export.source.tracked import plain

MAX_POSITIONAL = 4  # arguments of a constructor that are written without their names
Values = tuple[Any, ...]  # one number per module of a class


@dataclass
class Module:
    """One module: its parts, its methods, and the numeric attributes that some method reads."""

    module: nn.Module
    body: Body
    methods: list[Method]
    base: str = "nn.Module"
    attributes: list[str] = field(default_factory=list)


@dataclass
class Class:
    """One class of the source: its modules, its arguments with a value per module, its constructor's lines."""

    name: str
    members: list[Module]
    arguments: list[str] = field(default_factory=list)
    columns: list[Values] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)

    def values(self, module: nn.Module) -> list[Any]:
        """Return the arguments that construct one of its modules."""
        row = next(index for index, member in enumerate(self.members) if member.module is module)
        return [column[row] for column in self.columns]


def group(modules: Sequence[Module]) -> dict[nn.Module, Class]:
    """Return the class of each module; the classes of children come before those of their parents."""
    found: dict[nn.Module, Class] = {}
    heights = _heights(modules)
    for height in range(max(heights.values(), default=0) + 1):
        alike: dict[str, list[Module]] = {}
        for member in modules:
            if heights[member.module] == height:
                alike.setdefault(_skeleton(member, found), []).append(member)
        for members in alike.values():
            base, taken = type(members[0].module).__name__.lstrip("_"), {each.name for each in found.values()}
            written = Class(_unused(base, taken, separator=""), members)
            found.update({member.module: written for member in members})
            written.lines = _Constructor(written, found).lines()
    return found


def _heights(modules: Sequence[Module]) -> dict[nn.Module, int]:
    by_module = {member.module: member for member in modules}
    found: dict[nn.Module, int] = {}

    def height(module: nn.Module) -> int:
        if module not in found:
            children = [each for _, part in by_module[module].body.parts for each in own_modules(part)]
            found[module] = 1 + max((height(each) for each in children), default=-1)
        return found[module]

    for member in modules:
        height(member.module)
    return found


def _skeleton(member: Module, known: dict[nn.Module, Class]) -> str:
    """Describe a module without its numbers: modules with equal text share a class."""

    def skeleton(part: Construction) -> Any:
        if isinstance(part, Leaf):
            return part.kind, [(each.name, None if _is_number(each.value) else each.value) for each in part.given]
        if isinstance(part, Container):
            return part.kind, [(name, skeleton(each)) for name, each in part.parts]
        if isinstance(part, OwnModule):
            return known[part.module].name
        if isinstance(part, Weights):
            return "weights", part.buffer, part.kind, len(part.sizes)
        return "same", part.path

    parts = [(name, skeleton(part)) for name, part in member.body.parts]
    methods = [(method.name, method.arguments, method.lines) for method in member.methods]
    return repr((type(member.module).__name__, member.base, parts, methods, member.attributes))


def _is_number(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(_is_number(part) for part in value)
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _unused(base: str, taken: set[str], *, separator: str) -> str:
    """Return a name that isn't taken: the base, or the base with a number appended."""
    return next(name for name in (base, *(f"{base}{separator}{n}" for n in range(2, 1000))) if name not in taken)


class _Constructor:
    """Writes a class's `__init__`, and determines its arguments."""

    def __init__(self, written: Class, known: dict[nn.Module, Class]) -> None:
        self.written, self.known = written, known

    def lines(self) -> list[str]:
        first = self.written.members[0]
        parts = list(self._parts())
        if first.base == "nn.Sequential":
            return [f"super().__init__({', '.join(self.write(column) for _, column in parts)})"]
        lines = ["super().__init__()", *(_setting(name, self.write(column), column[0]) for name, column in parts)]
        for name in first.attributes:
            values = [_without_origin(getattr(member.module, name)) for member in self.written.members]
            lines.append(f"self.{name} = {self._number(name, values)}")
        return lines

    def _parts(self) -> Iterator[tuple[str, list[Any]]]:
        """Yield each part's name and its construction in each member."""
        for index, (name, _) in enumerate(self.written.members[0].body.parts):
            yield name, [member.body.parts[index][1] for member in self.written.members]

    def write(self, column: list[Any]) -> str:
        """Write one part for all members."""
        first = column[0]
        if isinstance(first, Alias):
            return f"self.{first.path}"
        if isinstance(first, Weights):
            return self._weights(column)
        if isinstance(first, Container):
            return self._several(column)
        if isinstance(first, OwnModule):
            child = self.known[first.module]
            rows = zip(*(child.values(each.module) for each in column), strict=True)
            given = [self._number(name, list(values)) for name, values in zip(child.arguments, rows, strict=False)]
            return f"{child.name}({', '.join(given)})"
        return self._leaf(column)

    def _weights(self, column: list[Weights]) -> str:
        first = column[0]
        sizes = [
            self._number(each.name, [other.sizes[index].value for other in column])
            for index, each in enumerate(first.sizes)
        ]
        inside = (", ".join(sizes) if sizes else "()") + (f", dtype={first.kind}" if first.kind else "")
        return f"torch.zeros({inside})" if first.buffer else f"nn.Parameter(torch.zeros({inside}))"

    def _leaf(self, column: list[Leaf]) -> str:
        arguments, named = [], False
        for index, each in enumerate(column[0].given):
            values = [other.given[index].value for other in column]
            named = named or not (each.positional or index < MAX_POSITIONAL)
            if all(value == _default(each, leaf) for value, leaf in zip(values, column, strict=True)):
                named = True
                continue
            text = self._number(each.name, values) if _is_number(each.value) else repr(each.value)
            arguments.append(f"{each.name}={text}" if named or isinstance(each.value, bool) else text)
            named = named or isinstance(each.value, bool)
        return f"nn.{column[0].kind}({', '.join(arguments)})"

    def _several(self, column: list[Container]) -> str:
        kind, names = column[0].kind, [name for name, _ in column[0].parts]
        parts = [self.write([each.parts[index][1] for each in column]) for index in range(len(names))]
        numbered = names == [str(index) for index in range(len(names))]
        if kind == "ModuleList" and numbered:
            return f"nn.ModuleList([{', '.join(parts)}])"
        if kind == "Sequential" and numbered:
            return f"nn.Sequential({', '.join(parts)})"
        inside = ", ".join(f'"{name}": {part}' for name, part in zip(names, parts, strict=True))
        return f"nn.ModuleDict({{{inside}}})" if kind == "ModuleDict" else f"nn.Sequential(OrderedDict({{{inside}}}))"

    def _number(self, name: str, values: list[Any]) -> str:
        """Write a number that is equal in all members, or the argument that provides it."""
        if all(value == values[0] and type(value) is type(values[0]) for value in values):
            return repr(values[0])
        column = tuple(values)
        if column not in self.written.columns:
            base = {"num_features": "features", "normalized_shape": "features"}.get(name, name)
            self.written.arguments.append(_unused(base, set(self.written.arguments), separator="_"))
            self.written.columns.append(column)
        return self.written.arguments[self.written.columns.index(column)]


def _setting(name: str, text: str, construction: Construction) -> str:
    if isinstance(construction, Weights) and construction.buffer:
        return f'self.register_buffer("{name}", {text})'
    return f"self.{name} = {text}" if name.isidentifier() else f'self.add_module("{name}", {text})'


def _without_origin(value: Any) -> Any:
    return tuple(plain(part) for part in value) if isinstance(value, tuple) else plain(value)


def _default(given: ConstructorArgument, leaf: Leaf) -> Any:
    """Return a constructor's default of an argument; the default stride of a pooling is its window."""
    if given.name == "stride" and given.default is None:
        return leaf.given[0].value
    if isinstance(given.default, tuple) and len(set(given.default)) == 1:
        return given.default[0]
    return inspect.Parameter.empty if given.default is inspect.Parameter.empty else given.default
