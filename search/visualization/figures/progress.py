"""Progress figures: hypervolume over trials and hours with a random-search baseline, and learning curves."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from search.analysis.snapshot import Numbers, Snapshot
from search.analysis.status import shown_state
from search.analysis.trial import Trial
from search.config.objectives import per_device
from search.config.units import counted
from search.visualization.components import Figure
from search.visualization.figures.style import FRONT, MUTED, STOPPED, canvas, color, component, sentence, tint

MAX_ENDED = 60  # trials of each state whose curves are drawn, the latest ones


@dataclass(frozen=True)
class HypervolumeSteps:
    """The steps at which the hypervolume grew, by number of ended trials and by hours of trials.

    `title` says whether its Dice is expected or measured.
    """

    trials: Numbers
    hours: Numbers
    volumes: Numbers
    numbers: Numbers
    title: str


def hypervolume_steps(snapshot: Snapshot) -> HypervolumeSteps:
    """Return the hypervolume's steps, and its latest value."""
    rows, hours, volumes = snapshot.progress
    if not len(rows):
        return HypervolumeSteps(*(np.zeros(0),) * 4, snapshot.volume_title)
    grew = np.append(np.diff(volumes, prepend=0.0)[:-1] > 0, True)
    at = np.flatnonzero(grew)
    numbers = snapshot.numbers[rows[at]].astype(float)
    return HypervolumeSteps(at.astype(float) + 1.0, hours[at], volumes[at], numbers, snapshot.volume_title)


@dataclass(frozen=True)
class Band:
    """Minimum, median and maximum hypervolume of repeated random searches, over trials or hours."""

    at: Numbers
    low: Numbers
    middle: Numbers
    high: Numbers
    repeats: int


def random_band(snapshot: Snapshot, others: Sequence[Snapshot], *, hours: bool) -> Band | None:
    """Return the band of random-search studies of the same problem, from this study's reference; None without any."""
    same = [each for each in others if each.study.search.proposer == "random" and _asks_the_same(each, snapshot)]
    curves = [(*each.progress[:2], each.volumes(each.progress[0], snapshot.reference)) for each in same]
    curves = [curve for curve in curves if len(curve[0])]
    if not curves:
        return None
    ends = [float(spent[-1]) if hours else float(len(rows)) for rows, spent, _ in curves]
    at = np.linspace(0.0, min(ends), 100)
    found = []
    for rows, spent, volumes in curves:
        after = np.searchsorted(spent if hours else np.arange(1.0, len(rows) + 1), at, side="right")
        found.append(np.append(0.0, volumes)[after])
    stacked = np.array(found)
    return Band(at, stacked.min(axis=0), np.median(stacked, axis=0), stacked.max(axis=0), len(curves))


def _asks_the_same(one: Snapshot, other: Snapshot) -> bool:
    mine, theirs = one.study, other.study
    same_devices = not per_device(mine.directions) or one.devices == other.devices
    return (
        one.label != other.label
        and mine.directions == theirs.directions
        and mine.space == theirs.space
        and mine.data.path == theirs.data.path
        and mine.training == theirs.training
        and same_devices
    )


def draw_hypervolume(steps: HypervolumeSteps, band: Band | None, *, hours: bool) -> Figure:
    """Draw the hypervolume against ended trials, or hours of trials."""
    figure = canvas(height=340)
    if band:
        sides = np.concatenate([band.at, band.at[::-1]]), np.concatenate([band.high, band.low[::-1]])
        figure.add_scatter(
            x=sides[0],
            y=sides[1],
            fill="toself",
            fillcolor=tint(MUTED, 0.25),
            line={"width": 0},
            hoverinfo="skip",
            name=f"random search ({counted(band.repeats, 'study', plural='studies')})",
        )
        figure.add_scatter(
            x=band.at,
            y=band.middle,
            mode="lines",
            line={"color": MUTED, "dash": "dot"},
            name="its median",
            hoverinfo="skip",
        )
    x = steps.hours if hours else steps.trials
    figure.add_scatter(
        x=x,
        y=steps.volumes,
        mode="lines+markers",
        line={"shape": "hv", "color": FRONT, "width": 2},
        marker={"size": 5},
        customdata=steps.numbers,
        hovertemplate="%{y:.4f} after trial %{customdata}<extra></extra>",
        name="this study",
        showlegend=band is not None,
    )
    unit = "hours of trials" if hours else "ended trials"
    figure.update_xaxes(title=unit, rangemode="tozero")
    figure.update_yaxes(title=steps.title, rangemode="tozero")
    last = f"{steps.volumes[-1]:.4f}" if len(steps.volumes) else "none yet"
    return component(
        figure,
        name=f"hypervolume-{'hours' if hours else 'trials'}",
        title=f"{sentence(steps.title)} against {unit}",
        label=f"{steps.title} against {unit}, last {last}",
    )


