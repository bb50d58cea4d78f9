"""The progress of a study: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from search.api.terminal import open_console
from search.config.units import counted, show_bytes, show_remaining, show_seconds
from search.trials.activity import Activity, study_left_s
from search.trials.epochs import Epoch
from search.trials.records import COUNTED, Record

if TYPE_CHECKING:
    from search.runner.view import View

LAST_SHOWN = 8  # finished trials in the live table
RUNNING_SHOWN = 8  # running trials below it
LINE_S = 30.0  # between two lines about a stage or an epoch's steps, without a terminal
MEASURED = ("Dice", "memory", "latency")
HEADINGS = ("trial", "state", *MEASURED, "took", "network")
BETWEEN_TRIALS = "choosing the next network"


@dataclass
class Running:
    """A running trial: its last epoch, and its activity."""

    record: Record
    epochs: int
    last: Epoch | None = None
    activity: Activity | None = None

    @property
    def text(self) -> str:
        """Its activity and its Dice so far."""
        last = self.last
        if self.activity is not None:
            parts = [str(self.activity)]
        elif last is not None:
            parts = [f"epoch {last.number}/{self.epochs}, loss {last.loss:.4f}"]
        else:
            parts = ["starting"]
        if last is not None and last.dice is not None:
            parts.append(f"Dice so far {last.dice:.4f}")
        return ", ".join(parts)

    @property
    def done(self) -> float:
        """The number of epochs done, including the completed share of the current one."""
        activity = self.activity
        if activity is None or activity.stage != "training":
            return self.last.number if self.last else 0
        return activity.epoch - 1 + activity.done / activity.total


class RunView:
    """Shows the current stage, a study's running trials step by step, its front and the time left.

    `counts` tells which records are among the `trials`: an interrupted confirmation that resumes first is not.
    """

    def __init__(
        self, console: Console, *, name: str, trials: int, counts: Callable[[Record], bool] = lambda record: True
    ) -> None:
        self.console, self.name, self.trials, self.counts = console, name, trials, counts
        redraws = console.is_terminal and console.file.isatty()  # a notebook or FORCE_COLOR claims a terminal
        self.live = Live(console=console, refresh_per_second=4, transient=False) if redraws else None
        self.lines: list[tuple[str, ...]] = []
        self.running: dict[int, Running] = {}
        self.stage = ""
        self.counted, self.summary = 0, ""
        self.seconds: list[float] = []
        self.printed_at = -math.inf
        self.has_shown_steps = False

    def __enter__(self) -> RunView:
        if self.live:
            self.live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live:
            self.running.clear()
            self.stage = ""
            self.live.transient = not self.lines  # what came before the first trial is erased
            self.live.__exit__(kind, error, trace)

    def on_stage(self, stage: str, done: int = 0, total: int = 0) -> None:
        """Show the current stage before or between trials."""
        is_new = not self.stage.startswith(stage)
        self.stage = f"{stage}: {done} of {total}" if total else stage
        is_due = time.monotonic() - self.printed_at >= LINE_S
        self._show(self.stage if is_new or is_due or (total and done == total) else "")

    def on_resume(self, records: Sequence[Record]) -> None:
        """Count the trials that earlier runs finished."""
        self.counted = sum(record.state in COUNTED for record in records)
        self.seconds = [record.measurement.spent_s for record in records if record.state in ("trained", "stopped")]

    def on_trial_start(self, record: Record, epochs: int) -> None:
        """Show a trial that starts."""
        self.running[record.number] = Running(record, epochs)
        named = f"reference {record.reference}: " if record.reference else ""
        self._show(f"trial {record.number}: {named}{record.architecture.describe()}")

    def on_activity(self, record: Record, activity: Activity) -> None:
        """Show a trial's steps or validated cases."""
        self.stage = BETWEEN_TRIALS
        running = self.running.setdefault(record.number, Running(record, activity.epochs))
        running.activity = activity
        is_first = activity.stage == "training" and activity.done > 0 and not self.has_shown_steps
        self.has_shown_steps |= is_first
        is_due = time.monotonic() - self.printed_at >= LINE_S
        self._show(f"trial {record.number}: {activity}{self._study_left()}" if is_first or is_due else "")

    def on_epoch(self, record: Record, epoch: Epoch) -> None:
        """Show an epoch's loss and Dice."""
        running = self.running[record.number]
        running.last = epoch
        dice = "" if epoch.dice is None else f", Dice {epoch.dice:.4f}"
        where = f"{_training(epoch)}epoch {epoch.number}/{running.epochs}"
        self._show(f"trial {record.number}: {where}, loss {epoch.loss:.4f}{dice}")

    def on_trial_end(self, record: Record, front: int, hypervolume: float | None) -> None:
        """Show a finished trial."""
        self.summary = f"front {front}" + ("" if hypervolume is None else f", hypervolume {hypervolume:.4f}")
        measurement = record.measurement
        if record.state in COUNTED and self.counts(record):
            self.counted += 1
        if record.state in ("trained", "stopped"):
            self.seconds.append(measurement.spent_s)
        self.running.pop(record.number, None)
        state, *values, network = outcome(record)
        self.lines.append((str(record.number), state, *values, show_seconds(measurement.seconds), network))
        named = [f"{name} {value}" for name, value in zip(MEASURED, values, strict=True) if value]
        what = "; ".join([state, *([", ".join(named)] if named else []), network])
        self._show(f"trial {record.number}: {what}; {self.summary}{self._study_left()}")

    def _study_left(self) -> str:
        """Return the study's time left as the end of a line; empty while unknown, or where no trials are counted."""
        activities = [each.activity for each in self.running.values()]
        left_s = study_left_s(self.seconds, activities, to_do=self.trials - self.counted)
        return f"; about {show_remaining(left_s)} left for the study" if left_s is not None else ""

    def _show(self, line: str) -> None:
        """Redraw the table, or print the line unless it is empty."""
        if self.live:
            self.live.update(self._table() if self.lines or self.running else Text(self.stage))
        elif line:
            self.printed_at = time.monotonic()
            self.console.print(line, soft_wrap=True)

    def _table(self) -> Group:
        planned = counted(max(self.trials, self.counted), "trial")
        parts: list[RenderableType] = [Text(f"{self.name}: {self.counted} of {planned}", style="bold")]
        if self.lines:
            parts.append(finished_table(self.lines[-LAST_SHOWN:]))
        shown = list(self.running.values())[:RUNNING_SHOWN]
        for each in shown:
            parts.append(
                Text(
                    f"trial {each.record.number}  {each.record.architecture.describe()}",
                    no_wrap=True,
                    overflow="ellipsis",
                )
            )
            parts.append(Text(f"  {each.text}"))
            parts.append(Padding(ProgressBar(total=each.epochs, completed=each.done), (0, 0, 0, 2)))
        if len(self.running) > len(shown):
            parts.append(Text(f"and {len(self.running) - len(shown)} more running trials"))
        if not self.running and self.stage:
            parts.append(Text(self.stage))
        parts.append(Text(f"{self.summary or 'front 0'}{self._study_left()}"))
        return Group(*parts)


