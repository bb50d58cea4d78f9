"""An export's own `predict.py` against voxnas: the same case, from its files, in a process without voxnas."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from search.data.geometry import from_grid, grid_difference, load_nifti, mask_from_logits
from search.data.prepare import Prepared, open_case
from search.data.read import Case
from search.export.pt2 import TOLERANCE
from search.records import Job
from search.study.mistakes import UserError
from search.training.validation import window_logits

ISOLATED = Path(__file__).with_name("isolated.py")
DIFFERING_SHARE = 1e-5  # of voxels that may differ, where their two largest logits are as good as equal


@dataclass(frozen=True)
class Proof:
    """What the comparison on one case gave; `seconds` are those of predict.py, start included."""

    case: str
    voxels: int
    differing_voxels: int
    max_logit_difference: float
    seconds: float

    def __str__(self) -> str:
        same = "all the same" if not self.differing_voxels else f"{self.differing_voxels} at ties differ"
        return (
            f"case {self.case} in a process without voxnas: {self.voxels:,} voxels, {same}; logits within "
            f"{self.max_logit_difference:.1e}; {self.seconds:.1f} s"
        )


def prove(folder: Path, network: nn.Module, case: Case, *, prepared: Prepared, job: Job) -> Proof:
    """Segment a case by the export in `folder` and by voxnas, in float32 on the CPU.

    `network` is in eval mode with the exported weights, `job` says patch, overlap and float32. Raises
    UserError where predict.py fails, or where masks or logits differ.
    """
    grid = prepared.case(case.name).grid
    batch = torch.from_numpy(np.array(open_case(prepared, case.name)[0]))[None]
    expected_logits = window_logits(network, batch, job=job)[0].numpy()
    expected = np.array(prepared.label_values, dtype=np.uint8)[mask_from_logits(expected_logits, grid)]
    with TemporaryDirectory() as scratch:
        began = time.perf_counter()
        mask, logits = _predicted(folder, case, Path(scratch))
        seconds = time.perf_counter() - began
    if (mask.shape, logits.shape) != (expected.shape, expected_logits.shape):
        raise _failed(f"mask {mask.shape}, logits {logits.shape} for a volume of {expected.shape}")
    apart = float(np.abs(logits - expected_logits).max())
    allowed = TOLERANCE * max(1.0, float(np.abs(expected_logits).max()))
    if not apart <= allowed:
        raise _failed(f"logits differ by up to {apart:.3g}, allowed are {allowed:.3g}")
    differing = mask != expected
    count = int(differing.sum())
    if count:
        top = np.sort(from_grid(expected_logits, grid)[:, differing], axis=0)
        if count > DIFFERING_SHARE * mask.size or float((top[-1] - top[-2]).max()) > allowed:
            raise _failed(f"{count} of {mask.size} voxels have another label")
    return Proof(case.name, mask.size, count, apart, seconds)


def _predicted(folder: Path, case: Case, scratch: Path) -> tuple[NDArray[Any], NDArray[np.float32]]:
    """Run predict.py on a case's own files; return the mask's values and the logits."""
    mask, logits = scratch / "mask.nii.gz", scratch / "logits.npy"
    channels = [word for file in case.images[1:] for word in ("--channel", file)]
    command = [
        sys.executable, "-I", "-B", str(ISOLATED), str(folder / "predict.py"), case.images[0], *channels,
        "--out", str(mask), "--logits", str(logits),
        "--device", "cpu", "--threads", str(torch.get_num_threads()),
    ]  # fmt: skip
    ended = subprocess.run(command, cwd=scratch, capture_output=True, text=True, check=False)
    if ended.returncode:
        said = ended.stderr.strip().splitlines() or ["nothing on stderr"]
        raise _failed(f"predict.py ended with {ended.returncode}: {said[-1]}")
    image, values = load_nifti(mask)
    original = load_nifti(Path(case.images[0]))[0]
    moved = grid_difference(original.shape[:3], original.affine, values.shape, image.affine)
    if moved or values.dtype != np.uint8:
        raise _failed(f"the mask {moved or f'holds {values.dtype}'}")
    return values, np.load(logits)


def _failed(reason: str) -> UserError:
    return UserError([f"the export failed its proof and was deleted: {reason}"])
