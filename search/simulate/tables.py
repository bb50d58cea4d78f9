"""A table of known results: the architectures of a space with their costs, Dice and learning curves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from search.config.objectives import OBJECTIVES
from search.trials.pareto import volume, worst_losses
from search.trials.records import Costs
from space.architecture import Architecture, Value
from space.canonical import Decisions
from space.space import Space

Matrix = NDArray[np.float64]
Key = tuple[Value | None, ...]


@dataclass(frozen=True)
class Table:
    """Rows are architectures; `truth` is the expected Dice of a full training, `curve` a seed's Dice per epoch."""

    name: str
    character: str
    space: Space
    directions: Mapping[str, str]
    decisions: tuple[Decisions, ...]
    architectures: tuple[Architecture, ...]
    costs: tuple[Costs, ...]
    truth: Matrix
    epochs: int
    epoch_s: Matrix
    curve: Callable[[int, int], Matrix]
    sparse: bool = False  # the table holds only some of the space's architectures

    @property
    def size(self) -> int:
        """The number of architectures."""
        return len(self.architectures)

    @cached_property
    def _rows(self) -> dict[Key, int]:
        return {self._key(decisions): row for row, decisions in enumerate(self.decisions)}

    @cached_property
    def row_of(self) -> dict[Architecture, int]:
        """The row of each architecture."""
        return {architecture: row for row, architecture in enumerate(self.architectures)}

    def architecture(self, decisions: Mapping[str, Value]) -> Architecture:
        """Return the architecture of decisions, looked up in the table or computed."""
        row = self._rows.get(self._key(decisions))
        return self.architectures[row] if row is not None else self.space.architecture(decisions)

    def _key(self, decisions: Mapping[str, Value]) -> Key:
        return tuple(decisions.get(axis.name) for axis in self.space.axes)

    @cached_property
    def losses(self) -> Matrix:
        """The losses (all minimised), one row per architecture and one column per objective; Dice is the true Dice."""
        columns = [OBJECTIVES[name].loss(self._values(name)) for name in self.directions]
        return np.stack(columns, axis=1)

    def _values(self, name: str) -> Matrix:
        if OBJECTIVES[name].learned:
            return self.truth
        return np.array([each.of(name) for each in self.costs], dtype=float)

    @cached_property
    def reference(self) -> dict[str, float]:
        """The worst value of each objective in the table; a Dice of 0 would make any network's hypervolume high."""
        worst = self.losses.max(axis=0)
        return {
            name: float(OBJECTIVES[name].from_loss(loss)) for name, loss in zip(self.directions, worst, strict=True)
        }

    @cached_property
    def best_volume(self) -> float:
        """The hypervolume of the whole table."""
        return volume(self.losses, self.worst)

    @cached_property
    def worst(self) -> Matrix:
        """The reference as losses."""
        return worst_losses(self.reference, self.directions)
