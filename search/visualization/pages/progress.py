"""Progress as a page: hypervolume against trials and hours, running and stopped trials, who runs."""

from __future__ import annotations

from search.analysis.snapshot import Snapshot
from search.config.objectives import show
from search.visualization.components import Cell, Note, Part, Table
from search.visualization.figures.progress import climb, curves_of, draw_climb, draw_curves, random_band
from search.visualization.pages.front import summary
from search.visualization.pages.lasso import filtered
from search.visualization.pages.page import Asked, Page


def progress_page(snapshot: Snapshot, asked: Asked) -> Page:
    """Return the page of a study's progress."""
    shown, notes = filtered(snapshot, asked)
    parts: list[Part] = [*notes, summary(shown)]
    steps = climb(shown)
    if shown.is_mixed:
        parts.append(Note(f"{shown.left_out}."))
    if shown.comparable.any():
        others = asked.others()
        parts += [draw_climb(steps, random_band(shown, others, hours=hours), hours=hours) for hours in (False, True)]
    else:
        parts.append(Note("No trial has been trained to its end yet, so there is no hypervolume."))
    running, stopped = curves_of(shown)
    if running or stopped:
        parts.append(draw_curves(running, stopped))
    else:
        parts.append(Note("No trial runs now, and none was stopped at a rung."))
    active = [trial for trial in shown.trials if trial.state == "running"]
    if active:
        rows: list[list[Cell]] = [
            [
                (trial.number, str(trial.number)),
                (trial.epochs, f"{trial.epochs} of {snapshot.study.training.epochs}"),
                (trial.dice_so_far, show("dice", trial.dice_so_far)) if trial.curve else (None, ""),
                trial.network,
            ]
            for trial in active
        ]
        headings = ("trial", "epoch", "Dice so far", "network")
        parts.append(Table("running", f"{len(active)} running", headings, rows, opens="trial"))
    return Page("Progress", (), tuple(parts))
