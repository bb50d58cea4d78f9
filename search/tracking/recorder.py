"""Recorder: writes trials to a study's trackers in its own thread, where a slow or broken one holds up no study."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace

from search.config.schema import TrackerName
from search.tracking.contents import ending_of, is_tracked, points_of, run_of
from search.tracking.ledger import Ledger
from search.tracking.registry import explain_missing, missing_trackers, tracker_of
from search.tracking.tracker import Run, TrackedStudy, Tracker
from search.trials.records import Record

LOGGER = logging.getLogger("voxnas.tracking")
CLOSE_S = 60.0  # of waiting at the end of a run for a tracker that is slow
FOLDER = "tracked"  # of the ledgers, in the study's folder


@dataclass
class Channel:
    """A tracker in use, its ledger, and its open runs by trial."""

    name: TrackerName
    tracker: Tracker
    ledger: Ledger
    open: dict[int, Run]

    def write(self, record: Record, study: TrackedStudy) -> None:
        """Write what the tracker lacks of a trial.

        The ledger counts points before they are written: after a crash in between one is missing, but none is there
        twice.
        """
        entry = self.ledger.of(record.number)
        if entry.ended or not (entry.identifier or is_tracked(record)):
            return
        if record.number not in self.open:
            self.ledger.read()
            entry, run = self.ledger.of(record.number), run_of(record, study)
            entry = replace(entry, identifier=self.tracker.begin(run, known=entry.identifier))
            self.open[record.number] = run
            self.ledger.write(entry)
        run, points = self.open[record.number], points_of(record)[entry.points :]
        if points:
            self.ledger.write(replace(entry, points=entry.points + len(points)))
            try:
                self.tracker.log(run, points)
            except Exception:
                self.ledger.write(entry)
                raise
        if record.state != "running":
            self.tracker.end(run, ending_of(record))
            del self.open[record.number]
            self.ledger.write(replace(self.ledger.of(record.number), ended=True))

    def close(self) -> None:
        """Close the runs whose trials will resume."""
        for number in [*self.open]:
            self.tracker.interrupt(self.open.pop(number))


class Recorder:
    """Takes the latest record of each trial; a thread writes them. Without trackers it does nothing."""

    def __init__(self, names: Sequence[TrackerName], study: TrackedStudy) -> None:
        self.names, self.study = names, study
        self.waiting: dict[int, Record] = {}
        self.changed = threading.Condition()
        self.closing = False
        self.thread = threading.Thread(target=self._work, daemon=True, name="tracking")
        if names:
            self.thread.start()

    def show(self, records: Sequence[Record]) -> None:
        """Hand over trials as they are now; what a tracker has of them already is not written again."""
        with self.changed:
            self.waiting.update({each.number: each for each in records if self.names})
            self.changed.notify()

    def close(self) -> None:
        """Wait until all is written, and close the trackers; a tracker that takes too long is abandoned."""
        with self.changed:
            self.closing = True
            self.changed.notify()
        if self.names:
            self.thread.join(CLOSE_S)
        if self.thread.is_alive():
            LOGGER.warning("track: not everything was written within %.0f s; the next run writes the rest", CLOSE_S)

    def _work(self) -> None:
        channels = self._open()
        while (record := self._next()) is not None:
            for channel in [*channels]:
                try:
                    channel.write(record, self.study)
                except Exception as error:
                    channels.remove(channel)
                    _warn(channel.name, error)
        for channel in channels:
            try:
                channel.close()
            except Exception as error:
                _warn(channel.name, error)

    def _next(self) -> Record | None:
        """Wait for a trial to write; return None once the recorder closes and none is left."""
        with self.changed:
            self.changed.wait_for(lambda: self.waiting or self.closing)
            return self.waiting.pop(next(iter(self.waiting))) if self.waiting else None

    def _open(self) -> list[Channel]:
        """Open the trackers; a missing package or another fault is a warning."""
        if problem := explain_missing(self.names):
            LOGGER.warning("%s. The study runs without", problem)
        missing, channels = missing_trackers(self.names), []
        for name in self.names:
            if name in missing:
                continue
            try:
                ledger = Ledger(self.study.folder / FOLDER / f"{name}.jsonl")
                channels.append(Channel(name, tracker_of(name)(self.study), ledger, {}))
            except Exception as error:
                _warn(name, error)
        return channels


def _warn(name: TrackerName, error: Exception) -> None:
    said = " ".join(str(error).split()) or type(error).__name__
    LOGGER.warning(
        "track: %s failed (%s); the study continues without it, and the next run writes the rest", name, said
    )
