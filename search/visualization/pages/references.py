"""The page of the reference networks: their own values, and the front's difference to them."""

from __future__ import annotations

from collections.abc import Sequence

from search.analysis.references import AgainstReference
from search.analysis.snapshot import Snapshot
from search.analysis.status import interrupted_trials, shown_state
from search.config.objectives import OBJECTIVES, show
from search.visualization.components import Cell, Component, Note, Table
from search.visualization.pages.page import Page, Request

COMPARED = ("trial", "against", "difference of Dice", "95 % interval", "p", "cases", "network")


def references_page(snapshot: Snapshot, request: Request) -> Page:
    """Return the page of the reference networks."""
    if not snapshot.networks:
        return Page("References", (), (Note("This study trains no reference network (search.references)."),))
    components: list[Component] = [_own_values(snapshot)]
    if not snapshot.against:
        components.append(
            Note("No difference yet: that needs a fully trained reference, and another network on the front.")
        )
        return Page("References", (), tuple(components))
    components.append(_differences(snapshot, "references", "The front against reference networks", snapshot.against))
    again = snapshot.confirmed_against
    if again:
        title = "The confirmed front against the references, both trained again"
        components.append(_differences(snapshot, "confirmed", title, again))
    elif snapshot.confirmations:
        components.append(Note("No reference was confirmed yet; `voxnas confirm` trains the references again, too."))
    return Page("References", (), tuple(components))


def _own_values(snapshot: Snapshot) -> Table:
    headings = ("reference", "state", *(each.heading for each in OBJECTIVES.values()), "network, or reason")
    rows: list[list[Cell]] = []
    interrupted = interrupted_trials(snapshot)
    for record in snapshot.networks:
        row: list[Cell] = [record.reference, shown_state(record, interrupted)]
        for name in OBJECTIVES:
            value = record.measurement.value(name)
            row.append((None, "") if value is None else (value, show(name, value)))
        rows.append([*row, record.measurement.reason or record.architecture.describe()])
    return Table("values", "Reference networks", headings, rows)


def _differences(snapshot: Snapshot, name: str, title: str, found: Sequence[AgainstReference]) -> Table:
    networks = {record.number: record.architecture.describe() for record in snapshot.front()}
    rows: list[list[Cell]] = []
    for each in found:
        row: list[Cell] = [(each.number, str(each.number)), each.reference]
        pairs = each.pairs
        if pairs is None:
            row += [(None, "no shared case"), (None, ""), (None, ""), (0, "0")]
        else:
            span = f"{pairs.low:+.4f} to {pairs.high:+.4f}"
            row += [(pairs.difference, f"{pairs.difference:+.4f}"), (pairs.low, span), (pairs.p, f"{pairs.p:.2g}")]
            row += [(pairs.units, str(pairs.units))]
        rows.append([*row, networks[each.number]])
    return Table(name, title, COMPARED, rows, opens="trial")
