"""The front as a page: the picture, and the trials behind it as a table."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from search.analysis.snapshot import Sheet
from search.config.objectives import OBJECTIVES, cost_axis, primary, show, show_point
from search.visualization.components import Cell, Facts, Note, Part, Table
from search.visualization.figures.front import draw_front
from search.visualization.figures.front_data import front_scene
from search.visualization.pages.lasso import read_lasso
from search.visualization.pages.page import Asked, Control, Page
from search.visualization.slow_tasks import preset_costs
from space.place import AxisName


def front_page(sheet: Sheet, asked: Asked) -> Page:
    """Return the page of the front, filtered by the address's lasso."""
    controls = _controls(sheet, asked)
    chosen = {control.key: control.value for control in controls}
    axes = [chosen["x"], chosen["y"], *([chosen["z"]] if chosen["z"] else [])]
    lasso = read_lasso(asked.query.get("lasso", ""))
    parts: list[Part] = [summary(sheet)]
    if sheet.is_mixed:
        parts.append(Note(f"Latencies of different devices can't stand on one front: {'; '.join(sheet.devices)}."))
    if not any(entry.state != "running" for entry in sheet.entries):
        parts.append(Note("No trial has ended yet; this page shows them as they come."))
        return Page("Front", (), tuple(parts))
    presets = None
    if chosen["papers"] == "on" and sheet.context:
        presets = asked.work(preset_costs, sheet.context, sheet.study.training)
    scene = front_scene(sheet, axes, by=chosen["color"], presets=presets)
    if np.isfinite(scene.points).any():
        parts.append(draw_front(scene, selection=lasso.path(axes[0], axes[1]) if lasso else ""))
    if not sheet.front.any():
        parts.append(Note("No trial has been trained to its end, so there is no front; the table says why."))
    inside = lasso.inside(sheet) if lasso else None
    parts.append(trials_table(sheet, _rows(sheet, chosen["rows"], inside), name="trials"))
    return Page("Front", controls, tuple(parts))


def _controls(sheet: Sheet, asked: Asked) -> tuple[Control, ...]:
    objectives = [(name, OBJECTIVES[name].heading) for name in OBJECTIVES]
    up = primary(sheet.objectives)
    across = cost_axis(sheet.objectives)
    colors = [("", "the front"), *((name, name) for name in sorted(sheet.axes, key=_blocks_first))]
    everything = "front" if sheet.front.any() else "all"
    return (
        asked.control("x", "across", objectives, across),
        asked.control("y", "up", objectives, up),
        asked.control("z", "third axis", [("", "none (2D)"), *objectives], ""),
        asked.control("color", "colour by", colors, ""),
        asked.control("papers", "papers' networks", [("on", "shown"), ("off", "hidden")], "on"),
        asked.control(
            "rows",
            "table of",
            [("front", "the front"), ("selected", "the lasso's trials"), ("all", "all")],
            "selected" if asked.query.get("lasso") else everything,
        ),
    )


def _blocks_first(axis: str) -> tuple[bool, str]:
    return (axis != "encoder" and not AxisName.parse(axis).is_attention, axis)


def _rows(sheet: Sheet, which: str, inside: NDArray[np.bool_] | None) -> NDArray[np.int64]:
    if which == "front":
        rows = np.flatnonzero(sheet.front)
        return rows[np.argsort(sheet.losses[rows, 0])]
    if which == "selected":
        return np.flatnonzero(inside) if inside is not None else np.array([], dtype=int)
    return np.arange(len(sheet.entries))


def summary(sheet: Sheet) -> Facts:
    """Return how many trials there are in which state, the front's size and its hypervolume."""
    states, counts = np.unique(sheet.states, return_counts=True)
    pairs = [(str(state), str(count)) for state, count in zip(states, counts, strict=True)]
    volumes = sheet.progress[2]
    pairs.append(("on the front", str(int(sheet.front.sum()))))
    if sheet.reference:
        corner = show_point(sheet.reference)
        pairs += [("hypervolume", f"{volumes[-1]:.4f}" if len(volumes) else "0"), ("measured from", corner)]
    if len(sheet.devices) == 1 and not np.isnan(sheet.values["latency"]).all():
        pairs.append(("latency on", sheet.devices[0]))
    return Facts(tuple(pairs))


def trials_table(sheet: Sheet, rows: NDArray[np.int64], *, name: str) -> Table:
    """Return trials as a table: values in the study's order, network, reason."""
    columns = [*sheet.objectives, *(each for each in OBJECTIVES if each not in sheet.objectives)]
    reasons = any(sheet.entries[row].reason for row in rows)
    headings = (
        "trial",
        "state",
        *(OBJECTIVES[each].heading for each in columns),
        "network",
        *(["reason"] if reasons else []),
    )
    found: list[list[Cell]] = []
    for row in rows:
        entry = sheet.entries[row]
        state = "on the front" if sheet.front[row] else entry.state
        cells: list[Cell] = [(entry.number, str(entry.number)), state]
        for each in columns:
            value = float(sheet.values[each][row])
            cells.append((None, "") if math.isnan(value) else (value, show(each, value)))
        found.append([*cells, entry.network, *([entry.reason] if reasons else [])])
    return Table(name, "1 trial" if len(found) == 1 else f"{len(found)} trials", headings, found, opens="trial")
