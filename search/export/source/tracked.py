"""Numbers that record their origin: a size read from a tensor stays an expression in the written source."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Number = int | float


@dataclass(frozen=True, eq=False)
class Size:
    """The size of a value along an axis."""

    value: Any
    axis: int


@dataclass(frozen=True, eq=False)
class Attribute:
    """A numeric attribute of a module, or an item of a tuple of numbers."""

    module: Any
    name: str
    index: int | None = None


@dataclass(frozen=True, eq=False)
class Argument:
    """A numeric argument of a method, as an expression."""

    text: str


@dataclass(frozen=True, eq=False)
class Operation:
    """Arithmetic on numbers, at least one of them dynamic; a negation has one operand."""

    symbol: str
    operands: tuple[Any, ...]


Origin = Size | Attribute | Argument | Operation


class TrackedInt(int):
    """An int with an origin."""

    origin: Origin


class TrackedFloat(float):
    """A float with an origin."""

    origin: Origin


def tracked(value: Number, origin: Origin) -> Number:
    """Return a number with an origin."""
    number: Any = TrackedInt(value) if isinstance(value, int) else TrackedFloat(value)
    number.origin = origin
    return number  # type: ignore[no-any-return]


def origin_of(value: object) -> Origin | None:
    """Return a tracked number's origin, or None."""
    return value.origin if isinstance(value, (TrackedInt, TrackedFloat)) else None


def plain(value: Any) -> Any:
    """Return a tracked number as a plain number, anything else unchanged."""
    if isinstance(value, TrackedInt):
        return int(value)
    return float(value) if isinstance(value, TrackedFloat) else value


def larger(one: Any, other: Any) -> Any:
    """Return the larger of two numbers, tracked as depending on both."""
    return _combine("max", max, one, other)


def _combine(symbol: str, function: Callable[..., Any], *operands: Any) -> Any:
    """Compute a result, tracked if an operand is dynamic. Attributes of modules are folded into constants."""
    if any(not isinstance(each, (int, float)) for each in operands):
        return NotImplemented
    value = function(*[plain(each) for each in operands])
    origins = [origin_of(each) for each in operands]
    if all(origin is None or isinstance(origin, Attribute) for origin in origins):
        return value
    neutral = {"*": 1, "//": 1, "/": 1, "+": 0, "-": 0}.get(symbol)
    if len(operands) == 2 and operands[1] == neutral and origins[1] is None and symbol != "/":
        return operands[0]
    if symbol in "*+" and operands[0] == neutral and origins[0] is None:
        return operands[1]
    return tracked(value, Operation(symbol, operands))


def _define(kind: type, name: str, symbol: str) -> None:
    function = getattr(operator, name)

    def forward(self: Any, other: Any) -> Any:
        return _combine(symbol, function, self, other)

    def reflected(self: Any, other: Any) -> Any:
        return _combine(symbol, function, other, self)

    setattr(kind, f"__{name}__", forward)
    setattr(kind, f"__r{name}__", reflected)


for _kind in (TrackedInt, TrackedFloat):
    for _name, _symbol in (
        ("add", "+"),
        ("sub", "-"),
        ("mul", "*"),
        ("floordiv", "//"),
        ("truediv", "/"),
        ("mod", "%"),
    ):
        _define(_kind, _name, _symbol)
    _kind.__neg__ = lambda self: _combine("-", operator.neg, self)  # type: ignore[method-assign]
