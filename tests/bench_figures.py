"""The figures of a benchmark with their limits: printed in one form, and collected by `make bench`."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

COLLECTED = "VOXNAS_BENCH_FIGURES"  # names the file to which the figures of all benchmarks are appended


@dataclass(frozen=True)
class Figure:
    """A measured value, and its limit if it has one: the most it may be, or with `at_least` the least."""

    what: str
    value: float
    unit: str = ""
    limit: float | None = None
    at_least: bool = False

    @property
    def shown(self) -> str:
        """The value with its unit."""
        return _with_unit(self.value, self.unit)

    @property
    def shown_limit(self) -> str:
        """The limit with its unit; empty without one."""
        if self.limit is None:
            return ""
        return f"{'at least' if self.at_least else 'at most'} {_with_unit(self.limit, self.unit)}"

    @property
    def verdict(self) -> str:
        """`met` or `MISSED`; empty without a limit."""
        if self.limit is None:
            return ""
        return "met" if (self.value >= self.limit if self.at_least else self.value <= self.limit) else "MISSED"


def _with_unit(value: float, unit: str) -> str:
    return f"{value:.3g} {unit}".rstrip() if abs(value) < 1000 else f"{value:,.0f} {unit}".rstrip()


def report(what: str, value: float, unit: str = "", *, limit: float | None = None, at_least: bool = False) -> None:
    """Print a figure; append it to the file of collected figures if there is one."""
    figure = Figure(what, value, unit, limit, at_least)
    print(
        f"{what}: {figure.shown}" + (f" ({figure.shown_limit}): {figure.verdict}" if figure.verdict else ""), flush=True
    )
    if file := os.environ.get(COLLECTED):
        with Path(file).open("a") as lines:
            lines.write(json.dumps(asdict(figure)) + "\n")


def collected(file: Path) -> list[Figure]:
    """Return the figures that benchmarks appended to a file."""
    return [Figure(**json.loads(line)) for line in file.read_text().splitlines()] if file.exists() else []
