"""Importance as a page: PED-ANOVA shares, main effects, blocks by place, parallel coordinates."""

from __future__ import annotations

import numpy as np

from search.analysis.main_effects import main_effects
from search.analysis.snapshot import Snapshot
from search.config.objectives import OBJECTIVES
from search.visualization.components import Component, Note
from search.visualization.figures.importance import draw_effects, draw_importances, draw_parallel, draw_places
from search.visualization.pages.lasso import filtered
from search.visualization.pages.page import Page, Request
from search.visualization.slow_tasks import importance_inputs, importances


def importance_page(snapshot: Snapshot, request: Request) -> Page:
    """Return the page of the axes' importance for an objective."""
    shown, notes = filtered(snapshot, request)
    names = [(name, OBJECTIVES[name].heading) for name in snapshot.objectives]
    control = request.control("of", "effects on", names, names[0][0])
    components: list[Component] = [*notes]
    if not shown.comparable.any() or not shown.axes:
        components.append(Note("Too few trials have been trained to their end for importances."))
        return Page("Importance", (control,), tuple(components))
    shares = _importances(shown, request)
    if shares is None:
        components.append(Note("Importances are being worked out; they appear here in a moment."))
    elif any(shares.values()):
        components.append(draw_importances(shares))
    else:
        components.append(
            Note("Too few trials for importances: PED-ANOVA needs ten, with axes that all of them decide.")
        )
    effects = main_effects(shown, control.value)
    if effects:
        components.append(draw_effects(effects, control.value))
        places = draw_places(effects, control.value)
        components.append(
            places or Note("No attention place is free in this study, so there is no map of blocks by place.")
        )
    else:
        components.append(Note("Too few trials for main effects: there are as many choices as trials."))
    ranked = [*(shares or {}).get(control.value, {})]
    order = [*ranked, *(axis for axis in shown.axes if axis not in ranked)]
    components.append(draw_parallel(shown, order, control.value))
    return Page("Importance", (control,), tuple(components))


def _importances(snapshot: Snapshot, request: Request) -> dict[str, dict[str, float]] | None:
    """Ask for importances; of a study that grows, anew when its trials have grown by a tenth or so."""
    rows = np.flatnonzero(snapshot.comparable)
    step = 10 ** max(0, len(str(len(rows))) - 2)
    rows = rows[: len(rows) // step * step]
    found: dict[str, dict[str, float]] | None = request.work(importances, *importance_inputs(snapshot, rows))
    return found
