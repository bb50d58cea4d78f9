"""The scale of a cost's axis: logarithmic where its values span more than a decade."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from search.analysis.snapshot import Numbers, Snapshot
from search.config.objectives import OBJECTIVES

DECADE = 10.0
MANY_DECADES = 3  # from which on only powers of ten are labelled


def is_logarithmic(values: Numbers) -> bool:
    """Return whether values are drawn on a logarithmic axis: all are positive, and they span more than a decade."""
    known = values[np.isfinite(values)]
    return bool(len(known)) and bool(0 < known.min() * DECADE < known.max())


def scale_of(values: Numbers) -> dict[str, Any]:
    """Return the type and the ticks of the axis of these values; empty for a linear axis.

    Plotly labels a logarithmic axis of few decades with bare digits, so ticks are given: 1, 2 and 5 of each decade.
    """
    if not is_logarithmic(values):
        return {}
    known = values[np.isfinite(values)]
    first, last = math.floor(math.log10(known.min())), math.ceil(math.log10(known.max()))
    digits = (1, 2, 5) if last - first <= MANY_DECADES else (1,)
    ticks = [digit * 10.0**power for power in range(first, last + 1) for digit in digits]
    return {"type": "log", "tickvals": ticks, "ticktext": [f"{tick:,g}" for tick in ticks]}


def scale_over(snapshots: Sequence[Snapshot], name: str) -> dict[str, Any]:
    """Return the scale of an objective's axis over the comparable trials of several studies."""
    if OBJECTIVES[name].learned:
        return {}
    return scale_of(
        np.concatenate([each.values[name][each.comparable] for each in snapshots]) / OBJECTIVES[name].drawn_per
    )


def coordinate(values: Numbers, at: float) -> float:
    """Return where an annotation at a value belongs: Plotly takes its logarithm on a logarithmic axis."""
    return math.log10(at) if is_logarithmic(values) else at
