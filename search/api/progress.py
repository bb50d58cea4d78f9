"""The progress of a study: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from search.api.terminal import open_console
from search.config.units import counted, show_bytes, show_seconds
from search.trials.records import COUNTED, Epoch, Record

if TYPE_CHECKING:
    from search.runner.driver import View

LAST_SHOWN = 8  # finished trials in the live table
MEASURED = ("Dice", "memory", "latency")


class RunView:
    """Shows a study's running trials with their epochs and Dice so far, its front and the time left."""

    def __init__(self, console: Console, *, name: str, trials: int) -> None:
        self.console, self.name, self.trials = console, name, trials
        redraws = console.is_terminal and console.file.isatty()  # a notebook or FORCE_COLOR claims a terminal
        self.live = Live(console=console, refresh_per_second=4, transient=False) if redraws else None
        self.lines: list[tuple[str, ...]] = []
        self.running: dict[int, tuple[Record, Epoch | None]] = {}
        self.epochs = 0
        self.counted, self.summary = 0, ""
        self.seconds: list[float] = []
        self.begun = time.monotonic()

    def __enter__(self) -> RunView:
        if self.live:
            self.live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live:
            self.running.clear()
            self.live.update(self._table())
            self.live.__exit__(kind, error, trace)

    def on_resume(self, records: Sequence[Record]) -> None:
        """Count the trials that earlier runs finished."""
        self.counted = sum(record.state in COUNTED for record in records)
        self.seconds = [record.measurement.seconds for record in records if record.state == "trained"]

    def on_preparing(self, done: int, total: int) -> None:
        """Show how many volumes are prepared."""
        if self.live:
            self.live.update(Text(f"preparing volumes: {done} of {total}"))
        elif done == total:
            self.console.print(f"prepared {counted(total, 'volume')}")

    def on_pricing(self, done: int, total: int) -> None:
        """Show how many of the first networks are priced."""
        line = f"pricing the first networks: {done} of {total}"
        if self.live:
            self.live.update(Text(line))
        elif done in (1, total):
            self.console.print(line)

    def on_trial_start(self, record: Record, epochs: int) -> None:
        """Show a trial that starts."""
        self.epochs = epochs
        self.running[record.number] = (record, None)
        self.begun = time.monotonic()
        self._show(f"trial {record.number}: {record.architecture.describe()}")

    def on_epoch(self, record: Record, epoch: Epoch) -> None:
        """Show an epoch's loss and Dice."""
        self.running[record.number] = (record, epoch)
        dice = "" if epoch.dice is None else f", Dice {epoch.dice:.4f}"
        self._show(f"trial {record.number}: epoch {epoch.number}/{self.epochs}, loss {epoch.loss:.4f}{dice}")

    def on_trial_end(self, record: Record, front: int, hypervolume: float | None) -> None:
        """Show a finished trial."""
        self.summary = f"front {front}" + ("" if hypervolume is None else f", hypervolume {hypervolume:.4f}")
        measurement = record.measurement
        if record.state in COUNTED:
            self.counted += 1
            self.seconds.append(measurement.seconds)
        self.running.pop(record.number, None)
        self.lines.append((str(record.number), *outcome(record), show_seconds(measurement.seconds)))
        state, *values, network = outcome(record)
        named = [f"{name} {value}" for name, value in zip(MEASURED, values, strict=True) if value]
        what = "; ".join([state, *([", ".join(named)] if named else []), network])
        left = f"; about {show_seconds(self._left())} left" if self._left() else ""
        self._show(f"trial {record.number}: {what}; {self.summary}{left}")

    def _left(self) -> float:
        if not self.seconds:
            return 0.0
        spent = time.monotonic() - self.begun if self.running else 0.0
        each = sum(self.seconds) / len(self.seconds)
        return max(0.0, each * (self.trials - self.counted) / max(1, len(self.running)) - min(spent, each))

    def _show(self, line: str) -> None:
        if self.live:
            self.live.update(self._table())
        else:
            self.console.print(line, soft_wrap=True)

    def _table(self) -> Group:
        table = Table(
            title=f"{self.name}: {self.counted} of {counted(self.trials, 'trial')}", title_justify="left", expand=True
        )
        for heading in ("trial", "state", *MEASURED, "network", "took"):
            table.add_column(heading, no_wrap=heading != "network", overflow="ellipsis")
        for number, state, dice, memory, latency, network, took in self.lines[-LAST_SHOWN:]:
            table.add_row(number, state, dice, memory, latency, network, took)
        parts: list[object] = [table]
        for record, last in self.running.values():
            done = last.number if last else 0
            dice = "" if last is None or last.dice is None else f"  Dice so far {last.dice:.4f}"
            loss = f"  loss {last.loss:.4f}" if last else ""
            parts.append(Text(f"trial {record.number}  {record.architecture.describe()}", no_wrap=True))
            parts.append(Text(f"  epoch {done}/{self.epochs}{loss}{dice}"))
            parts.append(ProgressBar(total=self.epochs, completed=done))
        left = f", about {show_seconds(self._left())} left" if self._left() else ""
        parts.append(Text(f"{self.summary or 'front 0'}{left}"))
        return Group(*parts)  # type: ignore[arg-type]


@contextmanager
def showing(view: View | None, *, name: str, trials: int) -> Iterator[View]:
    """Yield `view`, or a view that prints the progress if there is none."""
    if view is not None:
        yield view
        return
    with RunView(open_console(), name=name, trials=trials) as own:
        yield own


def outcome(record: Record) -> tuple[str, str, str, str, str]:
    """Return a record's state, Dice, memory, latency, and network (or reason) as text."""
    measurement = record.measurement
    costs = measurement.costs
    latency = costs.latency if costs else None
    dice = f"{measurement.dice:.4f}" if measurement.dice is not None else ""
    return (
        record.state,
        dice,
        show_bytes(costs.memory_bytes) if costs else "",
        show_seconds(latency.median_s) if latency else "",
        measurement.reason or record.architecture.describe(),
    )
