"""The page that compares two to four trials: objectives, differing decisions, paired differences by case."""

from __future__ import annotations

from search.analysis.snapshot import Snapshot
from search.analysis.status import interrupted_trials, shown_state
from search.config.objectives import OBJECTIVES, show
from search.trials.records import Record
from search.visualization.components import Cell, Component, Note, Table
from search.visualization.figures.compare import Paired, draw_paired, paired
from search.visualization.pages.lasso import filtered
from search.visualization.pages.page import Control, Page, Request
from space.architecture import Value

SLOTS = ("a", "b", "c", "d")


def compare_page(snapshot: Snapshot, request: Request) -> Page:
    """Return the page of the trials that the URL names, or else of the front's two ends."""
    shown, notes = filtered(snapshot, request)
    controls = _controls(snapshot, shown, request)
    numbers = list(dict.fromkeys(int(control.value) for control in controls if control.value))
    records = snapshot.fetch(numbers)
    records.sort(key=lambda record: numbers.index(record.number))
    if len(records) < 2:
        few = Note("Choose two to four trials; the front has too few to compare.")
        return Page("Compare", controls, (*notes, few))
    components: list[Component] = [*notes, _differences(snapshot, records)]
    pairs = [pair for record in records[1:] if (pair := paired(records[0], record))]
    if pairs:
        components += [draw_paired(records[0].number, pairs), _pairs_table(records[0].number, pairs)]
    else:
        components.append(Note("These trials have no scored case in common, so there are no paired differences."))
    return Page("Compare", controls, tuple(components))


def _controls(snapshot: Snapshot, shown: Snapshot, request: Request) -> tuple[Control, ...]:
    """Return the trial selectors; they offer the front's trials and those that the URL names."""
    front = [str(number) for number in shown.numbers[shown.front_rows]]
    ends = [front[0], front[len(front) // 2], front[-1]] if len(front) > 2 else front
    trials = {str(number) for number in snapshot.numbers}
    given = [request.query[slot] for slot in SLOTS if request.query.get(slot) in trials]
    listed = list(dict.fromkeys([*front, *given]))
    found = []
    for at, slot in enumerate(SLOTS):
        default = ends[at] if at < len(ends) and not given else ""
        options = [("", "none"), *((each, f"trial {each}") for each in listed)]
        found.append(request.control(slot, f"trial {slot.upper()}", options, default))
    return tuple(found)


def _differences(snapshot: Snapshot, records: list[Record]) -> Table:
    """Return each trial's objectives, and the decisions in which the trials differ."""
    interrupted = interrupted_trials(snapshot)
    rows: list[list[Cell]] = [["state", *(shown_state(record, interrupted) for record in records)]]
    for name in [*snapshot.objectives, *(each for each in OBJECTIVES if each not in snapshot.objectives)]:
        rows.append([OBJECTIVES[name].heading, *(show(name, record.measurement.value(name)) for record in records)])
    decided = [dict(record.decisions) for record in records]
    for axis in dict.fromkeys(name for each in decided for name in each):
        chosen = [_written(each.get(axis, "not present")) for each in decided]
        if len(set(chosen)) > 1:
            rows.append([axis, *chosen])
    headings = ("", *(f"trial {record.number}" for record in records))
    return Table("differences", "Differences", headings, rows)


def _written(value: Value) -> str:
    """Return a decision as a study file writes it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _pairs_table(first: int, pairs: list[Paired]) -> Table:
    rows = [_pair_row(pair) for pair in pairs]
    headings = ("trial", f"Dice minus trial {first}'s", "95 % interval", "p (Wilcoxon)", "cases")
    return Table("pairs", "Paired over cases", headings, rows, opens="trial")


def _pair_row(pair: Paired) -> list[Cell]:
    found, several = pair.pairs, len(pair.differences) > 1
    return [
        (pair.number, str(pair.number)),
        (found.difference, f"{found.difference:+.4f}"),
        (found.low, f"{found.low:+.4f} to {found.high:+.4f}") if several else (None, ""),
        (found.p, f"{found.p:.2g}") if several else (None, ""),
        (found.units, str(found.units)),
    ]
