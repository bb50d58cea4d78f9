"""Parquet files of trainings, one row per training and epoch: read and checked.

Columns: `architecture` (JSON of decisions or of an architecture's entries), `seed`, `epoch` (from 1), `dice` (0 to 1),
any of the costs `params`, `macs`, `memory_bytes`, `inference_memory_bytes`, `latency_s`, and optionally `epoch_s`,
the seconds of an epoch (default: 1). Messages count rows from 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search.config.errors import UserError
from search.config.objectives import COSTS, OBJECTIVES
from search.trials.check_table import REQUIRED, TableErrors, column_errors, entries_of
from space.architecture import Value

COLUMNS = {OBJECTIVES[name].column: name for name in COSTS}  # of the costs


@dataclass(frozen=True)
class Trainings:
    """The checked content of a table: entries, curves (seeds, epochs) and known costs of each architecture."""

    entries: tuple[dict[str, Value], ...]
    seeds: tuple[tuple[int, ...], ...]
    curves: tuple[NDArray[np.float64], ...]
    costs: dict[str, NDArray[np.float64]]
    epoch_s: NDArray[np.float64]

    @property
    def epochs(self) -> int:
        """The length of the longest training; shorter curves repeat their last Dice."""
        return int(self.curves[0].shape[1])


def read_trainings(file: Path) -> Trainings:
    """Read and check the trainings of a table. Raises UserError with every mistake, each with its column and row."""
    columns = _columns(file)
    errors = TableErrors(file)
    numbers = column_errors(columns, costs=COLUMNS, errors=errors)
    entries = entries_of(columns["architecture"], errors)
    errors.raise_any()
    first: dict[tuple[tuple[str, Value], ...], int] = {}
    runs: list[dict[int, dict[int, int]]] = []  # of each architecture: seed, epoch, row
    for row, each in enumerate(entries):
        number = first.setdefault(tuple(sorted(each.items())), len(first))
        if number == len(runs):
            runs.append({})
        run = runs[number].setdefault(int(numbers["seed"][row]), {})
        earlier = run.setdefault(int(numbers["epoch"][row]), row)
        if earlier != row:
            errors.add("epoch", row, f"repeats row {earlier}, with the same architecture and seed")
    errors.raise_any()
    epochs = int(numbers["epoch"].max())
    rows = [next(iter(next(iter(each.values())).values())) for each in runs]
    every = [[row for run in each.values() for row in run.values()] for each in runs]
    seconds = numbers.get("epoch_s")
    return Trainings(
        entries=tuple(entries[row] for row in rows),
        seeds=tuple(tuple(sorted(each)) for each in runs),
        curves=tuple(_curves(each, numbers["dice"], epochs) for each in runs),
        costs={name: numbers[name][rows] for name in COLUMNS if name in numbers},
        epoch_s=np.ones(len(rows)) if seconds is None else np.array([seconds[each].mean() for each in every]),
    )


def _columns(file: Path) -> dict[str, list[Any]]:
    import pyarrow
    import pyarrow.parquet

    if not file.is_file():
        raise UserError([f"{file}: {'is a folder' if file.is_dir() else 'no such file'}"])
    with file.open("rb"):
        pass  # raises for a file that this user may not read
    try:
        table = pyarrow.parquet.read_table(file)
        known = [name for name in table.column_names if name in (*REQUIRED, *COLUMNS, "epoch_s")]
        columns = {name: table[name].to_pylist() for name in known}
    except UnicodeDecodeError:
        raise UserError([f"{file}: damaged: a text in it is not UTF-8"]) from None
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError([f"{file}: not a Parquet file: {str(error).splitlines()[0]}"]) from None
    missing = [name for name in REQUIRED if name not in columns]
    if missing:
        raise UserError([f"{file}: missing columns: {', '.join(missing)} (found: {', '.join(table.column_names)})"])
    if not table.num_rows:
        raise UserError([f"{file}: the table has no rows"])
    return columns


def _curves(runs: dict[int, dict[int, int]], dice: NDArray[np.float64], epochs: int) -> NDArray[np.float64]:
    """Return the Dice after each epoch, one row per seed; missing epochs repeat the last known Dice."""
    curves = np.zeros((len(runs), epochs))
    for number, run in enumerate(runs[seed] for seed in sorted(runs)):
        known = np.array(sorted(run))
        latest = np.maximum(np.searchsorted(known, np.arange(1, epochs + 1), side="right") - 1, 0)
        curves[number] = dice[[run[epoch] for epoch in known[latest].tolist()]]
    return curves
