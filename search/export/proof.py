"""An export's own `predict.py` against voxnas: the same cases, from their files, in a process without voxnas."""

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
from search.config.units import show_bytes
from search.data.geometry import from_grid, grid_difference, load_nifti, mask_from_logits
from search.data.prepare import Prepared, open_case, open_truth
from search.data.read import Case
from search.export.pt2 import TOLERANCE
from search.training.validation import case_dice, window_logits
from search.trials.records import CaseDice, Job

ISOLATED = Path(__file__).with_name("isolated.py")
DIFFERING_SHARE = 1e-5  # of voxels that may differ, where their two largest logits are as good as equal
DICE_DIFFERENCE = 5e-5  # equal to four decimals
RECORDED_DIFFERENCE = 0.05  # a trial may have been validated in bfloat16 on a GPU, the proof is float32 on a CPU
PEAK = re.compile(r"peak memory (\d+) MiB")


@dataclass(frozen=True)
class Expected:
    """What voxnas makes of a case: logits on the network's grid; class indices, label values, truth on the file's."""

    case: Case
    logits: NDArray[np.float32]
    mask: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    truth: NDArray[np.uint8]


@dataclass(frozen=True)
class Proof:
    """What comparing one form gave; `seconds` are those of predict.py on all cases, start included."""

    form: str
    cases: tuple[str, ...]
    voxels: int
    differing_voxels: int
    max_logit_difference: float
    max_dice_difference: float
    seconds: float
    peak_bytes: int

    def __str__(self) -> str:
        same = "all the same" if not self.differing_voxels else f"{self.differing_voxels} at ties differ"
        return (
            f"{self.form}: {', '.join(self.cases)} in a process without voxnas: {self.voxels:,} voxels, {same}; "
            f"logits within {self.max_logit_difference:.1e}, Dice within {self.max_dice_difference:.1e}; "
            f"{self.seconds:.1f} s, peak memory {show_bytes(self.peak_bytes)}"
        )


def expect(network: nn.Module, cases: Sequence[Case], *, prepared: Prepared, job: Job) -> list[Expected]:
    """Segment cases by voxnas, in float32 on the CPU; `network` is in eval mode, `job` says patch and overlap."""
    found = []
    for case in cases:
        grid = prepared.case(case.name).grid
        batch = torch.from_numpy(np.array(open_case(prepared, case.name)[0]))[None]
        logits = window_logits(network, batch, job=job)[0].numpy()
        mask = mask_from_logits(logits, grid)
        labels = np.array(prepared.label_values, dtype=np.uint8)[mask]
        found.append(Expected(case, logits, mask, labels, open_truth(prepared, case.name)[0]))
    return found


def require_recorded_dice(expected: Sequence[Expected], recorded: Sequence[CaseDice]) -> None:
    """Raise UserError if the network's Dice on validation cases differs from the record's."""
    known = {each.case: each.dice for each in recorded}
    for each in (each for each in expected if each.case.name in known):
        dices = known[each.case.name]
        found = case_dice(each.mask, each.truth, classes=len(dices) + 1)
        for label, (now, was) in enumerate(zip(found, dices, strict=True), start=1):
            if (now is None) != (was is None) or abs((now or 0.0) - (was or 0.0)) > RECORDED_DIFFERENCE:
                said = f"class {label} of {each.case.name} has Dice {_shown(now)}, the record has {_shown(was)}"
                raise UserError([f"the export was deleted: {said}: these are not the weights of the trial"])


def _shown(dice: float | None) -> str:
    return "none" if dice is None else f"{dice:.4f}"


