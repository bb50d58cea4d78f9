"""A study's front and trials on the terminal, and its report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from search.analysis.confirmed_front import confirmed_json, confirmed_table
from search.analysis.front import front_json, front_table
from search.api.frames import INDEX, trial_rows
from search.api.study import Study
from search.api.terminal import open_console, print_json, print_text
from search.config.objectives import OBJECTIVES, show
from search.config.units import counted, show_bytes
from search.files import replace_file

if TYPE_CHECKING:
    import pandas as pd


def show_front(study: Study, *, json: bool, csv: Path | None) -> None:
    """Print the Pareto front."""
    snapshot = study.snapshot()
    if json:
        print_text(front_json(snapshot))
    else:
        open_console().print(front_table(snapshot))
    if csv is not None:
        _write_csv(study.front(axes=True), csv)


def show_trials(study: Study, *, json: bool, csv: Path | None) -> None:
    """Print all trials."""
    rows = trial_rows(study.snapshot())
    if json:
        print_json({"study": study.name, "trials": rows})
    else:
        open_console().print(trials_table(study.name, rows, list(study.settings.directions)))
    if csv is not None:
        _write_csv(study.trials(axes=True), csv)


def _write_csv(rows: pd.DataFrame, file: Path) -> None:
    """Write rows as CSV."""
    replace_file(file, lambda part: rows.to_csv(part))


def trials_table(name: str, rows: Sequence[dict[str, Any]], objectives: Sequence[str]) -> Table:
    """Draw all trials: state, objectives, network or reason."""
    table = Table(title=f"{name}: {counted(len(rows), 'trial')}", title_justify="left")
    table.add_column(INDEX, justify="right")
    table.add_column("state")
    for each in objectives:
        table.add_column(OBJECTIVES[each].heading, justify="right")
    table.add_column("network, or reason")
    for row in rows:
        values = [show(each, row[OBJECTIVES[each].column]) for each in objectives]
        state = "on the front" if row["on_front"] else row["state"]
        table.add_row(str(row[INDEX]), state, *values, row["reason"] or row["network"])
    return table


def show_confirmed(study: Study, *, json: bool) -> None:
    """Print the confirmed front."""
    snapshot = study.snapshot()
    points, against = snapshot.require_confirmed(), snapshot.confirmed_against
    if json:
        print_text(confirmed_json(study.name, points, against))
    else:
        open_console().print(confirmed_table(study.name, points, study.settings.directions, against))


def write_study_report(study: Study, *, slices: bool) -> None:
    """Write the report, and print its path and size."""
    from search.visualization.report import write_report

    path = write_report(study.snapshot(), slices=slices)
    print_text(f"{path} ({show_bytes(path.stat().st_size)})")
