"""report.html: one offline file with the front, its hypervolume and the table of trials."""

from __future__ import annotations

import importlib.metadata
import os
from pathlib import Path
from typing import Any

import jinja2
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from search.figures.study import CONFIG, axis_title, draw_hypervolume, draw_plane, plane, planes
from search.front import Look
from search.objectives import HEADINGS, OBJECTIVES, show
from search.pareto import hypervolume
from search.records import Record

TEMPLATE = Path(__file__).with_name("report.html")


def write_report(looked: Look) -> Path:
    """Write the report into the run's folder, whole or not at all, and return its path."""
    path = looked.folder / "report.html"
    part = path.with_name(f".report.{os.getpid()}.part")
    part.write_text(render(looked), encoding="utf-8")
    part.replace(path)
    return path


def render(looked: Look) -> str:
    """Return the report as one HTML text; every name from the study is escaped."""
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    return template.render(
        study=looked.study,
        summary=_summary(looked),
        planes=_plane_figures(looked),
        progress=_html(draw_hypervolume(looked)) if any(r.state == "trained" for r in looked.records) else "",
        columns=[(name, HEADINGS[name], looked.study.directions.get(name, "")) for name in _columns(looked)],
        rows=[_row(looked, record) for record in _ordered(looked)],
        version=importlib.metadata.version("voxnas"),
        plotly=get_plotlyjs(),
    )


def _plane_figures(looked: Look) -> list[tuple[str, str]]:
    figures = []
    for x, y in planes(looked):
        points = plane(looked, x, y)
        if points:
            figure = draw_plane(points, x=x, y=y, budget=looked.study.budgets.get(x))
            figures.append((f"{HEADINGS[y]} against {axis_title(x)}", _html(figure)))
    return figures


def _html(figure: go.Figure) -> str:
    text: str = figure.to_html(full_html=False, include_plotlyjs=False, config=CONFIG)
    return text


def _columns(looked: Look) -> list[str]:
    return [*looked.study.directions, *(name for name in OBJECTIVES if name not in looked.study.directions)]


def _summary(looked: Look) -> list[tuple[str, str]]:
    states = [record.state for record in looked.records]
    volume = hypervolume(looked.records, looked.study.directions, looked.reference)
    corner = ", ".join(f"{HEADINGS[name]} {show(name, value)}" for name, value in looked.reference.items())
    latencies = [
        record.measurement.costs.latency
        for record in looked.records
        if record.measurement.costs and record.measurement.costs.latency
    ]
    lines: list[tuple[str, str]] = [(state, str(states.count(state))) for state in dict.fromkeys(states)]
    lines += [("on the front", str(len(looked.front))), ("hypervolume", f"{volume:.4f}")]
    if corner:
        lines.append(("its reference", corner))
    if latencies:
        last = latencies[-1]
        lines.append(("latency on", f"{last.device}, {last.threads} threads, {last.precision}"))
    return lines


def _ordered(looked: Look) -> list[Record]:
    """Return the front first, then the other trials by number."""
    front = [record.number for record in looked.front]
    return [*looked.front, *(record for record in looked.records if record.number not in front)]


def _row(looked: Look, record: Record) -> dict[str, Any]:
    latency = record.measurement.costs.latency if record.measurement.costs else None
    cells = []
    for name in _columns(looked):
        value = record.measurement.value(name)
        note = f"interquartile range {show('latency', latency.iqr_s)}" if name == "latency" and latency else ""
        if name == "latency" and latency and not latency.settled:
            note += "; spread too wide, repeat on an idle machine"
        cells.append({"text": show(name, value), "sort": "" if value is None else repr(value), "note": note})
    return {
        "number": record.number,
        "front": record.number in {each.number for each in looked.front},
        "state": record.state,
        "cells": cells,
        "network": record.architecture.describe(),
        "reason": record.measurement.reason,
    }
