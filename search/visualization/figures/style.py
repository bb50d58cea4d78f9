"""What the views' figures share: the empty canvas, colours that colour-blind eyes tell apart, short names.

Colours of text, axes and grid are left to the page, which has a light and a dark form.
"""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go

from search.visualization.components import Figure

PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#B8A900", "#8A8F98")  # Okabe and Ito
ALL, OTHERS, BUDGET = PALETTE[0], "#8A8F98", "#D55E00"
DIVERGING = [[0.0, "#D55E00"], [0.5, "#BFC5CC"], [1.0, "#0072B2"]]
WIDEST = 28  # letters of a name that a figure shows
LAYOUT: dict[str, Any] = {
    "template": "none",
    "font": {"family": "system-ui, sans-serif", "size": 13},
    "height": 420,
    "margin": {"l": 64, "r": 20, "t": 40, "b": 52},
    "paper_bgcolor": "rgba(0,0,0,0)",
    "plot_bgcolor": "rgba(0,0,0,0)",
    "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
    "hoverlabel": {"align": "left"},
    "xaxis": {"automargin": True},
    "yaxis": {"automargin": True},
}


def canvas(**layout: Any) -> go.Figure:
    """Return an empty figure."""
    return go.Figure(layout={**LAYOUT, **layout})


def part(figure: go.Figure, *, name: str, title: str, label: str, lasso: str = "", wide: bool = False) -> Figure:
    """Return a figure as a part of a page."""
    return Figure(name, title, figure.to_json(), label, wide, lasso)


def short(name: str) -> str:
    """Cut a name that is too long for an axis."""
    return name if len(name) <= WIDEST else f"{name[: WIDEST - 1]}…"


def color(number: int) -> str:
    """Return the colour of a series."""
    return PALETTE[number % len(PALETTE)]
