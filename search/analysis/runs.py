"""Runs side by side: their fronts, and their hypervolume over hours of training, all from one reference."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path

from rich.table import Table

from search.analysis.front import Look, kept_study, look_at
from search.config import UserError, load_study
from search.config.objectives import OBJECTIVES, show, show_point
from search.storage.database import database_url
from search.trials.pareto import comparable, hypervolume_curve


@dataclass(frozen=True)
class Side:
    """A run, and its hypervolume after so many hours of trials: (hours, hypervolume), growing."""

    looked: Look
    curve: tuple[tuple[float, float], ...]

    @property
    def name(self) -> str:
        """The run's folder, and who proposed."""
        return f"{self.looked.study.name} ({self.looked.study.search.proposer})"

    @property
    def hours(self) -> float:
        """Hours of all its trials."""
        return sum(record.measurement.spent_s for record in self.looked.records) / 3600

    def after(self, hours: float) -> float:
        """Return the hypervolume after so many hours."""
        return max((volume for at, volume in self.curve if at <= hours), default=0.0)


def look_at_run(folder: Path) -> Look:
    """Read a run by its folder; its study is what the database keeps, overrides included.

    Raises UserError where no trial was started there.
    """
    file = folder / "study.yaml"
    if not file.exists():
        raise UserError([f"{folder} is not the folder of a run: it holds no study.yaml"])
    storage = load_study(file, need_data=False).study.storage
    study = kept_study(database_url(storage, folder), folder.name, storage=storage)
    if study is None:
        raise UserError([f"{folder}: the study's database knows no study {folder.name!r}"])
    looked = look_at(study, folder)
    if not looked.reference:
        raise UserError([f"{folder}: the study was stopped before its first trial; go on with `voxnas run`"])
    return looked


def compare_runs(looks: Sequence[Look]) -> tuple[dict[str, float], list[Side]]:
    """Return the common reference (the worst of the runs' own) and each run as it is seen from there.

    Raises UserError where objectives differ, or latencies belong to different devices.
    """
    first = looks[0].study.directions
    for each in looks[1:]:
        if each.study.directions != first:
            named = " and ".join(f"{', '.join(one.study.directions)} ({one.study.name})" for one in (looks[0], each))
            raise UserError([f"runs of different objectives can't be compared: {named}"])
    comparable([record for each in looks for record in each.records], first)
    reference = {name: reduce(OBJECTIVES[name].worse, (each.reference[name] for each in looks)) for name in first}
    return reference, [Side(each, _curve(each, reference)) for each in looks]


def _curve(looked: Look, reference: dict[str, float]) -> tuple[tuple[float, float], ...]:
    """Hours of trials count in the order in which trials ended, those that gave nothing included."""
    volumes = dict(hypervolume_curve(looked.records, looked.study.directions, reference))
    curve, spent_s, reached = [(0.0, 0.0)], 0.0, 0.0
    for record in sorted(looked.records, key=lambda each: (each.ended or "~", each.number)):
        spent_s += record.measurement.spent_s
        reached = volumes.get(record.number, reached)
        curve.append((spent_s / 3600, reached))
    return tuple(curve)


def compare_table(reference: dict[str, float], sides: Sequence[Side]) -> Table:
    """Return the runs as a table, a row each."""
    equal = min(side.hours for side in sides)
    table = Table(title=f"hypervolume from {show_point(reference)}", title_justify="left")
    for heading in ("run", "trained", "hours", "front", "best Dice", "hypervolume", f"after {equal:.2f} hours"):
        table.add_column(heading, justify="left" if heading == "run" else "right")
    for side in sides:
        trained = [record.measurement.dice for record in side.looked.records if record.state == "trained"]
        table.add_row(
            side.name,
            str(len(trained)),
            f"{side.hours:.2f}",
            str(len(side.looked.front)),
            show("dice", max((dice for dice in trained if dice is not None), default=None)),
            f"{side.curve[-1][1]:.4f}",
            f"{side.after(equal):.4f}",
        )
    return table


def compare_json(reference: dict[str, float], sides: Sequence[Side]) -> str:
    """Return the same as JSON: hours, and costs in bytes, seconds and counts."""
    runs = [
        {
            "run": side.looked.study.name,
            "proposer": side.looked.study.search.proposer,
            "hours": side.hours,
            "hypervolume": side.curve[-1][1],
            "curve": [list(point) for point in side.curve],
            "front": [
                {name: record.measurement.value(name) for name in side.looked.study.directions}
                for record in side.looked.front
            ],
        }
        for side in sides
    ]
    return json.dumps({"reference": reference, "runs": runs}, indent=2)
