"""Decisions as numbers for surrogates: a vector of fixed length, with a name for each column."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from space.architecture import Value
from space.axes import Axis
from space.encoding import is_ordered
from space.space import Space

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Features:
    """The free axes of a space (those with two choices or more) as numbers."""

    space: Space

    @cached_property
    def axes(self) -> tuple[Axis, ...]:
        """The axes that have something to choose."""
        return tuple(axis for axis in self.space.axes if len(axis.choices) > 1)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The columns of `vectors`: `width`, `width:open` where it can be closed, `norm=batch` for one choice."""
        return tuple(name for axis in self.axes for name in _columns(axis))

    def vectors(self, decisions: Sequence[Mapping[str, Value]]) -> Matrix:
        """Return one row a decision set: ordered axes as their numbers, others one-hot, closed axes all 0."""
        rows = [[number for axis in self.axes for number in _numbers(axis, each)] for each in decisions]
        return np.array(rows, dtype=float).reshape(len(rows), len(self.names))


def _columns(axis: Axis) -> list[str]:
    if is_ordered(axis):
        return [axis.name, f"{axis.name}:open"] if axis.when else [axis.name]
    return [f"{axis.name}={choice}" for choice in axis.choices]


def _numbers(axis: Axis, decisions: Mapping[str, Value]) -> list[float]:
    is_open = axis.name in decisions
    if is_ordered(axis):
        value = float(str(decisions[axis.name])) if is_open else 0.0
        return [value, float(is_open)] if axis.when else [value]
    return [float(is_open and decisions[axis.name] == choice) for choice in axis.choices]
