"""The results of a check, written to JSON and Markdown after each part, so that an aborted run keeps them."""

from __future__ import annotations

import json
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

ERROR_LINES = 12  # of a traceback that are kept


class OutOfTime(Exception):
    """A part has used up its seconds."""


@dataclass
class Limit:
    """A figure beside the limit that it should keep."""

    what: str
    value: float
    limit: float
    at_least: bool = False

    @property
    def met(self) -> bool:
        """Whether the limit is kept."""
        return self.value >= self.limit if self.at_least else self.value <= self.limit


@dataclass
class PartReport:
    """One part's rows, limits and errors; `ends_at` is the monotonic time at which the part should stop."""

    name: str
    ends_at: float
    rows: list[dict[str, object]] = field(default_factory=list)
    limits: list[Limit] = field(default_factory=list)
    errors: list[dict[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def row(self, **values: object) -> None:
        """Add a row of the part's table; a name that begins with `_` goes into the JSON alone."""
        self.rows.append(values)

    def limit(self, what: str, value: float, limit: float, *, at_least: bool = False) -> None:
        """Note a figure and its limit."""
        self.limits.append(Limit(what, float(value), limit, at_least))

    def note(self, text: str) -> None:
        """Note a sentence."""
        self.notes.append(text)

    @contextmanager
    def item(self, name: str) -> Iterator[None]:
        """Do one item of a part; what goes wrong in it is noted, and the part continues."""
        if time.monotonic() > self.ends_at:
            raise OutOfTime
        try:
            yield
        except OutOfTime:
            raise
        except Exception as error:
            self.fail(name, error)

    def fail(self, name: str, error: BaseException) -> None:
        """Note an error."""
        lines = "".join(traceback.format_exception(error)).strip().splitlines()
        self.errors.append({"item": name, "error": f"{type(error).__name__}: {error}"[:500]})
        self.errors[-1]["trace"] = "\n".join(lines[-ERROR_LINES:])
        print(f"  {self.name} / {name}: {self.errors[-1]['error'][:300]}", file=sys.stderr, flush=True)

    @property
    def verdict(self) -> str:
        """`met`, `MISSED` or `FAILED`."""
        if self.errors:
            return "FAILED"
        return "met" if all(each.met for each in self.limits) else "MISSED"


@dataclass
class Report:
    """All parts of a run, and where they are written."""

    folder: Path
    environment: dict[str, str]
    parts: list[PartReport] = field(default_factory=list)

    def write(self) -> None:
        """Write `check.json` and `check.md`."""
        self.folder.mkdir(parents=True, exist_ok=True)
        values = {"environment": self.environment, "parts": [asdict(part) for part in self.parts]}
        (self.folder / "check.json").write_text(json.dumps(values, indent=1, default=str) + "\n")
        (self.folder / "check.md").write_text(self.markdown())

    def markdown(self) -> str:
        """Return the tables."""
        lines = ["# GPU check", "", *(f"* {name}: {value}" for name, value in self.environment.items()), ""]
        lines += ["| part | figure | value | limit | |", "|---|---|---|---|---|"]
        for part in self.parts:
            for each in part.limits:
                sign = "≥" if each.at_least else "≤"
                met = "met" if each.met else "**missed**"
                lines.append(
                    f"| {part.name} | {each.what} | {_show(each.value)} | {sign} {_show(each.limit)} | {met} |"
                )
        for part in self.parts:
            lines += ["", f"## {part.name}", "", f"{part.seconds:.0f} s, {part.verdict}."]
            lines += ["", *(f"* {note}" for note in part.notes)] if part.notes else []
            lines += ["", *_table(part.rows)] if part.rows else []
            lines += (
                ["", *(f"* failed: {each['item']}: {each['error']}" for each in part.errors)] if part.errors else []
            )
        return "\n".join(lines) + "\n"


def _table(rows: list[dict[str, object]]) -> list[str]:
    names = list(dict.fromkeys(name for row in rows for name in row if not name.startswith("_")))
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    return lines + ["| " + " | ".join(_show(row.get(name, "")) for name in names) + " |" for row in rows]


def _show(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value).replace("|", "\\|").replace("\n", " ")
