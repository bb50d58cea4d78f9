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
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from search.config.errors import RunError, UserError
from search.config.units import counted, show_bytes
from search.data.components import keep_largest
from search.data.geometry import from_grid, mask_from_logits
from search.data.labelling import Labelling
from search.data.layouts import Case
from search.data.prepared import Prepared, open_case, open_truth
from search.data.volume_files import grid_difference, load_nifti, read_values, suffix_of
from search.export.pt2 import TOLERANCE
from search.files import scratch_folder
from search.training.validation import case_dice, window_logits, without_ignored
from search.trials.job import Job
from search.trials.records import CaseDice

ISOLATED = Path(__file__).with_name("isolated.py")
MAX_DIFFERING_SHARE = 1e-5  # of the voxels, and only where the two largest logits are tied
MAX_DICE_DIFFERENCE = 5e-5  # equal to four decimals
MAX_RECORDED_DIFFERENCE = 0.05  # the trial may have been validated in bfloat16 on a GPU; this is float32 on a CPU
PEAK = re.compile(r"peak memory (\d+) MiB")


@dataclass(frozen=True)
class Reference:
    """voxnas's own result for a case.

    `logits` are on the network's grid; the others on the file's: `raw` (class indices before postprocessing), `mask`
    (class indices after it), `labels` (label values) and `truth`.
    """

    case: Case
    logits: NDArray[np.float32]
    raw: NDArray[Any]
    mask: NDArray[Any]
    labels: NDArray[Any]
    truth: NDArray[Any]


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


def reference_results(
    network: nn.Module,
    cases: Sequence[Case],
    *,
    prepared: Prepared,
    job: Job,
    groups: Sequence[Sequence[int]] = (),
) -> list[Reference]:
    """Segment cases with voxnas in float32 on the CPU, and keep only the largest component of each group of classes.

    `network` is in eval mode, `job` holds patch and overlap.
    """
    found = []
    for case in cases:
        grid = prepared.case(case.name).grid
        batch = torch.from_numpy(np.array(open_case(prepared, case.name)[0]))[None]
        logits = window_logits(network, batch, job=job)[0].numpy()
        raw = mask_from_logits(logits, grid, order=prepared.order)
        mask = keep_largest(raw, groups)
        labels = _values(prepared)[mask]
        found.append(Reference(case, logits, raw, mask, labels, open_truth(prepared, case.name)[0]))
    return found


def require_recorded_dice(
    references: Sequence[Reference], recorded: Sequence[CaseDice], *, labelling: Labelling
) -> None:
    """Raise UserError if the network's Dice on validation cases differs from the record's."""
    known = {each.case: each.dice for each in recorded}
    for each in (each for each in references if each.case.name in known):
        dices = known[each.case.name]
        found = case_dice(*without_ignored(each.raw, each.truth, labelling), members=labelling.members)
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

    Raises UserError if predict.py fails, or if masks, logits or Dice differ; RunError if the machine failed.
    """
    with scratch_folder() as scratch:
        began = time.perf_counter()
        output, found = _predicted(folder, form, [each.case for each in references], scratch)
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
    values = _values(prepared)
    if mask.dtype != values.dtype:
        raise failed(form, f"the mask is {mask.dtype}, not {values.dtype}")
    if (mask.shape, logits.shape) != (reference.mask.shape, reference.logits.shape):
        raise failed(form, f"mask {mask.shape}, logits {logits.shape} for a volume of {reference.mask.shape}")
    difference = float(np.abs(logits - reference.logits).max())
    allowed = TOLERANCE * max(1.0, float(np.abs(reference.logits).max()))
    if not difference <= allowed:
        raise failed(form, f"logits differ by up to {difference:.3g}; the limit is {allowed:.3g}")
    differing = mask != reference.labels
    count = int(differing.sum())
    if count:
        close = from_grid(reference.logits, prepared.case(reference.case.name).grid)[:, differing]
        lead = float(_lead(close, regions=bool(prepared.order)).max())
        if count > MAX_DIFFERING_SHARE * mask.size or lead > allowed:
            raise failed(form, f"the labels of {count:,} of {mask.size:,} voxels differ")
    index_of = np.zeros(int(values.max()) + 1, dtype=np.uint16)
    index_of[values] = np.arange(len(values))
    indices = index_of[mask]
    pairs = zip(_dice(indices, reference, prepared), _dice(reference.mask, reference, prepared), strict=True)
    worst = max((abs(one - other) for one, other in pairs), default=0.0)
    if worst > MAX_DICE_DIFFERENCE:
        raise failed(form, f"Dice differs by up to {worst:.2g}")
    return count, difference, worst


def _lead(logits: NDArray[np.float32], *, regions: bool) -> NDArray[np.float32]:
    """Return how far each voxel is from a tie: of the two largest logits, or of any region's logit with 0."""
    if regions:
        closest: NDArray[np.float32] = np.abs(logits).min(axis=0)
        return closest
    top = np.sort(logits, axis=0)
    lead: NDArray[np.float32] = top[-1] - top[-2]
    return lead


def _values(prepared: Prepared) -> NDArray[Any]:
    """Return the label values in the type that masks have."""
    return np.array(prepared.label_values, dtype=np.uint16 if max(prepared.label_values) > 255 else np.uint8)


def _dice(mask: NDArray[Any], reference: Reference, prepared: Prepared) -> list[float]:
    pair = without_ignored(mask, reference.truth, prepared.labelling)
    return [dice for dice in case_dice(*pair, members=prepared.labelling.members) if dice is not None]


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
        "--no-verify",  # the card is written last
        "--device",
        "cpu",
        "--threads",
        str(torch.get_num_threads()),
    ]
    ended = subprocess.run(command, cwd=scratch, capture_output=True, text=True, check=False)
    if ended.returncode:
        lines = ended.stderr.strip().splitlines() or ["nothing on stderr"]
        ending = f"predict.py exited with code {ended.returncode}: {lines[-1]}"
        if ended.returncode != UserError.exit_code:  # a full disk, too little memory: no fault of the export
            raise RunError([f"the export could not be verified and was deleted: form {form}: {ending}"])
        raise failed(form, ending)
    found = []
    for number, case in enumerate(cases):
        image, values = load_nifti(masks / f"case{number}.nii.gz")
        original, affine, _ = read_values(Path(case.images[0]))
        moved = grid_difference(original.shape[:3], affine, values.shape, image.affine)
        if moved:
            raise failed(form, f"the mask {moved}")
        found.append((values, np.load(logits / f"case{number}.npy")))
    return ended.stdout, found


def link_case(case: Case, name: str, scratch: Path) -> Path:
    """Link a case's files into a folder under `name` (nnU-Net names for several channels); return the first link."""
    links = []
    for number, file in enumerate(case.images):
        channel = f"_{number:04d}" if len(case.images) > 1 else ""
        links.append(scratch / f"{name}{channel}{suffix_of(file)}")
        os.symlink(os.path.abspath(file), links[-1])
    return links[0]


def failed(form: str, reason: str) -> UserError:
    """Return the error for a form whose results differ from the trained network's."""
    return UserError([f"the export failed verification and was deleted: form {form}: {reason}"])
