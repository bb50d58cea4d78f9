"""Batches of decision sets as rows of integer codes: vectorised sampling, repair, mutation and crossover."""

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
CLOSED = 0  # the code of an axis that earlier decisions close; choices are coded from 1
LENGTH_SCALE = 0.5  # of the similarity on ordered axes, as a share of the axis's range


@dataclass(frozen=True)
class Coded:
    """A space with its decision sets encoded as rows of integers: one column per axis, 0 for closed axes."""

    space: Space

    @cached_property
    def counts(self) -> Codes:
        """The number of choices of each axis."""
        return np.array([len(axis.choices) for axis in self.space.axes], dtype=np.int64)

    @cached_property
    def free(self) -> Codes:
        """The columns of the axes with two or more choices."""
        return np.flatnonzero(self.counts > 1)

    @cached_property
    def similarities(self) -> tuple[Matrix, ...]:
        """For each free axis, the similarity (0 to 1) of any two codes; closed is similar only to closed."""
        return tuple(_similarity(self.space.axes[column]) for column in self.free)

    @cached_property
    def _code_of(self) -> tuple[tuple[str, dict[Value, int]], ...]:
        return tuple(
            (axis.name, {choice: code for code, choice in enumerate(axis.choices, start=1)}) for axis in self.space.axes
        )

    @cached_property
    def _conditions(self) -> tuple[tuple[tuple[int, NDArray[np.bool_]], ...], ...]:
        """For each axis, the columns in its condition, each with a mask of the codes that open the axis."""
        column = {axis.name: number for number, axis in enumerate(self.space.axes)}
        return tuple(
            tuple(
                (column[name], np.array([False, *(choice in allowed for choice in self.space.by_name[name].choices)]))
                for name, allowed in axis.when
            )
            for axis in self.space.axes
        )

    def encode(self, decisions: Sequence[Mapping[str, Value]]) -> Codes:
        """Return one row per decision set. Raises KeyError for an unknown value."""
        rows = [[code[each[name]] if name in each else CLOSED for name, code in self._code_of] for each in decisions]
        return np.array(rows, dtype=np.int64).reshape(len(rows), len(self.space.axes))

    def decode(self, row: Codes) -> Decisions:
        """Return the decisions of a row."""
        return {
            axis.name: axis.choices[code - 1] for axis, code in zip(self.space.axes, row.tolist(), strict=True) if code
        }

    def repair(self, rows: Codes) -> Codes:
        """Make rows consistent: close axes that earlier decisions close; give newly opened axes their first choice."""
        repaired = rows.copy()
        for number, conditions in enumerate(self._conditions):
            is_open = np.ones(len(rows), dtype=bool)
            for column, opens in conditions:
                is_open &= opens[repaired[:, column]]
            repaired[:, number] = np.where(is_open, np.maximum(repaired[:, number], 1), CLOSED)
        return repaired

    def sample(self, rng: np.random.Generator, count: int) -> Codes:
        """Draw rows at random, each open axis uniformly over its choices."""
        drawn = rng.random((count, len(self.counts)))
        return self.repair(1 + (drawn * self.counts).astype(np.int64))

    def neighbours(self, row: Codes) -> Codes:
        """Return all rows that differ from a row in exactly one decision, then repaired."""
        columns = np.flatnonzero(row != CLOSED)
        changed = [(column, code) for column in columns for code in range(1, self.counts[column] + 1)]
        changed = [(column, code) for column, code in changed if row[column] != code]
        rows = np.repeat(row[None], len(changed), axis=0)
        for number, (column, code) in enumerate(changed):
            rows[number, column] = code
        return self.repair(rows)

    def vary(self, rng: np.random.Generator, rows: Codes, *, share: float) -> Codes:
        """Redraw each decision with probability `share`."""
        redrawn = 1 + (rng.random(rows.shape) * self.counts).astype(np.int64)
        return self.repair(np.where((rng.random(rows.shape) < share) & (rows != CLOSED), redrawn, rows))

    def cross(self, rng: np.random.Generator, ones: Codes, others: Codes) -> Codes:
        """Take each decision from either row at random, or from the row in which the axis is open if only one is."""
        first = rng.random(ones.shape) < 0.5
        picked = np.where(first, ones, others)
        return self.repair(np.where(picked == CLOSED, np.where(first, others, ones), picked))


def is_ordered(axis: Axis) -> bool:
    """Return whether an axis is ordered: all its choices are numbers."""
    return all(isinstance(choice, (int, float)) and not isinstance(choice, bool) for choice in axis.choices)


def _similarity(axis: Axis) -> Matrix:
    """Return the similarity matrix of an axis's codes. Positive numbers are compared by their logarithms."""
    similarity: Matrix = np.eye(len(axis.choices) + 1)
    if is_ordered(axis):
        values = [float(str(choice)) for choice in axis.choices]
        places = np.array([math.log(value) for value in values] if min(values) > 0 else values)
        distance = (places[:, None] - places[None, :]) / np.ptp(places)
        similarity[1:, 1:] = np.exp(-0.5 * (distance / LENGTH_SCALE) ** 2)
    return similarity
