"""A lasso as stored in the URL, `memory,dice:120,0.8;140,0.82;…` in the axes' units, and the trials inside it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search.analysis.snapshot import Snapshot
from search.config.objectives import OBJECTIVES
from search.config.units import counted
from search.visualization.components import Component, Note
from search.visualization.figures.cost_scale import is_logarithmic
from search.visualization.figures.front_data import drawn_points
from search.visualization.pages.page import Request

MAX_CORNERS = 200
SMALLEST = 1e-9  # of a corner on a logarithmic axis, whose address may hold any number


@dataclass(frozen=True)
class Lasso:
    """A polygon over two objectives, in the axes' units."""

    axes: tuple[str, str]
    corners: NDArray[np.float64]

    def path(self, x: str, y: str) -> str:
        """Return the lasso as an SVG path for a figure of these axes; empty for other axes."""
        if (x, y) != self.axes:
            return ""
        return "M" + "L".join(f"{a:g},{b:g}" for a, b in self.corners) + "Z"

    def inside(self, snapshot: Snapshot) -> NDArray[np.bool_]:
        """Return a mask of the trials that the front figure draws inside (even-odd rule)."""
        points, corners = drawn_points(snapshot, self.axes), self.corners.copy()
        for at in range(2):
            if is_logarithmic(points[:, at]):  # edges are straight on the logarithmic axis
                points[:, at] = np.log10(points[:, at])
                corners[:, at] = np.log10(np.maximum(corners[:, at], SMALLEST))
        x, y = points.T
        found = np.zeros(len(x), dtype=bool)
        for (xa, ya), (xb, yb) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
            crosses = (ya > y) != (yb > y)
            if ya != yb:
                found ^= crosses & (x < (xb - xa) * (y - ya) / (yb - ya) + xa)
        return found


def read_lasso(text: str) -> Lasso | None:
    """Parse the URL's lasso; None if it is missing or invalid."""
    names, _, points = text.partition(":")
    x, _, y = names.partition(",")
    if x not in OBJECTIVES or y not in OBJECTIVES:
        return None
    try:
        corners = np.array([[float(each) for each in point.split(",")] for point in points.split(";")], dtype=float)
    except ValueError:
        return None
    if (
        corners.ndim != 2
        or corners.shape[1] != 2
        or not 3 <= len(corners) <= MAX_CORNERS
        or not np.isfinite(corners).all()
    ):
        return None
    return Lasso((x, y), corners)


def filtered(snapshot: Snapshot, request: Request) -> tuple[Snapshot, tuple[Component, ...]]:
    """Return the trials inside the URL's lasso and a note about the filter; all trials without a lasso."""
    lasso = read_lasso(request.query.get("lasso", ""))
    if lasso is None:
        return snapshot, ()
    inside = lasso.inside(snapshot)
    text = f"Only the {int(inside.sum())} of {counted(len(inside), 'trial')} inside the lasso drawn on the front."
    return snapshot.only(inside), (Note(text, ask="lasso=", link="Show all"),)
