"""Labels beside points, placed so that they cover neither each other nor other points."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
Box = tuple[float, float, float, float]  # left, top, right, bottom in pixels

WIDTH, HEIGHT = 420.0, 230.0  # pixels of a plot in a column of a page; a wider one leaves more room
FONT = 11  # pixels
LETTER, LINE, MARKER = 0.55 * FONT, 1.3 * FONT, 12.0  # width of a letter, height of a label, size of a point
PLACES = ("top right", "top left", "bottom right", "bottom left", "middle right", "middle left")
MOST_COVERED = 0.2  # of a label: a label without a better place is left out


def label_places(x: Numbers, y: Numbers, names: Sequence[str]) -> list[str | None]:
    """Return Plotly's text position of each point's label, None where there is no place; earlier points go first.

    `x` and `y` are the coordinates along the axes: logarithms on a logarithmic axis.
    """
    across, down = _pixels(x, WIDTH), HEIGHT - _pixels(y, HEIGHT)
    points = [
        (a - MARKER / 2, d - MARKER / 2, a + MARKER / 2, d + MARKER / 2) for a, d in zip(across, down, strict=True)
    ]
    taken: list[Box] = []
    found: list[str | None] = []
    for at, name in enumerate(names):
        others = [*taken, *points[:at], *points[at + 1 :]]
        boxes = {place: _box(place, across[at], down[at], len(name)) for place in PLACES}
        covered = {place: _outside(box) + sum(_overlap(box, each) for each in others) for place, box in boxes.items()}
        best = min(PLACES, key=lambda place: covered[place])
        if covered[best] > MOST_COVERED * len(name) * LETTER * LINE:
            found.append(None)
        else:
            found.append(best)
            taken.append(boxes[best])
    return found


def _pixels(values: Numbers, size: float) -> Numbers:
    """Return positions along an axis that Plotly extends a little beyond the values."""
    low, span = values.min(), max(float(np.ptp(values)), 1e-12)
    return np.asarray(size * (0.06 + 0.88 * (values - low) / span))


def _box(place: str, across: float, down: float, letters: int) -> Box:
    width, (vertical, horizontal) = letters * LETTER, place.split()
    beside = MARKER / 2 if vertical == "middle" else 0.0
    left = across + beside if horizontal == "right" else across - beside - width
    top = {"top": down - MARKER / 2 - LINE, "middle": down - LINE / 2, "bottom": down + MARKER / 2}[vertical]
    return left, top, left + width, top + LINE


def _overlap(one: Box, other: Box) -> float:
    wide, high = min(one[2], other[2]) - max(one[0], other[0]), min(one[3], other[3]) - max(one[1], other[1])
    return max(0.0, wide) * max(0.0, high)


def _outside(box: Box) -> float:
    """Return the area of a label that is beyond the plot's left or right end, where it would be cut off."""
    return (max(0.0, -box[0]) + max(0.0, box[2] - WIDTH)) * LINE
