"""The page of all studies: the list with their states, and the fronts of several on common axes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from search.analysis.snapshot import Snapshot
from search.analysis.status import status_of
from search.config.objectives import OBJECTIVES, per_device, primary
from search.config.units import counted
from search.visualization.components import Cell, Component, Note, Table
from search.visualization.figures.compare import draw_fronts
from search.visualization.pages.page import Control, Page, Request

MAX_FRONTS = 7  # the number of colours


def studies_page(snapshots: Sequence[Snapshot], unread: Sequence[str], request: Request) -> Page:
    """Return the page of all studies; `unread` names those that this version of voxnas did not write."""
    components: list[Component] = []
    controls: tuple[Control, ...] = ()
    if not snapshots:
        components.append(Note("No study has run here yet. `voxnas run FILE` starts one; it then appears here."))
    else:
        components.append(
            Table(
                "studies",
                counted(len(snapshots), "study", plural="studies"),
                (
                    "study",
                    "state",
                    "trials",
                    "objectives",
                    "proposer",
                    "front",
                    "hypervolume",
                    "began (UTC)",
                    "last trial ended (UTC)",
                ),
                [_row(snapshot) for snapshot in snapshots],
                opens="study",
            )
        )
    if unread:
        components.append(Note(f"Not written by this version of voxnas, so not shown: {', '.join(unread)}."))
    if len(snapshots) > 1:
        controls = _controls(snapshots, request)
        components += _fronts(snapshots, {control.key: control.value for control in controls})
    return Page("Studies", controls, tuple(components))


def _row(snapshot: Snapshot) -> list[Cell]:
    status = status_of(snapshot)
    volumes = snapshot.progress[2]
    volume = float(volumes[-1]) if len(volumes) and snapshot.reference else None
    began = min((trial.started for trial in snapshot.trials), default=0.0)
    last = max((trial.ended for trial in snapshot.trials), default=0.0)
    text = ", ".join(f"{count} {name}" for name, count in status.counts.items()) or "none"
    if status.confirmations:
        text += f"; {sum(status.confirmations.values())} confirmations"
    objectives = ", ".join(OBJECTIVES[name].heading for name in snapshot.objectives)
    return [
        snapshot.label,
        status.state,
        (status.done, f"{status.done} of {status.planned} ({text})"),
        objectives,
        snapshot.study.search.proposer,
        (int(snapshot.on_front.sum()), str(int(snapshot.on_front.sum()))),
        (volume, "" if volume is None else f"{volume:.4f}"),
        (began, _time(began)),
        (last, _time(last)),
    ]


def _time(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M}" if seconds else ""


def _controls(snapshots: Sequence[Snapshot], request: Request) -> tuple[Control, ...]:
    objectives = list(dict.fromkeys(name for snapshot in snapshots for name in snapshot.objectives))
    named = [(name, OBJECTIVES[name].heading) for name in objectives]
    up = primary(objectives)
    across = next((name for name in objectives if name != up), up)
    whose = [("", "all studies"), *((snapshot.label, snapshot.label) for snapshot in snapshots)]
    return (
        request.control("x", "across", named, across),
        request.control("y", "up", named, up),
        request.control("one", "front of", whose, ""),
        request.control("two", "and of", whose, ""),
    )


def _fronts(snapshots: Sequence[Snapshot], chosen: dict[str, str]) -> list[Component]:
    named = {chosen["one"], chosen["two"]} - {""}
    shown = [snapshot for snapshot in snapshots if not named or snapshot.label in named][:MAX_FRONTS]
    if per_device((chosen["x"], chosen["y"])):
        kinds = {device for snapshot in shown for device in snapshot.devices}
        if len(kinds) > 1:
            where = "; ".join(f"{snapshot.label}: {', '.join(snapshot.devices) or 'none'}" for snapshot in shown)
            return [
                Note(
                    f"Latencies of different devices can't be compared in one figure. {where}. Choose other axes, "
                    "or studies of one device."
                )
            ]
    mixed = [snapshot.label for snapshot in shown if snapshot.is_mixed]
    notes: list[Component] = (
        [Note(f"Studies with latencies of several devices, of which one is shown: {', '.join(mixed)}.")]
        if mixed
        else []
    )
    return [*notes, draw_fronts(shown, x=chosen["x"], y=chosen["y"])]
