"""The ledger of one tracker and study: how much of each run has been written, so that no step is written twice."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from search.files import require_regular
from search.files.digests import DigestError, sealed, unsealed

LOGGER = logging.getLogger("voxnas.tracking")


@dataclass(frozen=True)
class Entry:
    """What is known of a run: its identifier, its number of written points, and whether its end is written."""

    trial: int
    identifier: str = ""
    points: int = 0
    ended: bool = False


class Ledger:
    """A file with a line per change, of which the last one of each trial counts; each has its digest."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.entries: dict[int, Entry] = {}
        self.read()

    def read(self) -> None:
        """Read the file again, as another driver may have written to it; a line cut off by a crash is ignored."""
        self.entries = {entry.trial: entry for entry in self._lines()}

    def of(self, trial: int) -> Entry:
        """Return a trial's entry."""
        return self.entries.get(trial, Entry(trial))

    def write(self, entry: Entry) -> None:
        """Append a trial's new entry."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        if self.file.exists():
            require_regular(self.file)
        with self.file.open("a", encoding="utf-8") as file:
            file.write(f"\n{json.dumps(sealed(asdict(entry)))}")  # a line cut off before does not swallow this one
        self.entries[entry.trial] = entry

    def _lines(self) -> Iterator[Entry]:
        if not self.file.exists():
            return
        lines = require_regular(self.file).read_text(encoding="utf-8", errors="replace").splitlines()
        for number, line in enumerate(lines, start=1):
            try:
                yield Entry(**unsealed(json.loads(line)))
            except DigestError as error:
                LOGGER.warning("%s:%d: %s: the line is ignored", self.file, number, error)
            except (ValueError, TypeError):
                continue
