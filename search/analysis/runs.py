"""Compare runs: their fronts, and their hypervolume over hours of training from a common reference."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce

from rich.table import Table

from search.analysis.snapshot import Snapshot
from search.config import UserError
from search.config.objectives import OBJECTIVES, per_device, primary, show, show_point
from search.trials.pareto import refuse_mixed_devices

Row = tuple[str | tuple[float | None, str], ...]  # a text, or a number and its text


@dataclass(frozen=True)
class ComparedRun:
    """A run and its curve of (hours of trials, hypervolume), in ascending order."""

    snapshot: Snapshot
    curve: tuple[tuple[float, float], ...]

    @property
    def name(self) -> str:
        """The study's name and its proposer."""
        return f"{self.snapshot.study.name} ({self.snapshot.study.search.proposer})"

    @property
    def hours(self) -> float:
        """The total hours of its trials."""
        return sum(trial.spent_s for trial in self.snapshot.trials) / 3600

    def after(self, hours: float) -> float:
        """Return the hypervolume after this many hours of trials."""
        return max((volume for at, volume in self.curve if at <= hours), default=0.0)


def compare_runs(snapshots: Sequence[Snapshot]) -> tuple[dict[str, float], list[ComparedRun]]:
    """Return the common reference (the worst of the runs' own), and each run's hypervolume measured from it.

    Raises UserError if objectives differ, if latencies belong to different devices, or if a run has no trials.
    """
    stopped = [each.label for each in snapshots if not each.reference]
    if stopped:
        raise UserError([f"{', '.join(stopped)} stopped before the first trial; resume with `voxnas run`"])
    first = snapshots[0].study.directions
    for each in snapshots[1:]:
        if each.study.directions != first:
            named = " and ".join(f"{', '.join(one.objectives)} ({one.study.name})" for one in (snapshots[0], each))
            raise UserError([f"runs of different objectives can't be compared: {named}"])
    if per_device(first):
        refuse_mixed_devices([device for each in snapshots for device in each.devices])
    reference = {name: reduce(OBJECTIVES[name].worse, (each.reference[name] for each in snapshots)) for name in first}
    return reference, [ComparedRun(each, _curve(each, reference)) for each in snapshots]


def _curve(snapshot: Snapshot, reference: Mapping[str, float]) -> tuple[tuple[float, float], ...]:
    """Return (hours, hypervolume) after each trial, in order of their ends; trials without a result count too."""
    rows, hours, _ = snapshot.progress
    return ((0.0, 0.0), *zip(hours.tolist(), snapshot.volumes(rows, reference).tolist(), strict=True))


def compare_table(reference: Mapping[str, float], compared: Sequence[ComparedRun]) -> Table:
    """Return the runs as a table for the terminal, one per row."""
    title, headings, rows = compared_rows(reference, compared)
    table = Table(title=title, title_justify="left")
    for heading in headings:
        table.add_column(heading, justify="left" if heading == headings[0] else "right")
    for row in rows:
        table.add_row(*(cell if isinstance(cell, str) else cell[1] for cell in row))
    return table


def compared_rows(
    reference: Mapping[str, float], compared: Sequence[ComparedRun]
) -> tuple[str, tuple[str, ...], list[Row]]:
    """Return the table's title, its headings, and a row per run."""
    equal, about = min(run.hours for run in compared), primary(compared[0].snapshot.study.directions)
    kind = "expected " if about == "dice" and all(run.snapshot.estimates for run in compared) else ""
    best = f"best {kind}{OBJECTIVES[about].heading}"
    headings = ("run", "trained", "hours", "front", best, "hypervolume", f"after {equal:.2f} hours")
    title = f"{volume_title(compared)}; reference point: {show_point(reference)}"
    return title, headings, [_row(run, about, equal) for run in compared]


def _row(run: ComparedRun, about: str, equal: float) -> Row:
    front, trained = len(run.snapshot.front()), int((run.snapshot.states == "trained").sum())
    best, volume = _best(run.snapshot, about) if front else None, run.curve[-1][1]
    return (
        run.name,
        (trained, str(trained)),
        (run.hours, f"{run.hours:.2f}"),
        (front, str(front)),
        (best, show(about, best) if front else ""),
        (volume, f"{volume:.4f}"),
        (run.after(equal), f"{run.after(equal):.4f}"),
    )


def volume_title(compared: Sequence[ComparedRun]) -> str:
    """Return the heading of the runs' hypervolumes: whether their Dice is expected or measured."""
    titles = {run.snapshot.volume_title for run in compared}
    return titles.pop() if len(titles) == 1 else "hypervolume (of expected Dice where enough networks are trained)"


def _best(snapshot: Snapshot, about: str) -> float | None:
    """Return the best of the front in an objective, by expected Dice where it is known."""
    record = snapshot.best()
    measured = record.measurement.value(about)
    return snapshot.estimate_of(record.number).get("expected_dice", measured) if about == "dice" else measured


def compare_json(reference: Mapping[str, float], compared: Sequence[ComparedRun]) -> str:
    """Return the comparison as JSON: hours, and costs in bytes, seconds and counts."""
    runs = [
        {
            "run": run.snapshot.study.name,
            "proposer": run.snapshot.study.search.proposer,
            "hours": run.hours,
            "hypervolume": run.curve[-1][1],
            "hypervolume_dice": "measured" if run.snapshot.estimates is None else "expected",
            "curve": [list(point) for point in run.curve],
            "front": [
                {
                    **{name: record.measurement.value(name) for name in run.snapshot.objectives},
                    **run.snapshot.estimate_of(record.number),
                }
                for record in run.snapshot.front()
            ],
        }
        for run in compared
    ]
    return json.dumps({"reference": reference, "runs": runs}, indent=2)
