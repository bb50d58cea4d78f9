"""What the folders and files of studies and trials are called."""

from __future__ import annotations

from pathlib import Path

from search.config.schema import Study

LAST, WEIGHTS, EPOCHS, REASON = "last.pt", "best.safetensors", "epochs.jsonl", "reason.txt"
CHECKPOINTS = (LAST, "previous.pt")  # the later one first


def run_folder(runs: Path, study: Study) -> Path:
    """Return the folder of a study's files."""
    return runs / study.name


def trial_folder(run_folder: Path, number: int) -> Path:
    """Return the folder of a trial's files, in its study's folder."""
    return run_folder / "trials" / f"{number:06d}"
