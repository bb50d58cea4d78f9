"""Expected Dice for the dashboard: estimated again in a thread, while pages show the last estimates."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, field, replace

from search.analysis.expected import Learned
from search.analysis.snapshot import Snapshot

DELAY_S = 0.5  # before an estimate starts: the page that needs it is answered first
log = logging.getLogger(__name__)


@dataclass
class Estimator:
    """Gives the snapshots of one study their estimates; only the first ones are waited for.

    `newest` is the latest snapshot as it was read, `shown` the same one with the last estimates, `learned`. `changes`
    counts the snapshots shown.
    """

    newest: Snapshot | None = None
    shown: Snapshot | None = None
    learned: Learned | None = None
    changes: int = 0
    timer: threading.Timer | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def with_estimates(self, snapshot: Snapshot) -> Snapshot:
        """Return a snapshot with estimates; the same object as before if nothing changed."""
        with self.lock:
            if self.shown is None or snapshot is not self.newest:
                self.newest = snapshot
                if self.learned is None or self.learned.estimates is None:
                    self.learned = snapshot.learn()
                self.shown = self._show(snapshot)
            return self.shown

    def _show(self, snapshot: Snapshot) -> Snapshot:
        """Return a snapshot with the last estimates; start new ones if it has trainings that these lack."""
        self.changes += 1
        found = replace(snapshot, learned=self.learned)
        if found.not_estimated and self.timer is None:
            self.timer = threading.Timer(DELAY_S, self._learn)
            self.timer.daemon = True
            self.timer.start()
        return found

    def _learn(self) -> None:
        """Estimate from the newest snapshot, and show the result with the one that is the newest by then."""
        with self.lock:
            snapshot = self.newest
        try:
            learned = snapshot.learn() if snapshot else None
        except Exception as error:
            log.warning("the expected Dice can't be estimated again: %s", error)
            learned = None
        with self.lock:
            self.timer = None
            if learned is not None and self.newest is not None:
                self.learned = learned
                self.shown = self._show(self.newest)
