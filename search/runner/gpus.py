"""The GPUs of this machine that a study names, found without importing torch."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from typing import Literal

from search.config.errors import UserError
from search.config.units import counted

VISIBLE = "CUDA_VISIBLE_DEVICES"


def visible_gpus() -> tuple[str, ...]:
    """Return CUDA's names of the GPUs that this process may use; empty without a driver."""
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=True, timeout=30).stdout
    except (OSError, subprocess.SubprocessError):
        return ()
    present = [str(number) for number, _ in enumerate(line for line in listed.splitlines() if line.startswith("GPU "))]
    named = os.environ.get(VISIBLE)
    return tuple(present if named is None else (each.strip() for each in named.split(",") if each.strip()))


def choose_gpus(named: Literal["all"] | int | Sequence[int], visible: Sequence[str]) -> tuple[str, ...]:
    """Return the visible GPUs that `executor.gpus` names: all, the first ones, or those with these numbers.

    Raises UserError if there are too few.
    """
    if not visible:
        raise UserError(["executor.gpus: this machine has no NVIDIA GPU that CUDA can use; remove the key"])
    if named == "all":
        return tuple(visible)
    numbers = range(named) if isinstance(named, int) else [int(each) for each in named]
    if max(numbers) >= len(visible):
        asked = counted(named, "GPU") if isinstance(named, int) else f"GPU {max(numbers)}"
        here = f"this machine has {counted(len(visible), 'GPU')}, numbered from 0"
        raise UserError([f"executor.gpus: {asked} can't be used: {here}"])
    return tuple(visible[number] for number in numbers)
