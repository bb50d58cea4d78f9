"""Many decision sets at once as rows of small integers: sampled, mended, varied and crossed without a Python loop."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from space.architecture import Value
from space.axes import Axis
from space.canonical import Decisions
from space.space import Space

Matrix = NDArray[np.float64]
Codes = NDArray[np.int64]
CLOSED = 0  # the code of an axis that doesn't exist under the decisions before it; choices count from 1
NEAR = 0.5  # distance, as a share of an ordered axis's range, at which similarity has fallen to exp(-1/2)


@dataclass(frozen=True)
class Coded:
    """A space whose decision sets are rows of codes, one column an axis, closed axes 0."""

    space: Space

    @cached_property
    def counts(self) -> Codes:
        """How many choices each axis has."""
        return np.array([len(axis.choices) for axis in self.space.axes], dtype=np.int64)

    @cached_property
    def free(self) -> Codes:
        """The columns of axes that have something to choose."""
        return np.flatnonzero(self.counts > 1)

    @cached_property
    def similarities(self) -> tuple[Matrix, ...]:
        """For each free axis the similarity (0 to 1) of any two codes; a closed axis is like itself alone."""
        return tuple(_similarity(self.space.axes[column]) for column in self.free)

    @cached_property
    def _code_of(self) -> tuple[tuple[str, dict[Value, int]], ...]:
        return tuple(
            (axis.name, {choice: code for code, choice in enumerate(axis.choices, start=1)}) for axis in self.space.axes
        )

    @cached_property
    def _conditions(self) -> tuple[tuple[tuple[int, NDArray[np.bool_]], ...], ...]:
        """For each axis the columns that its condition names, with the codes there that open it."""
        column = {axis.name: number for number, axis in enumerate(self.space.axes)}
        return tuple(
            tuple(
                (column[name], np.array([False, *(choice in allowed for choice in self.space.by_name[name].choices)]))
                for name, allowed in axis.when
            )
            for axis in self.space.axes
        )

    def encode(self, decisions: Sequence[Mapping[str, Value]]) -> Codes:
        """Return one row a decision set; an unknown value is a KeyError."""
        rows = [[code[each[name]] if name in each else CLOSED for name, code in self._code_of] for each in decisions]
        return np.array(rows, dtype=np.int64).reshape(len(rows), len(self.space.axes))

    def decode(self, row: Codes) -> Decisions:
        """Return the decisions of one row."""
        return {
            axis.name: axis.choices[code - 1] for axis, code in zip(self.space.axes, row.tolist(), strict=True) if code
        }

    def heal(self, rows: Codes) -> Codes:
        """Close what the decisions before it close, and give what they open its first choice where it has none."""
        healed = rows.copy()
        for number, conditions in enumerate(self._conditions):
            is_open = np.ones(len(rows), dtype=bool)
            for column, opens in conditions:
                is_open &= opens[healed[:, column]]
            healed[:, number] = np.where(is_open, np.maximum(healed[:, number], 1), CLOSED)
        return healed

    def sample(self, rng: np.random.Generator, count: int) -> Codes:
        """Decide every open axis at random, evenly over its choices."""
        drawn = rng.random((count, len(self.counts)))
        return self.heal(1 + (drawn * self.counts).astype(np.int64))

    def neighbours(self, row: Codes) -> Codes:
        """Return every row that differs in exactly one decision, then healed."""
        columns = np.flatnonzero(row != CLOSED)
        changed = [(column, code) for column in columns for code in range(1, self.counts[column] + 1)]
        changed = [(column, code) for column, code in changed if row[column] != code]
        rows = np.repeat(row[None], len(changed), axis=0)
        for number, (column, code) in enumerate(changed):
            rows[number, column] = code
        return self.heal(rows)

    def vary(self, rng: np.random.Generator, rows: Codes, *, share: float) -> Codes:
        """Change each decision at random with this chance."""
        anew = 1 + (rng.random(rows.shape) * self.counts).astype(np.int64)
        return self.heal(np.where((rng.random(rows.shape) < share) & (rows != CLOSED), anew, rows))

    def cross(self, rng: np.random.Generator, ones: Codes, others: Codes) -> Codes:
        """Take each decision from either of two rows, from the one that has it open where only one has."""
        first = rng.random(ones.shape) < 0.5
        picked = np.where(first, ones, others)
        return self.heal(np.where(picked == CLOSED, np.where(first, others, ones), picked))


def is_ordered(axis: Axis) -> bool:
    """Tell whether an axis's choices are numbers, so that their order and distance mean something."""
    return all(isinstance(choice, (int, float)) and not isinstance(choice, bool) for choice in axis.choices)


def _similarity(axis: Axis) -> Matrix:
    """One row and column a code; ordered choices are compared by the logarithm where all are positive."""
    similarity: Matrix = np.eye(len(axis.choices) + 1)
    if is_ordered(axis):
        values = [float(str(choice)) for choice in axis.choices]
        places = np.array([math.log(value) for value in values] if min(values) > 0 else values)
        distance = (places[:, None] - places[None, :]) / np.ptp(places)
        similarity[1:, 1:] = np.exp(-0.5 * (distance / NEAR) ** 2)
    return similarity
