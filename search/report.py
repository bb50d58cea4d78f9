"""report.html: one offline file with the front, its hypervolume and the table of trials."""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Mapping
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

TEMPLATES = Path(__file__).parent


def write_report(looked: Look) -> Path:
    """Write the report into the run's folder, whole or not at all, and return its path."""
    return write_whole(looked.folder / "report.html", render(looked))


def write_whole(path: Path, text: str) -> Path:
    """Write a file whole or not at all, and return its path."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)
    return path


def render(looked: Look) -> str:
    """Return the report as one HTML text; every name from the study is escaped."""
    trained = any(record.state == "trained" for record in looked.records)
    values = {
        "name": looked.study.name,
        "summary": _summary(looked),
        "planes": _plane_figures(looked),
        "progress": figure_html(draw_hypervolume(looked)) if trained else "",
        "columns": [(name, HEADINGS[name], looked.study.directions.get(name, "")) for name in _columns(looked)],
        "rows": [_row(looked, record) for record in _ordered(looked)],
    }
    return render_page("report.html", values)


def render_page(template: str, values: Mapping[str, Any]) -> str:
    """Return a page of the house's form; `name` is its heading, all that is not marked as HTML is escaped."""
    loader = jinja2.FileSystemLoader(TEMPLATES)
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    shown = {**values, "version": importlib.metadata.version("voxnas"), "plotly": get_plotlyjs()}
    return environment.get_template(template).render(shown)


def _plane_figures(looked: Look) -> list[tuple[str, str]]:
    figures = []
    for x, y in planes(looked):
        points = plane(looked, x, y)
        if points:
            figure = draw_plane(points, x=x, y=y, budget=looked.study.budgets.get(x))
            figures.append((f"{HEADINGS[y]} against {axis_title(x)}", figure_html(figure)))
    return figures


def figure_html(figure: go.Figure) -> str:
    """Return a figure as a part of a page that holds Plotly already."""
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