@dataclass(frozen=True)
class Curves:
    """The trials that have a learning curve: all running and interrupted ones, and those that ended last."""

    running: tuple[Trial, ...]
    trained: tuple[Trial, ...]
    stopped: tuple[Trial, ...]
    interrupted: tuple[Trial, ...] = ()

    @property
    def title(self) -> str:
        """How many curves of each kind there are."""
        kinds = (
            ("running", self.running),
            ("interrupted", self.interrupted),
            ("trained", self.trained),
            ("stopped early", self.stopped),
        )
        return ", ".join(f"{len(trials)} {kind}" for kind, trials in kinds if trials)


def curves_of(snapshot: Snapshot, lost: Collection[int] = ()) -> Curves:
    """Return the trials whose learning curves are drawn; `lost` are the open ones whose driver has ended."""
    with_curve = [trial for trial in snapshot.trials if not np.isnan(trial.dice_so_far)]
    running, interrupted, trained, stopped = (
        tuple(trial for trial in with_curve if shown_state(trial, lost) == state)
        for state in ("running", "interrupted", "trained", "stopped")
    )
    return Curves(running, trained[-MAX_ENDED:], stopped[-MAX_ENDED:], interrupted)


def draw_curves(curves: Curves) -> Figure:
    """Draw Dice over epochs: open trials in colour, ended ones pale, with the rung of those stopped early marked."""
    figure = canvas(height=360)
    for name, trials, hue in (("trained", curves.trained, FRONT), ("stopped early", curves.stopped, MUTED)):
        if trials:
            joined, reached, numbers = _joined(trials)
            figure.add_scatter(
                x=joined,
                y=reached,
                mode="lines+markers" if name == "trained" else "lines",
                line={"color": hue, "width": 1},
                marker={"size": 4},
                opacity=0.45,
                name=name,
                showlegend=name == "trained",
                customdata=numbers,
                hovertemplate="trial %{customdata}, epoch %{x}<br>Dice %{y:.4f}<extra></extra>",
            )
    if curves.stopped:
        figure.add_scatter(
            x=[trial.epochs.curve[-1][0] for trial in curves.stopped],
            y=[trial.dice_so_far for trial in curves.stopped],
            mode="markers",
            marker={"symbol": "x", "size": 8, "color": STOPPED},
            name="stopped at this rung",
            customdata=[trial.number for trial in curves.stopped],
            hovertemplate="trial %{customdata} stopped at epoch %{x}<br>Dice %{y:.4f}<extra></extra>",
        )
    opened = (*curves.running, *curves.interrupted)
    for at, trial in enumerate(opened, start=1):  # the first colour is that of trained trials
        epochs, dice = zip(*trial.epochs.curve, strict=True)
        figure.add_scatter(
            x=epochs,
            y=dice,
            mode="lines+markers",
            name=f"trial {trial.number}" + (" (interrupted)" if trial in curves.interrupted else ""),
            line={"color": color(at), "width": 2},
            customdata=[trial.number] * len(epochs),
            hovertemplate="trial %{customdata}, epoch %{x}<br>Dice %{y:.4f}<extra></extra>",
        )
    drawn = (*opened, *curves.trained, *curves.stopped)
    last = max((trial.epochs.curve[-1][0] for trial in drawn), default=0)
    values = {dice for trial in drawn for _, dice in trial.epochs.curve}
    figure.update_xaxes(title="epoch", rangemode="tozero", dtick=1 if last <= 20 else None)
    figure.update_yaxes(title="Dice", range=[0, 1] if len(values) < 2 else None)
    figure.update_layout(showlegend=True)
    return component(
        figure, name="curves", title=f"Learning curves: {curves.title}", label=f"learning curves, {curves.title}"
    )


def _joined(trials: Sequence[Trial]) -> tuple[list[int | None], list[float | None], list[int]]:
    """Return the curves of several trials as one line with gaps: epochs, Dice, trial numbers."""
    epochs: list[int | None] = []
    dice: list[float | None] = []
    numbers: list[int] = []
    for trial in trials:
        for epoch, reached in (*trial.epochs.curve, (None, None)):
            epochs.append(epoch)
            dice.append(reached)
            numbers.append(trial.number)
    return epochs, dice, numbers
