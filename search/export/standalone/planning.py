"""Decides which volumes are segmented to which files; refuses what can't work before any segmentation starts."""

from __future__ import annotations

import argparse
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import series  # type: ignore[import-not-found]  # files of this folder
import volume_files  # type: ignore[import-not-found]
import volumes  # type: ignore[import-not-found]


@dataclass(frozen=True)
class Task:
    """One volume and its output files."""

    case: Any
    mask: Path
    probabilities: Path | None
    logits: Path | None

    @property
    def outputs(self) -> list[Path]:
        """All files that are written."""
        return [path for path in (self.mask, self.probabilities, self.logits) if path]


def plan(options: argparse.Namespace, *, channels: int) -> tuple[list[Task], list[str]]:
    """Return the inputs with their output files, and a message on each input that is left out.

    Raises ValueError if a folder can't be used for the outputs, or an input folder contains no volumes.
    """
    cases, left = _cases(options, channels)
    is_mask = bool(volume_files.suffix_of(options.out)) and not os.path.isdir(options.out)
    if is_mask and not options.out.name.endswith(volume_files.NIFTI):
        raise ValueError(f"--out {options.out}: a mask is written as .nii.gz or .nii")
    if is_mask and len(cases) > 1:
        raise ValueError(f"--out {options.out}: several masks need a folder, not a file name")
    tasks = [_task(case, options, is_mask=is_mask) for case in cases]
    folders = [path for path in options.inputs if os.path.isdir(path) and not series.is_series(path)]
    for folder in {path.parent for task in tasks for path in task.outputs}:
        if any(os.path.realpath(folder) == os.path.realpath(each) for each in folders):
            raise ValueError(f"{folder}: is an input folder, in which masks would become volumes; choose another one")
        _require_writable(folder, is_created=folder in (options.out, options.logits))
    return _separate(tasks, left)


def _cases(options: argparse.Namespace, channels: int) -> tuple[list[Any], list[str]]:
    if not options.channel:
        outputs = tuple(path for path in (options.out, options.logits) if path)
        found: tuple[list[Any], list[str]] = volumes.find_cases(options.inputs, channels=channels, outputs=outputs)
        return found
    if len(options.inputs) != 1:
        raise ValueError("--channel: give exactly one input image with --channel")
    return [volumes.Case(volume_files.stem_of(options.inputs[0]), (options.inputs[0], *options.channel))], []


def _task(case: Any, options: argparse.Namespace, *, is_mask: bool) -> Task:
    mask = options.out if is_mask else options.out / f"{case.name}.nii.gz"
    stem = mask.name.removesuffix(".gz").removesuffix(".nii")
    return Task(
        case,
        mask,
        probabilities=mask.with_name(f"{stem}_probabilities.nii.gz") if options.probabilities else None,
        logits=options.logits / f"{case.name}.npy" if options.logits else None,
    )


def _require_writable(folder: Path, *, is_created: bool) -> None:
    """Raise ValueError if files can't be written to a folder, or if it can't be created."""
    existing = folder.parent if is_created and not os.path.exists(folder) else folder
    if not os.path.exists(existing):
        raise ValueError(f"{folder}: can't be written: the folder {existing} doesn't exist")
    if not os.path.isdir(existing):
        raise ValueError(f"{folder}: can't be written: {existing} is a file, not a folder")
    if not volume_files.may(existing, os.W_OK | os.X_OK):
        raise ValueError(f"{folder}: can't be written: {existing} is read-only")


def _separate(tasks: list[Task], left: list[str]) -> tuple[list[Task], list[str]]:
    """Leave out tasks that share an output, or one of whose outputs can't be written."""
    shared, messages = volumes.sharing([(task.case, list(map(str, task.outputs))) for task in tasks])
    inputs = {_identity(file) for task in tasks for file in task.case.files}
    kept = []
    for task in tasks:
        wrong = [f"{path}: can't be written: {why}" for path in task.outputs if (why := _why_not(path, inputs))]
        messages += [f"{each}; left out" for each in wrong]
        if not wrong and task.case not in shared:
            kept.append(task)
    return kept, [*left, *messages]


def _why_not(path: Path, inputs: set[tuple[int, int]]) -> str:
    """Return why a file can't be written; empty if it can."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return ""
    except OSError as error:  # a name that is too long, a loop of links
        return error.strerror or str(error)
    if stat.S_ISDIR(found.st_mode):
        return "it is a folder"
    return "it is an input" if (found.st_dev, found.st_ino) in inputs else ""


def _identity(path: Path) -> tuple[int, int]:
    """Return what is equal for all names of one file; (0, 0) for a missing file."""
    try:
        found = path.stat()
    except OSError:  # reading it reports the fault
        return 0, 0
    return found.st_dev, found.st_ino
