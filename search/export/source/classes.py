"""Classes from modules: those that do the same with other sizes are one class, and the sizes its arguments."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from search.export.source.method import Method
from search.export.source.spell import Body, Given, Leaf, Own, Same, Several, Spelled, Weights, own_modules
from search.export.source.tracked import plain

Values = tuple[Any, ...]  # a number of each of a class's modules


@dataclass
class Module:
    """One module: what it holds and what it does."""

    module: nn.Module
    body: Body
    methods: list[Method]
    base: str = "nn.Module"

    @property
    def attributes(self) -> list[str]:
        """Names of its own numbers that some method reads, its parents' methods included."""
        return self._attributes

    _attributes: list[str] = field(default_factory=list)


@dataclass
class Class:
    """One class of the source: its name, arguments, and lines."""

    name: str
    members: list[Module]
    arguments: list[str] = field(default_factory=list)
    columns: list[Values] = field(default_factory=list)

    def values(self, module: nn.Module) -> list[Any]:
        """Return the arguments that make one of its modules."""
        row = next(index for index, member in enumerate(self.members) if member.module is module)
        return [column[row] for column in self.columns]


class Classes:
    """Groups modules into classes, children before parents, and writes each."""

    def __init__(self, modules: list[Module]) -> None:
        self.of: dict[nn.Module, Class] = {}
        self.text: dict[str, list[str]] = {}
        heights = self._heights(modules)
        for height in range(max(heights.values(), default=0) + 1):
            groups: dict[str, list[Module]] = {}
            for member in modules:
                if heights[member.module] == height:
                    groups.setdefault(self._key(member), []).append(member)
            for members in groups.values():
                self._add(members)

    @staticmethod
    def _heights(modules: list[Module]) -> dict[nn.Module, int]:
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

    def _key(self, member: Module) -> str:
        """Spell all but the numbers."""
        parts = [(name, self._skeleton(part)) for name, part in member.body.parts]
        methods = [(method.name, method.arguments, method.lines) for method in member.methods]
        return repr((type(member.module).__name__, member.base, parts, methods, member.attributes))

    def _skeleton(self, part: Spelled) -> Any:
        if isinstance(part, Leaf):
            return part.kind, [(each.name, None if _is_number(each.value) else each.value) for each in part.given]
        if isinstance(part, Several):
            return part.kind, [(name, self._skeleton(each)) for name, each in part.parts]
        if isinstance(part, Own):
            return self.of[part.module].name
        if isinstance(part, Weights):
            return "weights", part.buffer, part.kind, len(part.sizes)
        return "same", part.path

    def _add(self, members: list[Module]) -> None:
        base = type(members[0].module).__name__.lstrip("_")
        name = next(name for name in (base, *(f"{base}{n}" for n in range(2, 1000))) if name not in self.text)
        made = Class(name, members)
        for member in members:
            self.of[member.module] = made
        self.text[name] = _Constructor(self, made).lines()


