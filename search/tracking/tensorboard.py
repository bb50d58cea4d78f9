"""TensorBoard: event files in the study's folder, a subfolder per trial, with architectures as hyperparameters."""

from __future__ import annotations

from collections.abc import Sequence

from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from search.tracking.tracker import Ending, Point, Run, TrackedStudy


class TensorBoardTracker:
    """Writes to runs/NAME/tensorboard/NUMBER; a resumed trial adds a file to its folder."""

    def __init__(self, study: TrackedStudy) -> None:
        self.folder = study.folder / "tensorboard"
        self.writers: dict[int, SummaryWriter] = {}

    def begin(self, run: Run, *, known: str) -> str:
        """Open an event file; a new run's costs are its first scalars."""
        name = f"{run.number:06d}"
        writer = SummaryWriter(str(self.folder / name))
        self.writers[run.number] = writer
        if not known:
            for cost, value in run.costs.items():
                writer.add_scalar(f"costs/{cost}", value, 0, run.started_s)
            writer.flush()
        return name

    def log(self, run: Run, points: Sequence[Point]) -> None:
        """Write points at their epochs."""
        writer = self.writers[run.number]
        for point in points:
            for name, value in point.values.items():
                writer.add_scalar(name, value, point.epoch, point.at_s)
        writer.flush()

    def end(self, run: Run, ending: Ending) -> None:
        """Write the hyperparameters with the final values, and the state as text."""
        writer = self.writers.pop(run.number)
        given = {**run.parameters, **run.tags, "state": ending.state}
        final = {f"final/{name}": value for name, value in ending.values.items()}
        for summary in hparams(given, final):
            writer.file_writer.add_summary(summary)
        for name, value in final.items():
            writer.add_scalar(name, value, 0, ending.ended_s)
        text = f"{ending.state}: {ending.reason}" if ending.reason else ending.state
        writer.add_text("state", text, 0, ending.ended_s)
        writer.close()

    def interrupt(self, run: Run) -> None:
        """Close the event file."""
        self.writers.pop(run.number).close()
