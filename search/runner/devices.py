"""The study's device and threads, resolved on the machine that runs it."""

from __future__ import annotations

import os
import socket

import torch

from search.config import UserError
from search.config.units import counted


def resolve_device(named: str) -> str:
    """Return `cpu` or `cuda:N`; `auto` is the first GPU, if any. Raises UserError for a GPU that does not exist."""
    if named == "auto":
        return "cuda:0" if torch.cuda.is_available() else "cpu"
    if named == "cpu":
        return named
    device = torch.device(named)
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if (device.index or 0) >= count:
        raise UserError(
            [f"executor.device: {named!r} does not exist; this machine has {counted(count, 'CUDA device')}"]
        )
    return f"cuda:{device.index or 0}"


def resolve_threads(named: int | None) -> int:
    """Return the threads that the study names, or all that this process may use."""
    return named or len(os.sched_getaffinity(0))


def machine_of(device: str) -> str:
    """Return this host's name and, for a CUDA device, its GPU, numbered as outside CUDA_VISIBLE_DEVICES."""
    host, found = socket.gethostname(), torch.device(device)
    if found.type == "cpu":
        return host
    index = found.index or 0
    visible = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return f"{host}, GPU {visible[index] if index < len(visible) else index}"


def prepare_allocator() -> None:
    """Enable expandable segments in CUDA's allocator, unless the user has configured it; call before allocating.

    Fixed segments leave gaps: a training step reserved up to twice the memory that it allocated, and a trial's share of
    a GPU limits the reserved memory.
    """
    if not {"PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"} & os.environ.keys():
        os.environ["PYTORCH_ALLOC_CONF"] = "expandable_segments:True"


def limit_memory(device: torch.device, size_bytes: float | None) -> None:
    """Limit this process's tensors on a GPU to this many bytes; None removes the limit."""
    total = torch.cuda.get_device_properties(device).total_memory
    share = 1.0 if size_bytes is None else min(1.0, size_bytes / total)
    torch.cuda.set_per_process_memory_fraction(share, device)
