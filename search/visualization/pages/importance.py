"""The page of the axes' importance: PED-ANOVA shares, main effects, blocks by place, parallel coordinates."""

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
        components.append(Note("Too few trials are fully trained to compute importances."))
        return Page("Importance", (control,), tuple(components))
    shares = _importances(shown, request)
    if shares is None:
        components.append(Note("Importances are being computed; they appear here in a moment."))
    elif any(shares.values()):
        components.append(draw_importances(shares))
    else:
        components.append(
            Note("Too few trials for importances: PED-ANOVA needs ten, and an axis that all of them decide.")
        )
    effects = main_effects(shown, control.value)
    if effects:
        components.append(draw_effects(effects, control.value))
        places = draw_places(effects, control.value)
        components.append(
            places or Note("No attention place is open in this study, so there is no map of blocks by place.")
        )
    else:
        components.append(Note("Too few trials for main effects: there must be more trials than choices."))
    ranked = [*(shares or {}).get(control.value, {})]
    order = [*ranked, *(axis for axis in shown.axes if axis not in ranked)]
    components.append(draw_parallel(shown, order, control.value))
    return Page("Importance", (control,), tuple(components))


def _importances(snapshot: Snapshot, request: Request) -> dict[str, dict[str, float]] | None:
    """Request importances; for a running study, again only after about a tenth more trials."""
    rows = np.flatnonzero(snapshot.comparable)
    step = 10 ** max(0, len(str(len(rows))) - 2)
    rows = rows[: len(rows) // step * step]
    found: dict[str, dict[str, float]] | None = request.work(importances, *importance_inputs(snapshot, rows))
    return found
