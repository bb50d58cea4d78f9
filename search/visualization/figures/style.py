"""The style of all figures: palette, colours by meaning, symbols, the empty figure, short names.

The page sets the colours of text, axes and grid, since it has a light and a dark theme.
"""

from __future__ import annotations

import zlib
from itertools import chain
from typing import Any

import plotly.graph_objects as go

from search.visualization.components import Figure
from space.place import AxisName

# Okabe and Ito's colour-blind safe palette, with grey instead of black and a darker yellow
BLUE, ORANGE, GREEN, PINK = "#0072B2", "#E69F00", "#009E73", "#CC79A7"
RED, SKY, OLIVE, GREY = "#D55E00", "#56B4E9", "#B8A900", "#8A8F98"
PALETTE = (BLUE, ORANGE, GREEN, PINK, RED, SKY, OLIVE, GREY)
FRONT, MUTED, LIMIT, STOPPED, CONFIRMED = BLUE, GREY, RED, PINK, GREEN
DIVERGING = [[0.0, ORANGE], [0.5, "#F4F5F7"], [1.0, SKY]]  # light enough for DARK_INK
DARK_INK = "#10151b"  # text on a coloured background, in both themes
SYMBOLS = ("circle", "diamond", "square", "triangle-up", "cross", "star", "hexagon", "pentagon")
BLOCKS = {"none": GREY, "isa": BLUE, "csam": ORANGE, "joint": GREEN, "epa": PINK}
PLUG_IN_BLOCKS = (RED, SKY, OLIVE)
WIDEST = 28  # characters of a name that a figure shows
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


def component(figure: go.Figure, *, name: str, title: str, label: str, lasso: str = "", wide: bool = False) -> Figure:
    """Return a figure as a component of a page; the titles of its axes begin with a capital."""
    scenes = [(each.xaxis, each.yaxis, each.zaxis) for each in figure.select_scenes()]
    for axis in (*figure.select_xaxes(), *figure.select_yaxes(), *chain(*scenes)):
        if axis.title.text:
            axis.title.text = sentence(axis.title.text)
    return Figure(name, title, figure.to_json(), label, wide, lasso)


def sentence(text: str) -> str:
    """Begin a text with a capital; the rest stays, such as `Dice` and `MACs`."""
    return text[:1].upper() + text[1:]


def short(name: str, *, widest: int = WIDEST) -> str:
    """Truncate a name that is too long for an axis."""
    return name if len(name) <= widest else f"{name[: widest - 1]}…"


def color(number: int) -> str:
    """Return the colour of a series."""
    return PALETTE[number % len(PALETTE)]


def tint(color: str, share: float) -> str:
    """Return a colour with this opacity, so that text on it stays readable in both themes."""
    red, green, blue = (int(color[at : at + 2], 16) for at in (1, 3, 5))
    return f"rgba({red},{green},{blue},{share:g})"


def block_color(name: str) -> str:
    """Return an attention block's colour, the same in all figures; a plug-in's is derived from its name."""
    return BLOCKS.get(name) or PLUG_IN_BLOCKS[zlib.crc32(name.encode()) % len(PLUG_IN_BLOCKS)]


def choice_color(axis: str, choice: str, number: int) -> str:
    """Return the colour of a choice on an axis of the space: the block's, or that of a series."""
    is_block = AxisName.parse(axis).is_attention and choice != "others"
    return block_color(choice) if is_block else color(number)
