"""The page of a study's progress: hypervolume over trials and hours, learning curves, running trials, timeline."""

from __future__ import annotations

import time
from collections.abc import Sequence

from search.analysis.snapshot import Snapshot
from search.analysis.status import Running, status_of
from search.config.objectives import show
from search.config.units import show_seconds
from search.visualization.components import Cell, Component, Note, Table
from search.visualization.figures.progress import (
    curves_of,
    draw_curves,
    draw_hypervolume,
    hypervolume_steps,
    random_band,
)
from search.visualization.figures.timeline import draw_timeline, timeline_of
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
    open_trials = status_of(shown).running
    lost = {each.trial for each in open_trials if each.lost}
    curves = curves_of(shown, lost)
    if curves.title:
        components.append(draw_curves(curves))
    else:
        components.append(Note("No trial has a validated epoch yet, so there is no learning curve."))
    components += _running(open_trials)
    if request.place:  # a file that may be passed on names no machines
        bars = timeline_of(shown, now=time.time(), lost=lost)
        components += [draw_timeline(bars)] if bars else []
    return Page("Progress", (), tuple(components))


def _running(running: Sequence[Running]) -> list[Component]:
    """Return a table of the open trials: what each is doing, and the age of its last sign of life."""
    if not running:
        return []
    rows: list[list[Cell]] = [
        [
            (each.trial, str(each.trial)),
            "interrupted" if each.lost else str(each.activity or f"epoch {each.epoch}/{each.epochs}"),
            (each.seen_s, "" if each.seen_s is None else f"{show_seconds(each.seen_s)} ago"),
            (each.dice, "" if each.dice is None else show("dice", each.dice)),
            each.network,
        ]
        for each in running
    ]
    headings = ("trial", "doing", "reported", "Dice so far", "network")
    lost = sum(each.lost for each in running)
    kinds = ((len(running) - lost, "running"), (lost, "interrupted"))
    title = ", ".join(f"{count} {kind}" for count, kind in kinds if count)
    return [Table("running", title, headings, rows, opens="trial")]
