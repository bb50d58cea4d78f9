"""The studies that a dashboard shows, by name: read from their databases when they are asked for, never written."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path

from search.analysis.front import kept_study
from search.analysis.snapshot import Sheet, SheetReader
from search.config import Study, UserError
from search.storage import read_study_names
from search.storage.admin import find_databases
from search.storage.database import require_database


@dataclass
class Library:
    """The studies of a runs folder, or of one database; a study's folder is the one of its name in `runs`."""

    database: str | None
    runs: Path
    readers: dict[str, SheetReader] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def names(self) -> dict[str, str]:
        """Return each study's name with its database; what isn't there yet may come."""
        try:
            urls = find_databases(self.database, self.runs)
        except UserError:
            return {}
        return {name: url for url in urls for name in read_study_names(url)}

    def sheet(self, name: str) -> Sheet | None:
        """Return a study as it stands; None where there is none of this name, or none that voxnas started."""
        with self.lock:
            reader = self.readers.get(name) or self._open(name)
        if reader is None:
            return None
        require_database(reader.url)
        return reader.read()

    def close(self) -> None:
        """Close the connections to databases."""
        with self.lock:
            for reader in self.readers.values():
                reader.close()
            self.readers.clear()

    def _open(self, name: str) -> SheetReader | None:
        url, runs = self.names().get(name), self.runs.resolve()
        if url is None or runs not in (runs / name).resolve().parents:  # a database may hold any name
            return None
        study = _study(url, name)
        if study is None:
            return None
        self.readers[name] = SheetReader(study, self.runs / name, url)
        return self.readers[name]


def _study(url: str, name: str) -> Study | None:
    try:
        return kept_study(url, name)
    except UserError:  # of another version, or another program's
        return None