def prove(folder: Path, form: str, expected: Sequence[Expected], *, prepared: Prepared) -> Proof:
    """Segment cases by one form of the export in `folder`, and compare.

    Raises UserError where predict.py fails, or where masks, logits or Dice differ.
    """
    with TemporaryDirectory() as scratch:
        began = time.perf_counter()
        said, found = _predicted(folder, form, [each.case for each in expected], Path(scratch))
        seconds = time.perf_counter() - began
        pairs = zip(expected, found, strict=True)
        apart = [_compare(each, *masks, form=form, prepared=prepared) for each, masks in pairs]
    return Proof(
        form,
        tuple(each.case.name for each in expected),
        voxels=sum(each.mask.size for each in expected),
        differing_voxels=sum(count for count, _, _ in apart),
        max_logit_difference=max(logits for _, logits, _ in apart),
        max_dice_difference=max(dice for _, _, dice in apart),
        seconds=seconds,
        peak_bytes=max((int(peak) for peak in PEAK.findall(said)), default=0) << 20,
    )


def _compare(
    expected: Expected, mask: NDArray[Any], logits: NDArray[np.float32], *, form: str, prepared: Prepared
) -> tuple[int, float, float]:
    """Return how many voxels differ, and by how much logits and Dice do."""
    values = np.array(prepared.label_values, dtype=np.uint8)
    if (mask.shape, logits.shape) != (expected.mask.shape, expected.logits.shape):
        raise failed(form, f"mask {mask.shape}, logits {logits.shape} for a volume of {expected.mask.shape}")
    apart = float(np.abs(logits - expected.logits).max())
    allowed = TOLERANCE * max(1.0, float(np.abs(expected.logits).max()))
    if not apart <= allowed:
        raise failed(form, f"logits differ by up to {apart:.3g}, allowed are {allowed:.3g}")
    differing = mask != expected.labels
    count = int(differing.sum())
    if count:
        top = np.sort(from_grid(expected.logits, prepared.case(expected.case.name).grid)[:, differing], axis=0)
        if count > DIFFERING_SHARE * mask.size or float((top[-1] - top[-2]).max()) > allowed:
            raise failed(form, f"{count} of {mask.size} voxels have another label")
    index_of = np.zeros(256, dtype=np.uint8)
    index_of[values] = np.arange(len(values))
    indices = index_of[mask]
    pairs = zip(_dice(indices, expected, values), _dice(expected.mask, expected, values), strict=True)
    worst = max((abs(one - other) for one, other in pairs), default=0.0)
    if worst > DICE_DIFFERENCE:
        raise failed(form, f"Dice differs by up to {worst:.2g}")
    return count, apart, worst


def _dice(mask: NDArray[np.uint8], expected: Expected, values: NDArray[np.uint8]) -> list[float]:
    return [dice for dice in case_dice(mask, expected.truth, classes=len(values)) if dice is not None]


def _predicted(
    folder: Path, form: str, cases: Sequence[Case], scratch: Path
) -> tuple[str, list[tuple[NDArray[Any], NDArray[np.float32]]]]:
    """Run predict.py on the cases' own files; return what it says, and each mask's values and logits."""
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
        said = ended.stderr.strip().splitlines() or ["nothing on stderr"]
        raise failed(form, f"predict.py ended with {ended.returncode}: {said[-1]}")
    found = []
    for number, case in enumerate(cases):
        image, values = load_nifti(masks / f"case{number}.nii.gz")
        original = load_nifti(Path(case.images[0]))[0]
        moved = grid_difference(original.shape[:3], original.affine, values.shape, image.affine)
        if moved or values.dtype != np.uint8:
            raise failed(form, f"the mask {moved or f'holds {values.dtype}'}")
        found.append((values, np.load(logits / f"case{number}.npy")))
    return ended.stdout, found


def link_case(case: Case, name: str, scratch: Path) -> Path:
    """Link a case's files into a folder under another name, nnU-Net's where there are several; return the first."""
    links = []
    for number, file in enumerate(case.images):
        suffix = ".nii.gz" if file.endswith(".gz") else ".nii"
        links.append(scratch / f"{name}{f'_{number:04d}' if len(case.images) > 1 else ''}{suffix}")
        os.symlink(os.path.abspath(file), links[-1])
    return links[0]


def failed(form: str, reason: str) -> UserError:
    """Return the error of a form that doesn't do what the trained network does."""
    return UserError([f"the export failed its proof and was deleted: form {form}: {reason}"])
