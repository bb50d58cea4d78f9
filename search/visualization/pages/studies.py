"""Studies as a page: the list with their states, and fronts of several on common axes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime

from search.analysis.snapshot import Sheet
from search.config.objectives import OBJECTIVES, per_device, primary
from search.visualization.components import Cell, Note, Part, Table
from search.visualization.figures.compare import draw_fronts
from search.visualization.pages.page import Asked, Control, Page

MOST_FRONTS = 7  # as many as there are colours


def studies_page(sheets: Sequence[Sheet], unread: Sequence[str], asked: Asked) -> Page:
    """Return the page of all studies; `unread` are those that voxnas did not write."""
    parts: list[Part] = []
    controls: tuple[Control, ...] = ()
    if not sheets:
        parts.append(Note("No study has run here yet; start one with `voxnas run`, and it appears."))
    else:
        parts.append(
            Table(
                "studies",
                f"{len(sheets)} studies",
                (
                    "study",
                    "state",
                    "trials",
                    "objectives",
                    "proposer",
                    "front",
                    "hypervolume",
                    "began",
                    "last trial ended",
                ),
                [_row(sheet) for sheet in sheets],
                opens="study",
            )
        )
    if unread:
        parts.append(Note(f"Not written by this version of voxnas, so not shown: {', '.join(unread)}."))
    if len(sheets) > 1:
        controls = _controls(sheets, asked)
        parts += _fronts(sheets, {control.key: control.value for control in controls})
    return Page("Studies", controls, tuple(parts))


def _row(sheet: Sheet) -> list[Cell]:
    counts = Counter(entry.state for entry in sheet.entries)
    ended = sum(count for state, count in counts.items() if state not in ("running", "over budget"))
    state = "running" if counts["running"] else "done" if ended >= sheet.study.search.trials else "unfinished"
    volumes = sheet.progress[2]
    volume = float(volumes[-1]) if len(volumes) and sheet.reference and not sheet.is_mixed else None
    began = min((entry.started for entry in sheet.entries), default=0.0)
    last = max((entry.ended for entry in sheet.entries), default=0.0)
    said = ", ".join(f"{count} {name}" for name, count in counts.items()) or "none"
    objectives = ", ".join(OBJECTIVES[name].heading for name in sheet.objectives)
    return [
        sheet.label,
        state,
        (len(sheet.entries), said),
        objectives,
        sheet.study.search.proposer,
        (int(sheet.front.sum()), str(int(sheet.front.sum()))),
        (volume, "" if volume is None else f"{volume:.4f}"),
        (began, _time(began)),
        (last, _time(last)),
    ]


def _time(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M}" if seconds else ""


def _controls(sheets: Sequence[Sheet], asked: Asked) -> tuple[Control, ...]:
    objectives = list(dict.fromkeys(name for sheet in sheets for name in sheet.objectives))
    named = [(name, OBJECTIVES[name].heading) for name in objectives]
    up = primary(objectives)
    across = next((name for name in objectives if name != up), up)
    whose = [("", "all studies"), *((sheet.label, sheet.label) for sheet in sheets)]
    return (
        asked.control("x", "across", named, across),
        asked.control("y", "up", named, up),
        asked.control("one", "front of", whose, ""),
        asked.control("two", "and of", whose, ""),
    )


def _fronts(sheets: Sequence[Sheet], chosen: dict[str, str]) -> list[Part]:
    named = {chosen["one"], chosen["two"]} - {""}
    shown = [sheet for sheet in sheets if not named or sheet.label in named][:MOST_FRONTS]
    if per_device((chosen["x"], chosen["y"])):
        kinds = {device for sheet in shown for device in sheet.devices}
        if len(kinds) > 1:
            where = "; ".join(f"{sheet.label}: {', '.join(sheet.devices) or 'none'}" for sheet in shown)
            return [
                Note(
                    f"Latencies of different devices can't be compared on one picture. {where}. Choose other axes, "
                    "or studies of one device."
                )
            ]
    mixed = [sheet.label for sheet in shown if sheet.is_mixed]
    notes: list[Part] = (
        [Note(f"No front, latencies of several devices in one study: {', '.join(mixed)}.")] if mixed else []
    )
    return [*notes, draw_fronts(shown, x=chosen["x"], y=chosen["y"])]
