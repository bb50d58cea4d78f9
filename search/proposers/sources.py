"""Sources of memory: the trainings of an earlier study or of a table, as plain values."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from search.config.objectives import COSTS
from search.proposers.observations import Training, training_of
from search.trials.records import Record
from search.trials.table_file import COLUMNS, Trainings
from space.space import Space


@dataclass(frozen=True)
class Source:
    """An earlier study or a table: its name and its finished trainings."""

    name: str
    trainings: tuple[Training, ...]

    @property
    def digest(self) -> str:
        """The digest of everything that can be learned from the source."""
        found = hashlib.sha256()
        for each in self.trainings:
            decisions = sorted((name, repr(value)) for name, value in each.decisions.items())
            costs, curve = ([repr(float(number)) for number in numbers] for numbers in (each.costs, each.curve))
            found.update(json.dumps([decisions, costs, each.state, repr(each.dice), curve]).encode())
        return found.hexdigest()

    @property
    def axes(self) -> dict[str, set[object]]:
        """The trained choices of each axis."""
        found: dict[str, set[object]] = {}
        for each in self.trainings:
            for name, value in each.decisions.items():
                found.setdefault(name, set()).add(value)
        return {name: values for name, values in found.items() if len(values) > 1}


def shared_axes(space: Space, source: Source) -> tuple[str, ...]:
    """Return the axes of a space of which the source trained at least two of the choices."""
    trained = source.axes
    return tuple(axis.name for axis in space.axes if len(trained.get(axis.name, set()) & set(axis.choices)) > 1)


def source_of_records(name: str, records: Sequence[Record]) -> Source:
    """Return the trained and stopped records of a study as a source."""
    used = [each for each in records if each.state in ("trained", "stopped") and not each.is_outside]
    return Source(name, tuple(training_of(each) for each in used))


def source_of_table(name: str, table: Trainings) -> Source:
    """Return a table's trainings as a source, each seed of a network a training of its own."""
    costs = np.full((len(table.entries), len(COSTS)), np.nan)
    for column, values in table.costs.items():
        costs[:, COSTS.index(COLUMNS[column])] = values
    return Source(
        name,
        tuple(
            Training(str(row), entries, costs[row], "trained", float(curve[-1]), curve)
            for row, entries in enumerate(table.entries)
            for curve in table.curves[row]
        ),
    )