def finished_table(lines: Sequence[Sequence[str]]) -> Table:
    """Return finished trials as a table, without columns that are empty; networks take the width that is left."""
    table = Table(box=None, pad_edge=False, expand=True, header_style="dim")
    filled = [index for index in range(len(HEADINGS)) if any(line[index] for line in lines)]
    for index in filled:
        is_network = HEADINGS[index] == "network"
        table.add_column(HEADINGS[index], no_wrap=True, overflow="ellipsis", ratio=1 if is_network else None)
    for line in lines:
        table.add_row(*(line[index] for index in filled))
    return table


def _training(epoch: Epoch) -> str:
    """Name a further training of a trial, on another fold or seed."""
    return f"training {epoch.member + 1}, " if epoch.member else ""


@contextmanager
def showing(
    view: View | None, *, name: str, trials: int, counts: Callable[[Record], bool] = lambda record: True
) -> Iterator[View]:
    """Yield `view`, or a view that prints the progress if there is none."""
    if view is not None:
        yield view
        return
    with RunView(open_console(), name=name, trials=trials, counts=counts) as own:
        yield own


def outcome(record: Record) -> tuple[str, str, str, str, str]:
    """Return a record's state, Dice, memory, latency, and network (or reason) as text."""
    measurement = record.measurement
    costs = measurement.costs
    latency = costs.latency if costs else None
    dice = f"{measurement.dice:.4f}" if measurement.dice is not None else ""
    if measurement.dice_sd is not None:
        dice += f" ± {measurement.dice_sd:.4f}"
    return (
        record.state,
        dice,
        show_bytes(costs.memory_bytes) if costs else "",
        show_seconds(latency.median_s) if latency else "",
        measurement.reason or record.architecture.describe(),
    )
