"""Which device, how many threads: worked out once, where the study runs."""

from __future__ import annotations

import os

import torch

from search.config import UserError


def resolve_device(named: str) -> str:
    """Return `cpu` or `cuda:N`; `auto` takes the first GPU there is. Raises UserError for a GPU that is not there."""
    if named == "auto":
        return "cuda:0" if torch.cuda.is_available() else "cpu"
    if named == "cpu":
        return named
    device = torch.device(named)
    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if (device.index or 0) >= there:
        raise UserError([f"executor.device: {named!r} is not there; this machine has {there} CUDA devices"])
    return f"cuda:{device.index or 0}"


def resolve_threads(named: int | None) -> int:
    """Return the study's threads: as named, or as many as this process may use."""
    return named or len(os.sched_getaffinity(0))
