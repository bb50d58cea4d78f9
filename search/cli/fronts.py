"""A study's front on the terminal, and its report."""

from __future__ import annotations

from search.analysis.confirmation import confirmed_json, confirmed_table
from search.analysis.front import Look, confirmed, front_json, front_table
from search.cli.terminal import open_console, say
from search.config.units import show_bytes


def show_front(looked: Look, *, json: bool) -> None:
    """Print the Pareto front."""
    if json:
        say(front_json(looked))
    else:
        open_console().print(front_table(looked))


def show_confirmed(looked: Look, *, json: bool) -> None:
    """Print the confirmed front."""
    points = confirmed(looked)
    if json:
        say(confirmed_json(looked.study.name, points))
    else:
        open_console().print(confirmed_table(looked.study.name, points, looked.study.directions))


def write_study_report(looked: Look, *, slices: bool) -> None:
    """Write the report, and print its path and size."""
    from search.visualization.report import write_report

    path = write_report(looked, slices=slices)
    say(f"{path} ({show_bytes(path.stat().st_size)})")
