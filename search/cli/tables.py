"""Tables of known results on the command line: `voxnas tabulate`, and the progress of long counts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from search.api.terminal import PlainConsole, open_console, print_text
from search.cli.running import following
from search.config.units import counted
from search.files import require_writable

if TYPE_CHECKING:
    from rich.console import Console

    from search.api.study import Study


def write_tabulated(
    study: Study, *, networks: int | None, seeds: int, train: bool, out: Path | None, quiet: bool
) -> None:
    """Train what is missing if `train` is true, then write the table and its card."""
    from search.runner.tabulate import read_tabulated
    from search.simulate.card import write_card
    from search.simulate.earlier_table import read_earlier, require_table_of
    from search.simulate.trained_table import write_trained

    file = out or study.folder / "table.parquet"
    require_writable(file)
    require_table_of(file, study.name)
    with following(f"tabulate {study.name}", trials=(networks or 0) * seeds, quiet=quiet) as view:
        earlier = read_earlier(file, study.make_plan(view))
        view.trials = max(0, view.trials - len(earlier.rows))
        if train:
            found = study.tabulate(networks=networks, seeds=seeds, known=earlier.rows.keys(), view=view)
        else:
            found = read_tabulated(study.plan, networks=networks, seeds=seeds)
    written = write_trained(found, study.plan, file, earlier=earlier)
    card = write_card(file)
    print_text(f"{file}: {written:,} of {counted(len(found.requests), 'training')}; data card: {card}")


@contextmanager
def counting(things: str, *, quiet: bool) -> Iterator[Callable[[str, int, int], None]]:
    """Show how many of the things are done, on standard error: a bar on a terminal, a line per tenth elsewhere."""
    console = PlainConsole(quiet=True) if quiet else open_console(to_stderr=True)
    bar: CountBar | None = None

    def show(what: str, done: int, total: int) -> None:
        nonlocal bar
        if not console.is_terminal:
            if done * 10 // total > (done - 1) * 10 // total:
                console.print(f"{what}: {done:,} of {total:,} {things}", soft_wrap=True)
            return
        bar = bar or CountBar(console)
        bar.show(what, done, total)
        if done == total:  # a table of results follows
            bar.stop()
            bar = None

    try:
        yield show
    finally:
        if bar is not None:
            bar.stop()


class CountBar:
    """A bar that disappears when it stops."""

    def __init__(self, console: Console) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self.progress = Progress(*columns, console=console, transient=True)
        self.task = self.progress.add_task("", total=None)
        self.progress.start()

    def show(self, what: str, done: int, total: int) -> None:
        """Show what was done last, and how many are done."""
        self.progress.update(self.task, description=what, completed=done, total=total)

    def stop(self) -> None:
        """Remove the bar."""
        self.progress.stop()
