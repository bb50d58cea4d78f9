"""`voxnas doctor`: test the environment, and say what is slow or wrong and what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from search.api.terminal import open_console, print_json
from search.cli.running import following

if TYPE_CHECKING:
    from search.setup.check import Check

MARKS = {"ok": "ok", "warning": "warn", "error": "ERROR"}


def examine(runs: Path, *, json: bool, quiet: bool) -> bool:
    """Print what was found; return whether voxnas can work here."""
    with following("doctor", quiet=quiet, to_stderr=True) as view:
        checks = []
        for name, check in _checks(runs, view.on_stage):
            view.on_stage(f"testing {name}")
            checks.append(check())
    if json:
        print_json([asdict(check) for check in checks])
    else:
        open_console().print(checks_table(checks))
    return all(check.state != "error" for check in checks)


def checks_table(checks: list[Check]) -> Table:
    """Return the checks as a table, each with its advice below it."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    for _ in range(3):
        table.add_column(overflow="fold")
    for check in checks:
        advice = f"\n-> {check.advice}" if check.advice else ""
        table.add_row(MARKS[check.state], check.name, check.found + advice)
    return table


def _checks(runs: Path, stage: Callable[[str], None]) -> Iterator[tuple[str, Callable[[], Check]]]:
    """Yield each check with what it is about; PyTorch is imported once packages were checked."""
    from search.setup import packages

    yield "Python", packages.check_python
    yield "packages", packages.check_required
    yield "tested versions", packages.check_tested
    yield "optional parts", packages.check_extras
    stage("loading PyTorch")
    from search.setup import devices, surroundings

    yield "the device", devices.check_device
    yield "bfloat16", devices.check_precision
    yield "the processors", devices.check_load
    yield "memory", devices.check_memory
    yield "the disk", partial(surroundings.check_disk, runs)
    yield "file locks", partial(surroundings.check_locks, runs)
    yield "Ray", surroundings.check_ray
    yield "the browser", surroundings.check_browser