def _is_number(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(_is_number(part) for part in value)
    return isinstance(value, (int, float)) and not isinstance(value, bool)


class _Constructor:
    """Writes a class's `__init__`."""

    def __init__(self, classes: Classes, made: Class) -> None:
        self.classes, self.made = classes, made

    def lines(self) -> list[str]:
        first = self.made.members[0]
        if first.base == "nn.Sequential":
            inside = [self._joined(column) for column in self._columns_of([m.body.parts for m in self.made.members])]
            return [f"super().__init__({', '.join(text for _, text in inside)})"]
        lines = ["super().__init__()"]
        for name, text in (
            (name, self._joined(column)[1])
            for name, column in zip((n for n, _ in first.body.parts), self._parts(), strict=True)
        ):
            spelled = dict(first.body.parts)[name]
            lines.append(_setting(name, text, buffer=isinstance(spelled, Weights) and spelled.buffer))
        for name in first.attributes:
            values = [_plain_value(getattr(member.module, name)) for member in self.made.members]
            lines.append(f"self.{name} = {self._number(Given(name, None), values)}")
        return lines

    def _parts(self) -> Iterator[list[Spelled]]:
        for index in range(len(self.made.members[0].body.parts)):
            yield [member.body.parts[index][1] for member in self.made.members]

    def _columns_of(self, rows: list[Any]) -> Iterator[list[Spelled]]:
        for index in range(len(rows[0])):
            yield [row[index][1] for row in rows]

    def _joined(self, column: list[Spelled]) -> tuple[str, str]:
        return "", self.write(column)

    def write(self, column: list[Any]) -> str:
        """Write one part as all members have it."""
        first = column[0]
        if isinstance(first, Same):
            return "self." + first.path
        if isinstance(first, Weights):
            columns = [[other.sizes[index].value for other in column] for index in range(len(first.sizes))]
            sizes = [self._number(each, values) for each, values in zip(first.sizes, columns, strict=True)]
            inside = (", ".join(sizes) if sizes else "()") + (f", dtype={first.kind}" if first.kind else "")
            return f"torch.zeros({inside})" if first.buffer else f"nn.Parameter(torch.zeros({inside}))"
        if isinstance(first, Several):
            return self._several(column)
        if isinstance(first, Own):
            made = self.classes.of[first.module]
            rows = [made.values(each.module) for each in column]
            columns = [[row[index] for row in rows] for index in range(len(made.arguments))]
            given = [
                self._number(Given(name, None), values) for name, values in zip(made.arguments, columns, strict=True)
            ]
            return f"{made.name}({', '.join(given)})"
        return self._leaf(column)

    def _leaf(self, column: list[Leaf]) -> str:
        said, named = [], False
        for index, each in enumerate(column[0].given):
            values = [other.given[index].value for other in column]
            if all(value == _default(each, leaf) for value, leaf in zip(values, column, strict=True)):
                named = True
                continue
            text = self._number(each, values) if _is_number(each.value) else repr(each.value)
            said.append(text if not named and (each.positional or index < 4) else f"{each.name}={text}")
            named = named or not (each.positional or index < 4)
        return f"nn.{column[0].kind}({', '.join(said)})"

    def _several(self, column: list[Several]) -> str:
        kind, names = column[0].kind, [name for name, _ in column[0].parts]
        parts = [self.write([each.parts[index][1] for each in column]) for index in range(len(names))]
        numbered = names == [str(index) for index in range(len(names))]
        if kind == "ModuleList" and numbered:
            return f"nn.ModuleList([{', '.join(parts)}])"
        if kind == "Sequential" and numbered:
            return f"nn.Sequential({', '.join(parts)})"
        inside = ", ".join(f'"{name}": {part}' for name, part in zip(names, parts, strict=True))
        return f"nn.ModuleDict({{{inside}}})" if kind == "ModuleDict" else f"nn.Sequential(OrderedDict({{{inside}}}))"

    def _number(self, given: Given, values: list[Any]) -> str:
        """Write a number that is the same in all members, or the argument that it comes from."""
        if all(value == values[0] and type(value) is type(values[0]) for value in values):
            return repr(values[0])
        column = tuple(values)
        if column in self.made.columns:
            return self.made.arguments[self.made.columns.index(column)]
        base = {"num_features": "features", "normalized_shape": "features"}.get(given.name, given.name)
        name = next(
            name for name in (base, *(f"{base}_{n}" for n in range(2, 1000))) if name not in self.made.arguments
        )
        self.made.arguments.append(name)
        self.made.columns.append(column)
        return name


def _setting(name: str, text: str, *, buffer: bool) -> str:
    if buffer:
        return f'self.register_buffer("{name}", {text})'
    return f"self.{name} = {text}" if name.isidentifier() else f'self.add_module("{name}", {text})'


def _plain_value(value: Any) -> Any:
    return tuple(plain(part) for part in value) if isinstance(value, tuple) else plain(value)


def _default(given: Given, leaf: Leaf) -> Any:
    """Return what a constructor takes for an argument that isn't given: pooling strides are the window's."""
    if given.name == "stride" and given.default is None:
        return leaf.given[0].value
    default = given.default
    if isinstance(default, tuple) and len(set(default)) == 1:
        return default[0]
    return inspect.Parameter.empty if default is inspect.Parameter.empty else default
