"""The timeline of a study: which training ran when, and on which machine."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from search.analysis.snapshot import Snapshot
from search.analysis.snapshot_reader import trial_of
from search.analysis.trial import Trial
from search.config.units import counted, show_seconds
from search.visualization.components import Figure
from search.visualization.figures.style import (
    CONFIRMED,
    FRONT,
    LIMIT,
    MUTED,
    OLIVE,
    ORANGE,
    SKY,
    STOPPED,
    canvas,
    component,
)

MAX_BARS = 500  # the latest trainings
COLORS = {
    "trained": FRONT,
    "stopped": STOPPED,
    "failed": LIMIT,
    "over budget": SKY,
    "running": OLIVE,
    "interrupted": MUTED,
    "repeat": "#66C2A0",
    "confirmation": CONFIRMED,
    "reference": ORANGE,
}
LANE_PIXELS = 26


@dataclass(frozen=True)
class Bar:
    """One training from its start to its end, in seconds since 1970; `lane` separates trainings at the same time."""

    trial: Trial
    kind: str
    machine: str
    began: float
    ended: float
    lane: int


def timeline_of(snapshot: Snapshot, *, now: float, lost: Collection[int] = ()) -> list[Bar]:
    """Return the latest trainings as bars, by machine; running ones end `now`, each machine's lanes count from 0.

    `lost` are the open trials whose driver has ended: their bars end after the time that they took.
    """
    known: dict[object, object] = {}
    repeated = [("repeat" if each.repeat else "confirmation", each) for each in snapshot.confirmations]
    outside = [("reference", each) for each in snapshot.networks if each.is_outside]
    listed = [(str(trial.state), trial) for trial in snapshot.trials]
    listed += [(kind, trial_of(each, known)) for kind, each in (*repeated, *outside)]
    timed = [
        _open_or_ended(kind, trial, now=now, lost=lost)
        for kind, trial in listed
        if trial.ended or trial.state == "running"
    ]
    timed.sort(key=lambda each: (each[1].started, each[1].number))
    free: dict[str, list[float]] = {}
    bars = []
    for kind, trial, ended in timed[-MAX_BARS:]:
        machine = trial.machine or trial.driver or "machine unknown"
        lane = _lane(free.setdefault(machine, []), trial.started, ended)
        bars.append(Bar(trial, kind, machine, trial.started, max(ended, trial.started), lane))
    return bars


def _open_or_ended(kind: str, trial: Trial, *, now: float, lost: Collection[int]) -> tuple[str, Trial, float]:
    """Return a training's kind and end."""
    if trial.state != "running":
        return kind, trial, trial.ended
    if trial.number in lost:
        return "interrupted", trial, trial.started + trial.spent_s
    return "running", trial, now


def _lane(free: list[float], began: float, ended: float) -> int:
    """Take the first lane that is free at a time; `free` holds the time from which each lane is free."""
    for lane, time_free in enumerate(free):
        if time_free <= began:
            free[lane] = ended
            return lane
    free.append(ended)
    return len(free) - 1


def draw_timeline(bars: Sequence[Bar]) -> Figure:
    """Draw the trainings as bars over the time of day (UTC), a row for each training that a machine runs at a time."""
    lanes = sorted({(bar.machine, bar.lane) for bar in bars})
    several = {machine for machine, lane in lanes if lane}
    names = {(machine, lane): f"{machine} · {lane + 1}" if machine in several else machine for machine, lane in lanes}
    figure = canvas(height=130 + LANE_PIXELS * max(2, len(lanes)), barmode="overlay")
    for kind, hue in COLORS.items():
        shown = [bar for bar in bars if bar.kind == kind]
        if shown:
            figure.add_bar(
                orientation="h",
                name=kind,
                y=[names[bar.machine, bar.lane] for bar in shown],
                base=[_clock(bar.began) for bar in shown],
                x=[1e3 * (bar.ended - bar.began) for bar in shown],
                marker={"color": hue, "line": {"color": "rgba(255,255,255,0.6)", "width": 1}},
                customdata=[bar.trial.number for bar in shown],
                hovertext=[_text(bar) for bar in shown],
                hoverinfo="text",
                showlegend=True,
            )
    figure.update_xaxes(type="date", title="time (UTC)")
    figure.update_yaxes(categoryorder="array", categoryarray=[names[each] for each in reversed(lanes)])
    machines = counted(len({machine for machine, _ in lanes}), "machine")
    title = f"Timeline: {counted(len(bars), 'training')} on {machines}"
    if len(bars) == MAX_BARS:
        title += ", the latest"
    return component(figure, name="timeline", title=title, label=f"when each training ran; {title}", wide=True)


def _clock(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}"


def _text(bar: Bar) -> str:
    took = show_seconds(bar.ended - bar.began)
    lost = f"<br>{counted(len(bar.trial.attempts), 'attempt')} lost" if bar.trial.attempts else ""
    return f"trial {bar.trial.number}, {bar.kind}<br>{_clock(bar.began)}, {took}{lost}"
