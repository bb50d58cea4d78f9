"""Verification of an export: its `predict.py`, in a process without voxnas, against voxnas on the same image files."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from search.config.errors import UserError
from search.config.units import counted, show_bytes
from search.data.geometry import from_grid, grid_difference, load_nifti, mask_from_logits
from search.data.prepare import Prepared, open_case, open_truth
from search.data.read import Case
from search.export.pt2 import TOLERANCE
from search.training.validation import case_dice, window_logits
from search.trials.records import CaseDice, Job

ISOLATED = Path(__file__).with_name("isolated.py")
MAX_DIFFERING_SHARE = 1e-5  # of the voxels, and only where the two largest logits are tied
MAX_DICE_DIFFERENCE = 5e-5  # equal to four decimals
MAX_RECORDED_DIFFERENCE = 0.05  # the trial may have been validated in bfloat16 on a GPU; this is float32 on a CPU
PEAK = re.compile(r"peak memory (\d+) MiB")


@dataclass(frozen=True)
class Reference:
    """voxnas's own result for a case.

    `logits` are on the network's grid; `mask` (class indices), `labels` (label values) and `truth` on the file's.
    """

    case: Case
    logits: NDArray[np.float32]
    mask: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    truth: NDArray[np.uint8]


@dataclass(frozen=True)
class FormCheck:
    """The comparison of one form with voxnas; `seconds` is the time of predict.py on all cases, including startup."""

    form: str
    cases: tuple[str, ...]
    voxels: int
    differing_voxels: int
    max_logit_difference: float
    max_dice_difference: float
    seconds: float
    peak_bytes: int

    def __str__(self) -> str:
        ties = f"{self.differing_voxels:,} differ (tied logits)" if self.differing_voxels else "all labels equal"
        voxels = f"{counted(self.voxels, 'voxel')}, {ties}"
        return (
            f"{self.form}: {', '.join(self.cases)} in a process without voxnas: {voxels}; "
            f"largest difference of logits {self.max_logit_difference:.1e}, of Dice {self.max_dice_difference:.1e}; "
            f"{self.seconds:.1f} s, peak memory {show_bytes(self.peak_bytes)}"
        )


def reference_results(network: nn.Module, cases: Sequence[Case], *, prepared: Prepared, job: Job) -> list[Reference]:
    """Segment cases with voxnas in float32 on the CPU; `network` is in eval mode, `job` holds patch and overlap."""
    found = []
    for case in cases:
        grid = prepared.case(case.name).grid
        batch = torch.from_numpy(np.array(open_case(prepared, case.name)[0]))[None]
        logits = window_logits(network, batch, job=job)[0].numpy()
        mask = mask_from_logits(logits, grid)
        labels = np.array(prepared.label_values, dtype=np.uint8)[mask]
        found.append(Reference(case, logits, mask, labels, open_truth(prepared, case.name)[0]))
    return found


def require_recorded_dice(references: Sequence[Reference], recorded: Sequence[CaseDice]) -> None:
    """Raise UserError if the network's Dice on validation cases differs from the record's."""
    known = {each.case: each.dice for each in recorded}
    for each in (each for each in references if each.case.name in known):
        dices = known[each.case.name]
        found = case_dice(each.mask, each.truth, classes=len(dices) + 1)
        for label, (now, then) in enumerate(zip(found, dices, strict=True), start=1):
            if (now is None) != (then is None) or abs((now or 0.0) - (then or 0.0)) > MAX_RECORDED_DIFFERENCE:
                scores = f"has Dice {_shown(now)}, but {_shown(then)} in the record"
                raise UserError(
                    [
                        f"the export was deleted: case {each.case.name}, class {label} {scores}: "
                        "these are not the weights of the trial"
                    ]
                )


def _shown(dice: float | None) -> str:
    return "none" if dice is None else f"{dice:.4f}"


def check_form(folder: Path, form: str, references: Sequence[Reference], *, prepared: Prepared) -> FormCheck:
    """Segment the cases with one form of the export in `folder` and compare.

    Raises UserError if predict.py fails, or if masks, logits or Dice differ.
    """
    with TemporaryDirectory() as scratch:
        began = time.perf_counter()
        output, found = _predicted(folder, form, [each.case for each in references], Path(scratch))
        seconds = time.perf_counter() - began
        pairs = zip(references, found, strict=True)
        differences = [_compare(each, *masks, form=form, prepared=prepared) for each, masks in pairs]
    return FormCheck(
        form,
        tuple(each.case.name for each in references),
        voxels=sum(each.mask.size for each in references),
        differing_voxels=sum(count for count, _, _ in differences),
        max_logit_difference=max(logits for _, logits, _ in differences),
        max_dice_difference=max(dice for _, _, dice in differences),
        seconds=seconds,
        peak_bytes=max((int(peak) for peak in PEAK.findall(output)), default=0) << 20,
    )


def _compare(
    reference: Reference, mask: NDArray[Any], logits: NDArray[np.float32], *, form: str, prepared: Prepared
) -> tuple[int, float, float]:
    """Return the number of differing voxels and the largest differences of logits and Dice."""
    values = np.array(prepared.label_values, dtype=np.uint8)
    if (mask.shape, logits.shape) != (reference.mask.shape, reference.logits.shape):
        raise failed(form, f"mask {mask.shape}, logits {logits.shape} for a volume of {reference.mask.shape}")
    difference = float(np.abs(logits - reference.logits).max())
    allowed = TOLERANCE * max(1.0, float(np.abs(reference.logits).max()))
    if not difference <= allowed:
        raise failed(form, f"logits differ by up to {difference:.3g}; the limit is {allowed:.3g}")
    differing = mask != reference.labels
    count = int(differing.sum())
    if count:
        top = np.sort(from_grid(reference.logits, prepared.case(reference.case.name).grid)[:, differing], axis=0)
        if count > MAX_DIFFERING_SHARE * mask.size or float((top[-1] - top[-2]).max()) > allowed:
            raise failed(form, f"the labels of {count:,} of {mask.size:,} voxels differ")
    index_of = np.zeros(256, dtype=np.uint8)
    index_of[values] = np.arange(len(values))
    indices = index_of[mask]
    pairs = zip(_dice(indices, reference, values), _dice(reference.mask, reference, values), strict=True)
    worst = max((abs(one - other) for one, other in pairs), default=0.0)
    if worst > MAX_DICE_DIFFERENCE:
        raise failed(form, f"Dice differs by up to {worst:.2g}")
    return count, difference, worst


def _dice(mask: NDArray[np.uint8], reference: Reference, values: NDArray[np.uint8]) -> list[float]:
    return [dice for dice in case_dice(mask, reference.truth, classes=len(values)) if dice is not None]


def _predicted(
    folder: Path, form: str, cases: Sequence[Case], scratch: Path
) -> tuple[str, list[tuple[NDArray[Any], NDArray[np.float32]]]]:
    """Run predict.py on the cases' files; return its standard output, and the values and logits of each mask."""
    masks, logits = scratch / "masks", scratch / "logits"
    inputs = [link_case(case, f"case{number}", scratch) for number, case in enumerate(cases)]
    command = [
        sys.executable,
        "-I",
        "-B",
        str(ISOLATED),
        str(folder / "predict.py"),
        *map(str, inputs),
        "--out",
        str(masks),
        "--logits",
        str(logits),
        "--form",
        form,
        "--device",
        "cpu",
        "--threads",
        str(torch.get_num_threads()),
    ]
    ended = subprocess.run(command, cwd=scratch, capture_output=True, text=True, check=False)
    if ended.returncode:
        lines = ended.stderr.strip().splitlines() or ["nothing on stderr"]
        raise failed(form, f"predict.py exited with code {ended.returncode}: {lines[-1]}")
    found = []
    for number, case in enumerate(cases):
        image, values = load_nifti(masks / f"case{number}.nii.gz")
        original = load_nifti(Path(case.images[0]))[0]
        moved = grid_difference(original.shape[:3], original.affine, values.shape, image.affine)
        if moved or values.dtype != np.uint8:
            raise failed(form, f"the mask {moved or f'is {values.dtype}, not uint8'}")
        found.append((values, np.load(logits / f"case{number}.npy")))
    return ended.stdout, found


def link_case(case: Case, name: str, scratch: Path) -> Path:
    """Link a case's files into a folder under `name` (nnU-Net names for several channels); return the first link."""
    links = []
    for number, file in enumerate(case.images):
        suffix = ".nii.gz" if file.endswith(".gz") else ".nii"
        links.append(scratch / f"{name}{f'_{number:04d}' if len(case.images) > 1 else ''}{suffix}")
        os.symlink(os.path.abspath(file), links[-1])
    return links[0]


def failed(form: str, reason: str) -> UserError:
    """Return the error for a form whose results differ from the trained network's."""
    return UserError([f"the export failed verification and was deleted: form {form}: {reason}"])
