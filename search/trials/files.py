"""Names of the folders and files of studies and trials."""

from __future__ import annotations

from pathlib import Path

from search.config.schema import Study

LAST, WEIGHTS, EPOCHS, REASON = "last.pt", "best.safetensors", "epochs.jsonl", "reason.txt"
CHECKPOINTS = (LAST, "previous.pt")  # latest first


def run_folder(runs: Path, study: Study) -> Path:
    """Return the folder of a study's files, in the runs folder."""
    return runs / study.name


def trial_folder(run_folder: Path, number: int) -> Path:
    """Return the folder of a trial's files, in the study's folder."""
    return run_folder / "trials" / f"{number:06d}"
