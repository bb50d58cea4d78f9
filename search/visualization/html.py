"""Offline HTML pages with a light and a dark theme and inlined scripts."""

from __future__ import annotations

import base64
import importlib.metadata
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import plotly.graph_objects as go

from search.files import write_text
from search.visualization.components import Component, Figure
from search.visualization.pages.elements import component_element, to_html

ASSETS = Path(__file__).parent / "assets"
FINDINGS = "findings.json"  # an ablation's findings for the dashboard, in its folder


def read_asset(name: str) -> str:
    """Return the text of a script or style."""
    return (ASSETS / name).read_text(encoding="utf-8")


def render_page(template: Path, values: Mapping[str, Any]) -> str:
    """Render a template that extends page.html; `name` is the heading, text is escaped unless marked as safe."""
    loader = jinja2.FileSystemLoader([template.parent, ASSETS])
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    shared = {
        "version": importlib.metadata.version("voxnas"),
        "style": read_asset("style.css"),
        "scripts": [read_asset(name) for name in ("plotly.js", "figures.js", "tables.js")],
    }
    return environment.get_template(template.name).render({**shared, **values})


def write_components(components: Sequence[Component], file: Path, *, title: str) -> Path:
    """Write components below each other as one offline page, and return its path."""
    values = {"name": title, "components": [to_html(component_element(each, place="")) for each in components]}
    return write_text(file, render_page(ASSETS / "components.html", values))


def figure_html(figure: Figure) -> str:
    """Return a figure as HTML for a page that contains the scripts."""
    return to_html(component_element(figure, place=""))


def as_plotly(figure: Figure) -> go.Figure:
    """Return a page's figure as a standalone Plotly figure with a title, for notebooks."""
    found = go.Figure(_decoded(json.loads(figure.drawing)))
    return found.update_layout(template="plotly_white", title=figure.title, margin={"t": 96})


def _decoded(value: Any) -> Any:
    """Decode the packed arrays of Plotly's JSON."""
    if isinstance(value, list):
        return [_decoded(each) for each in value]
    if not isinstance(value, dict):
        return value
    if value.keys() >= {"bdata", "dtype"}:
        flat = np.frombuffer(base64.b64decode(value["bdata"]), dtype=value["dtype"])
        return flat.reshape([int(size) for size in str(value.get("shape", flat.size)).split(",")])
    return {key: _decoded(each) for key, each in value.items()}
