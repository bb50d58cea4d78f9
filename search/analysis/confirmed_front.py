"""A study's confirmed front as a table and as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from rich.table import Table

from search.analysis.confirmation import Confirmed
from search.analysis.references import AgainstReference
from search.config.objectives import OBJECTIVES, costs_among, show
from search.config.units import counted


def confirmed_table(
    name: str,
    points: Sequence[Confirmed],
    directions: Mapping[str, str],
    against: Sequence[AgainstReference] = (),
) -> Table:
    """Return the confirmed front as a table that marks places which are not significant."""
    table = Table(
        title=f"{name}: {counted(len(points), 'point')} of the front, confirmed",
        title_justify="left",
    )
    for heading in ("trial", "Dice (mean)", "95 % interval", "trainings", "in the search"):
        table.add_column(heading, justify="right")
    costs = costs_among(directions)
    for cost in costs:
        table.add_column(f"{OBJECTIVES[cost].heading} {OBJECTIVES[cost].arrow}", justify="right")
    references = dict.fromkeys(each.reference for each in against)
    for reference in references:
        table.add_column(f"Dice against {reference} (95 %)", justify="right")
    differences = {(each.number, each.reference): each.shown for each in against}
    table.add_column("place")
    table.add_column("network")
    for point in points:
        span = "" if point.low is None or point.high is None else f"{point.low:.4f} to {point.high:.4f}"
        values = [show(cost, point.record.measurement.value(cost)) for cost in costs]
        table.add_row(
            str(point.record.number),
            f"{point.mean:.4f}",
            span,
            str(point.trainings),
            show("dice", point.record.measurement.dice),
            *values,
            *(differences.get((point.record.number, reference), "") for reference in references),
            _place(point),
            point.record.architecture.describe(),
        )
    return table


def _place(point: Confirmed) -> str:
    if point.rival is None:
        return "cheapest"
    if point.against is None:
        return f"shares no case with trial {point.rival}"
    word = "above" if point.significant else "not significantly above"
    return f"{word} trial {point.rival} (p = {point.against.p:.2g})"


def confirmed_json(name: str, points: Sequence[Confirmed], against: Sequence[AgainstReference] = ()) -> str:
    """Return the confirmed front as JSON."""
    rows = [
        {
            "trial": point.record.number,
            "dice": point.mean,
            "low": point.low,
            "high": point.high,
            "trainings": point.trainings,
            "searched_dice": point.record.measurement.dice,
            "rival": point.rival,
            "difference": point.against.difference if point.against else None,
            "difference_low": point.against.low if point.against else None,
            "difference_high": point.against.high if point.against else None,
            "p": point.against.p if point.against else None,
            "significant": point.significant,
            "against": {
                each.reference: asdict(each.pairs) if each.pairs else None
                for each in against
                if each.number == point.record.number
            },
            "fingerprint": point.record.architecture.fingerprint,
        }
        for point in points
    ]
    return json.dumps({"study": name, "confirmed": rows}, indent=2)
