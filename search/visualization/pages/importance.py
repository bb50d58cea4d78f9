"""What matters as a page: importances, main effects, blocks by place, parallel coordinates."""

from __future__ import annotations

import numpy as np

from search.analysis.main_effects import main_effects
from search.analysis.snapshot import Snapshot
from search.config.objectives import OBJECTIVES
from search.visualization.components import Note, Part
from search.visualization.figures.importance import draw_effects, draw_importances, draw_parallel, draw_places
from search.visualization.pages.lasso import filtered
from search.visualization.pages.page import Asked, Page
from search.visualization.slow_tasks import importance_inputs, importances


def matters_page(snapshot: Snapshot, asked: Asked) -> Page:
    """Return the page of what matters for an objective."""
    shown, notes = filtered(snapshot, asked)
    names = [(name, OBJECTIVES[name].heading) for name in snapshot.objectives]
    control = asked.control("of", "effects on", names, names[0][0])
    parts: list[Part] = [*notes]
    if not shown.comparable.any() or not shown.axes:
        parts.append(Note("Too few trials have been trained to their end to tell what matters."))
        return Page("What matters", (control,), tuple(parts))
    shares = _importances(shown, asked)
    if shares is None:
        parts.append(Note("Importances are being worked out; they appear here in a moment."))
    elif any(shares.values()):
        parts.append(draw_importances(shares))
    else:
        parts.append(Note("Too few trials for importances: PED-ANOVA needs ten, with axes that all of them decide."))
    effects = main_effects(shown, control.value)
    if effects:
        parts.append(draw_effects(effects, control.value))
        places = draw_places(effects, control.value)
        parts.append(places or Note("No attention place is free in this study, so there is no map of blocks by place."))
    else:
        parts.append(Note("Too few trials for main effects: there are as many choices as trials."))
    ranked = [*(shares or {}).get(control.value, {})]
    order = [*ranked, *(axis for axis in shown.axes if axis not in ranked)]
    parts.append(draw_parallel(shown, order, control.value))
    return Page("What matters", (control,), tuple(parts))


def _importances(snapshot: Snapshot, asked: Asked) -> dict[str, dict[str, float]] | None:
    """Ask for importances; of a study that grows, anew when its trials have grown by a tenth or so."""
    rows = np.flatnonzero(snapshot.comparable)
    step = 10 ** max(0, len(str(len(rows))) - 2)
    rows = rows[: len(rows) // step * step]
    found: dict[str, dict[str, float]] | None = asked.work(importances, *importance_inputs(snapshot, rows))
    return found
