"""The page of the front: its figure, and the trials as a table."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
from numpy.typing import NDArray

from search.analysis.front import EXPECTED
from search.analysis.snapshot import Snapshot
from search.analysis.status import interrupted_trials, shown_state
from search.config.objectives import OBJECTIVES, cost_axis, primary, show, show_point
from search.config.units import counted
from search.visualization.components import Cell, Component, Facts, Note, Table
from search.visualization.figures.front import draw_front
from search.visualization.figures.front_data import front_figure_data
from search.visualization.pages.lasso import read_lasso
from search.visualization.pages.page import Control, Page, Request
from search.visualization.slow_tasks import preset_costs
from space.place import AxisName

STATES = ("trained", "stopped", "failed", "over budget", "running", "interrupted")  # in the order of the facts


def front_page(snapshot: Snapshot, request: Request) -> Page:
    """Return the page of the front, filtered by the URL's lasso."""
    controls = _controls(snapshot, request)
    chosen = {control.key: control.value for control in controls}
    axes = [chosen["x"], chosen["y"], *([chosen["z"]] if chosen["z"] else [])]
    lasso = read_lasso(request.query.get("lasso", ""))
    components: list[Component] = [summary(snapshot)]
    if snapshot.is_mixed:
        components.append(Note(f"{snapshot.left_out}."))
    if not any(trial.state != "running" for trial in snapshot.trials):
        components.append(Note("No trial has ended yet; this page shows trials as they end."))
        return Page("Front", (), tuple(components))
    presets = None
    if chosen["papers"] == "on" and snapshot.context:
        presets = request.work(preset_costs, snapshot.context, snapshot.study.training, snapshot.kind)
    scene = front_figure_data(snapshot, axes, by=chosen["color"], presets=presets)
    if np.isfinite(scene.points).any():
        components.append(draw_front(scene, selection=lasso.path(axes[0], axes[1]) if lasso else ""))
    if not snapshot.on_front.any():
        components.append(Note("No trial was fully trained, so there is no front; the table shows why."))
    inside = lasso.inside(snapshot) if lasso else None
    components.append(trials_table(snapshot, _rows(snapshot, chosen["rows"], inside), name="trials"))
    return Page("Front", controls, tuple(components))


def _controls(snapshot: Snapshot, request: Request) -> tuple[Control, ...]:
    objectives = [(name, OBJECTIVES[name].heading) for name in OBJECTIVES]
    up = primary(snapshot.objectives)
    across = cost_axis(snapshot.objectives)
    colors = [("", "the front"), *((name, name) for name in sorted(snapshot.axes, key=_blocks_first))]
    everything = "front" if snapshot.on_front.any() else "all"
    return (
        request.control("x", "across", objectives, across),
        request.control("y", "up", objectives, up),
        request.control("z", "third axis", [("", "none (2D)"), *objectives], ""),
        request.control("color", "colour by", colors, ""),
        request.control("papers", "papers' networks", [("on", "shown"), ("off", "hidden")], "on"),
        request.control(
            "rows",
            "table of",
            [("front", "the front"), ("selected", "the lasso's trials"), ("all", "all")],
            "selected" if request.query.get("lasso") else everything,
        ),
    )


def _blocks_first(axis: str) -> tuple[bool, str]:
    return (axis != "encoder" and not AxisName.parse(axis).is_attention, axis)


def _rows(snapshot: Snapshot, which: str, inside: NDArray[np.bool_] | None) -> NDArray[np.int64]:
    if which == "front":
        return snapshot.front_rows
    if which == "selected":
        return np.flatnonzero(inside) if inside is not None else np.array([], dtype=int)
    return np.arange(len(snapshot.trials))


def summary(snapshot: Snapshot) -> Facts:
    """Return the number of trials by state, the front's size and its hypervolume."""
    interrupted = interrupted_trials(snapshot)
    counts = Counter(shown_state(trial, interrupted) for trial in snapshot.trials)
    pairs = [(state, str(counts[state])) for state in STATES if counts[state]]
    volumes = snapshot.progress[2]
    pairs.append(("on the front", str(int(snapshot.on_front.sum()))))
    if snapshot.estimates:
        pairs.append(("noise of one training", snapshot.estimates.shown_noise))
        pairs.append(("measured minus expected Dice on the front", f"{snapshot.estimates.optimism:+.4f}"))
    if snapshot.reference:
        corner = show_point(snapshot.reference)
        pairs.append((snapshot.volume_title, f"{volumes[-1]:.4f}" if len(volumes) else "0"))
        pairs.append(("reference point of the hypervolume", corner))
    if len(snapshot.devices) == 1 and not np.isnan(snapshot.values["latency"]).all():
        pairs.append(("latency on", snapshot.devices[0]))
    return Facts(tuple(pairs))


def _estimated(snapshot: Snapshot, row: int) -> list[Cell]:
    """Return a trial's cells under EXPECTED; empty ones if nothing is known."""
    found = snapshot.estimate_of(snapshot.trials[row].number)
    if not found:
        return [(None, "")] * len(EXPECTED)
    dice, chance = found["expected_dice"], found["front_probability"]
    span = f"{found['dice_low']:.4f} to {found['dice_high']:.4f}"
    return [(dice, show("dice", dice)), (span, span), (chance, f"{chance:.0%}")]


def _heading(objective: str, *, measured: bool) -> str:
    return ("measured " if measured and objective == "dice" else "") + OBJECTIVES[objective].heading


def _value(snapshot: Snapshot, row: int, objective: str) -> Cell:
    value = float(snapshot.values[objective][row])
    return (None, "") if math.isnan(value) else (value, show(objective, value))


def trials_table(snapshot: Snapshot, rows: NDArray[np.int64], *, name: str) -> Table:
    """Return trials as a table: objectives in the study's order, network, reason, then what is only recorded."""
    others = [each for each in OBJECTIVES if each not in snapshot.objectives]
    interrupted = interrupted_trials(snapshot)
    reasons = any(snapshot.trials[row].reason for row in rows)
    estimated = snapshot.estimates is not None
    headings = (
        "trial",
        "state",
        *(EXPECTED if estimated else ()),
        *(_heading(each, measured=estimated) for each in snapshot.objectives),
        "network",
        *(["reason"] if reasons else []),
        *(OBJECTIVES[each].heading for each in others),
    )
    found: list[list[Cell]] = []
    for row in rows:
        trial = snapshot.trials[row]
        state = "on the front" if snapshot.on_front[row] else shown_state(trial, interrupted)
        cells: list[Cell] = [
            (trial.number, str(trial.number)),
            state,
            *(_estimated(snapshot, row) if estimated else ()),
        ]
        cells += [_value(snapshot, row, each) for each in snapshot.objectives]
        cells += [trial.network, *([trial.reason] if reasons else [])]
        found.append([*cells, *(_value(snapshot, row, each) for each in others)])
    return Table(name, counted(len(found), "trial"), headings, found, opens="trial")
