"""The page of a study's progress: hypervolume over trials and hours, running and stopped trials, drivers."""

from __future__ import annotations

from search.analysis.snapshot import Snapshot
from search.config.objectives import show
from search.visualization.components import Cell, Component, Note, Table
from search.visualization.figures.progress import (
    curves_of,
    draw_curves,
    draw_hypervolume,
    hypervolume_steps,
    random_band,
)
from search.visualization.pages.front import summary
from search.visualization.pages.lasso import filtered
from search.visualization.pages.page import Page, Request


def progress_page(snapshot: Snapshot, request: Request) -> Page:
    """Return the page of a study's progress."""
    shown, notes = filtered(snapshot, request)
    components: list[Component] = [*notes, summary(shown)]
    steps = hypervolume_steps(shown)
    if shown.is_mixed:
        components.append(Note(f"{shown.left_out}."))
    if shown.comparable.any():
        others = request.others()
        components += [
            draw_hypervolume(steps, random_band(shown, others, hours=hours), hours=hours) for hours in (False, True)
        ]
    else:
        components.append(Note("No trial is fully trained yet, so there is no hypervolume."))
    running, stopped = curves_of(shown)
    if running or stopped:
        components.append(draw_curves(running, stopped))
    else:
        components.append(Note("No trial is running, and none was stopped at a rung."))
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
        components.append(Table("running", f"{len(active)} running", headings, rows, opens="trial"))
    return Page("Progress", (), tuple(components))
