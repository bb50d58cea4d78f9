"""What the front figures in two and three dimensions draw alike."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search.visualization.figures.front_data import FrontData
from search.visualization.figures.style import LIMIT, MUTED, STOPPED

NEAR = 1.5  # times the highest cost: what is beyond is not drawn to scale
# Symbols in 2D and in 3D, where only some are drawn without characters that a font may lack
UNTRAINED = {
    "stopped": ("triangle-down", "circle-open", STOPPED),
    "over budget": ("x-thin", "square-open", LIMIT),
    "failed": ("cross-thin", "diamond-open", MUTED),
}


def is_near(data: FrontData, name: str) -> bool:
    """Return whether a budget is near enough to the points to be drawn with them."""
    known = data.values(name)[np.isfinite(data.values(name))]
    return bool(len(known)) and data.budgets[name] <= NEAR * float(known.max())


def columns_of(data: FrontData, rows: NDArray[np.int64], *, xy: bool = False) -> dict[str, Any]:
    """Return the values of rows as a trace's columns, with the trials' numbers."""
    names = "xy" if xy else "xyz"
    return {
        **{name: data.points[rows, column].astype(np.float32) for column, name in enumerate(names)},
        "customdata": data.numbers[rows],
    }


def known_untrained(data: FrontData) -> Iterator[tuple[str, NDArray[np.int64]]]:
    """Yield (state, rows) of the untrained trials with at least one known value."""
    for name, rows in data.untrained.items():
        known = np.asarray(np.isfinite(data.points[rows]).any(axis=1))
        if known.any():
            yield name, rows[known]


def reference_style(data: FrontData) -> dict[str, Any]:
    """Return what the 2D and 3D traces of the reference networks have in common."""
    names = [escape(name) for name in data.references]
    return {
        "text": names,
        "mode": "markers+text",
        "name": "references",
        "textposition": "top center",
        "hoverinfo": "text",
    }
