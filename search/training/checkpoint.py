"""A training's state on disk, whole or not at all: `last.pt` to go on from, `best.safetensors` to keep."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from search.trials.files import EPOCHS, LAST, WEIGHTS
from search.trials.records import Epoch, Job


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    """Write beside the file, then rename: a reader or a crash never sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        write(part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def save_checkpoint(
    job: Job, network: nn.Module, optimiser: torch.optim.Optimizer, *, epochs: tuple[Epoch, ...]
) -> None:
    """Write all that the next epoch needs, and the epochs so far as one JSON a line."""
    folder = Path(job.folder)
    state = {
        "fingerprint": job.architecture.fingerprint,
        "network": network.state_dict(),
        "optimiser": optimiser.state_dict(),
        "epochs": [asdict(epoch) for epoch in epochs],
        "torch_rng": torch.get_rng_state(),
    }
    _replace(folder / LAST, lambda part: torch.save(state, part))
    lines = "".join(json.dumps(asdict(epoch)) + "\n" for epoch in epochs)
    _replace(folder / EPOCHS, lambda part: part.write_text(lines))


def load_checkpoint(job: Job, network: nn.Module) -> tuple[tuple[Epoch, ...], dict[str, Any] | None]:
    """Restore the last whole epoch; return the epochs done and the optimiser's state, none without a usable checkpoint.

    A damaged file, or one of another architecture, means starting over, not failing.
    """
    path = Path(job.folder) / LAST
    if not path.exists():
        return (), None
    try:
        state = torch.load(path, weights_only=True, map_location=job.device)
        if state["fingerprint"] != job.architecture.fingerprint:
            return (), None
        network.load_state_dict(state["network"])
        torch.set_rng_state(state["torch_rng"].cpu())
        return tuple(Epoch(**epoch) for epoch in state["epochs"]), state["optimiser"]
    except (RuntimeError, OSError, KeyError, EOFError, ValueError, TypeError):
        return (), None


def save_weights(folder: Path, network: nn.Module) -> None:
    """Write the trained weights."""
    save_file_apart(network, folder / WEIGHTS)


def save_file_apart(network: nn.Module, path: Path) -> None:
    """Write a network's weights as safetensors, tensors that share memory cloned apart (it refuses them)."""
    tensors = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in network.state_dict().items()}
    _replace(path, lambda part: save_file(tensors, part))


def load_weights(folder: Path, network: nn.Module) -> None:
    """Load what `save_weights` wrote, strictly."""
    network.load_state_dict(load_file(folder / WEIGHTS))


def drop_checkpoint(folder: Path) -> None:
    """Remove what only an unfinished training needs."""
    (folder / LAST).unlink(missing_ok=True)
