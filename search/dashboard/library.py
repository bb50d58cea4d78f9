"""The studies of a dashboard by name: read from their databases on demand, never written."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, field
from pathlib import Path

from search.analysis.snapshot import Snapshot
from search.analysis.snapshot_reader import SnapshotReader, stored_study
from search.config import Study, UserError
from search.dashboard.estimator import Estimator
from search.storage import read_study_names
from search.storage.admin import find_databases
from search.storage.database import require_database

log = logging.getLogger(__name__)


@dataclass
class Library:
    """The studies of a runs folder or of one database; the folder of a study is `runs/NAME`."""

    database: str | None
    runs: Path
    readers: dict[str, SnapshotReader] = field(default_factory=dict)
    estimators: dict[str, Estimator] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def names(self) -> dict[str, str]:
        """Return each study's name and database URL; nothing while no database exists."""
        try:
            urls = find_databases(self.database, self.runs)
        except UserError:
            return {}
        names: dict[str, str] = {}
        for url in urls:
            try:
                names |= dict.fromkeys(read_study_names(url), url)
            except UserError as error:  # one damaged database must not hide the others
                log.warning("%s", error)
        return names

    def snapshot(self, name: str) -> Snapshot | None:
        """Return a study's current snapshot, or None if voxnas started no study of this name.

        Its estimates may be those of an earlier snapshot (`Snapshot.not_estimated`), until new ones are computed.
        """
        with self.lock:
            reader = self.readers.get(name) or self._open(name)
        if reader is None:
            return None
        require_database(reader.url)
        return self.estimators[name].with_estimates(reader.read())

    def changes(self, name: str) -> int:
        """Return how often a study's snapshot has changed since it was first read."""
        return self.estimators[name].changes

    def close(self) -> None:
        """Close the connections to databases."""
        with self.lock:
            for reader in self.readers.values():
                reader.close()
            self.readers.clear()
            self.estimators.clear()

    def _open(self, name: str) -> SnapshotReader | None:
        url, runs = self.names().get(name), self.runs.resolve()
        if url is None or runs not in (runs / name).resolve().parents:  # a database may hold any name
            return None
        study = _study(url, name)
        if study is None:
            return None
        self.estimators[name] = Estimator()
        self.readers[name] = SnapshotReader(study, self.runs / name, url)
        return self.readers[name]


def _study(url: str, name: str) -> Study | None:
    try:
        return stored_study(url, name)
    except UserError:  # written by another version or another program
        return None
