"""Names of the folders and files of studies and trials."""

from __future__ import annotations

from pathlib import Path

from search.config.schema import Study

LAST, WEIGHTS, EPOCHS, REASON = "last.pt", "best.safetensors", "epochs.jsonl", "reason.txt"
CHECKPOINTS = (LAST, "previous.pt")  # latest first
FINISHED = "finished.json"  # the trial's trainings that have ended, while others remain
RESUME_FILES = (*CHECKPOINTS, FINISHED)


def run_folder(runs: Path, study: Study) -> Path:
    """Return the folder of a study's files, in the runs folder."""
    return runs / study.name


def trial_folder(run_folder: Path, number: int) -> Path:
    """Return the folder of a trial's files, in the study's folder."""
    return run_folder / "trials" / f"{number:06d}"


def weights_name(member: int) -> str:
    """Return the name of the weights of one of a trial's trainings; the first one's are WEIGHTS."""
    return WEIGHTS if member == 0 else f"best-{member}.safetensors"


def weights_files(folder: Path) -> list[Path]:
    """Return the weights of all of a trial's trainings."""
    return sorted(folder.glob("best*.safetensors"))
