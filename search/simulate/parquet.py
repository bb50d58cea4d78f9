"""Tables of known results as Parquet files: written, and read as spaces to search."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from search.config.errors import UserError, nearest
from search.config.objectives import OBJECTIVES
from search.files import replace_file
from search.simulate.tables import Table
from search.trials.check_table import REQUIRED
from search.trials.records import Costs, Latency
from search.trials.table_file import COLUMNS, Trainings, read_trainings
from space.architecture import Architecture, Value
from space.axes import Axis
from space.canonical import Context, Decisions
from space.space import Space

USUAL = ("memory", "latency")  # the costs that are objectives by default, if the table has them
ABSENT = "-"  # the choice of an axis for architectures without the entry
NO_CONTEXT = Context((1, 1, 1), (1.0, 1.0, 1.0), 1, 1)  # a placeholder: networks of a table are never built


def write_table(table: Table, file: Path, *, seeds: int = 1) -> None:
    """Write a table with trainings of each architecture for `seeds` seeds."""
    import pyarrow
    import pyarrow.parquet

    columns: dict[str, list[Any]] = {name: [] for name in (*REQUIRED, *COLUMNS, "epoch_s")}
    for row, decisions in enumerate(table.decisions):
        text, costs = json.dumps(decisions), table.costs[row]
        for seed in range(seeds):
            curve = table.curve(row, seed).tolist()
            columns["architecture"] += [text] * len(curve)
            columns["seed"] += [seed] * len(curve)
            columns["epoch"] += range(1, len(curve) + 1)
            columns["dice"] += curve
            columns["epoch_s"] += [float(table.epoch_s[row])] * len(curve)
            for column, objective in COLUMNS.items():
                columns[column] += [costs.of(objective)] * len(curve)
    replace_file(file, lambda part: pyarrow.parquet.write_table(pyarrow.table(columns), part))


def read_table(file: Path, *, objectives: Sequence[str] | None = None) -> Table:
    """Read a table. Each entry of its architectures becomes an axis, with the choice ABSENT if some lack the entry.

    Without `objectives` they are Dice with memory and latency, as far as the table has them, or else with all of its
    costs. Raises UserError for missing columns, invalid values, missing objectives, and objectives that leave nothing
    to search.
    """
    trainings = read_trainings(file)
    directions = _directions(file, trainings, objectives)
    space, decisions = _flat_space(trainings.entries)
    table = Table(
        name=file.stem,
        character=f"read from {file.name}",
        space=space,
        directions=directions,
        decisions=decisions,
        architectures=tuple(Architecture.of(each) for each in decisions),
        costs=tuple(_costs(trainings, row) for row in range(len(decisions))),
        truth=np.array([runs[:, -1].mean() for runs in trainings.curves]),
        epochs=trainings.epochs,
        epoch_s=trainings.epoch_s,
        curve=lambda row, seed: trainings.curves[row][seed % len(trainings.curves[row])],
        sparse=True,
    )
    _require_choice(file, table)
    return table


def _directions(file: Path, trainings: Trainings, objectives: Sequence[str] | None) -> dict[str, str]:
    present = [COLUMNS[column] for column in trainings.costs]
    if objectives is None:
        usual = [name for name in USUAL if name in present] or present
        objectives = ("dice", *usual)
    absent = [name for name in objectives if name not in ("dice", *present)]
    if absent:
        found = ", ".join(["dice", *present])
        raise UserError([f"{file}: missing objectives: {', '.join(absent)} (found: {found})"])
    return directions_of(objectives)


def directions_of(objectives: Sequence[str]) -> dict[str, str]:
    """Return the objectives with their directions."""
    return {name: OBJECTIVES[name].direction for name in objectives}


def check_objectives(names: Sequence[str]) -> list[str]:
    """Return what is wrong with the names of objectives."""
    mistakes = [
        f"simulate: --objectives: there is no objective {name!r}{nearest(name, tuple(OBJECTIVES))}"
        for name in names
        if name not in OBJECTIVES
    ]
    if "dice" not in names:
        mistakes.append("simulate: --objectives: dice is missing; costs are known without a search")
    if len(set(names)) < len(names):
        mistakes.append("simulate: --objectives: a name is repeated")
    return mistakes


def _require_choice(file: Path, table: Table) -> None:
    """Raise UserError if an objective is equal everywhere, or if no architecture beats the worst values at once."""
    if table.size < 2:
        raise UserError([f"{file}: architecture is the same in all rows; a search needs two or more"])
    columns = {name: OBJECTIVES[name].column for name in table.directions}
    equal = [columns[name] for name, losses in zip(columns, table.losses.T, strict=True) if np.ptp(losses) == 0]
    if equal:
        hint = "leave it out with --objectives" if equal != ["dice"] else "there is nothing to learn"
        raise UserError([f"{file}: {name} is equal for all architectures; {hint}" for name in equal])
    if table.best_volume <= 0:
        named = ", ".join(columns.values())
        raise UserError(
            [f"{file}: {named}: each architecture has the worst value of one of them, so no search can gain"]
        )


def _flat_space(entries: Sequence[dict[str, Value]]) -> tuple[Space, tuple[Decisions, ...]]:
    names = list(dict.fromkeys(name for each in entries for name in each))
    decisions: tuple[Decisions, ...] = tuple({name: each.get(name, ABSENT) for name in names} for each in entries)
    axes = []
    for name in names:
        choices = dict.fromkeys(each[name] for each in decisions)
        axes.append(Axis(name, tuple(sorted(choices, key=lambda value: (isinstance(value, str), str(value)))), ""))
    return _TableSpace(tuple(axes), NO_CONTEXT), decisions


class _TableSpace(Space):
    """A flat space whose architectures equal its decisions."""

    def architecture(self, decisions: Any) -> Architecture:
        """Return the decisions as an architecture."""
        return Architecture.of(decisions)


def _costs(trainings: Trainings, row: int) -> Costs:
    def of(name: str) -> float:
        return float(trainings.costs[name][row]) if name in trainings.costs else 0.0

    timed = "latency_s" in trainings.costs
    latency = Latency(of("latency_s"), 0.0, 1, True, "table", 1, "unknown") if timed else None
    return Costs(
        int(of("params")), int(of("macs")), int(of("memory_bytes")), int(of("inference_memory_bytes")), latency
    )
