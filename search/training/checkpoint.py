"""Checkpoints to resume a training from, and its final weights; both are written atomically.

`last.pt` is the latest checkpoint; `previous.pt` is the one before, used if the latest is damaged.
"""

from __future__ import annotations

import hashlib
import json
import logging
import pickle
import zipfile
import zlib
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from search.files import discard, replace_file, require_regular, write_text
from search.trials.epochs import Epoch
from search.trials.files import CHECKPOINTS, EPOCHS, LAST, RESUME_FILES, weights_name
from search.trials.job import Job

READ_ERRORS = (RuntimeError, OSError, LookupError, EOFError, ValueError, TypeError, NotImplementedError)
LOGGER = logging.getLogger("voxnas.checkpoint")
UNBOUND_TRAINING = ("init", "deadline")  # not in the binding; the study's identity includes the digest of `init`


class DamagedCheckpoint(Exception):
    """A checkpoint whose content differs from what was written; the message says how."""


class ForeignCheckpoint(Exception):
    """A checkpoint of another training; `member` is that training's number in its trial."""

    def __init__(self, member: int) -> None:
        super().__init__(f"a checkpoint of another training, number {member} of its trial")
        self.member = member


class ReplacedWeights(ValueError):
    """Weights on disk that don't match their record."""


def checkpoint_binding(job: Job) -> str:
    """Return the digest of what a checkpoint is valid for: study, trial, architecture, seed, fold, training, data.

    The prepared folder's name is itself a digest of the data and its preprocessing.
    """
    task = {**asdict(job.task), "prepared": Path(job.task.prepared).name}
    unbound = UNBOUND_TRAINING if job.training.compiles else (*UNBOUND_TRAINING, "compile")  # as earlier versions
    training = {key: value for key, value in asdict(job.training).items() if key not in unbound}
    trial = Path(job.folder).name
    values = [job.study_id, trial, job.architecture.fingerprint, job.seed, job.fold, training, task]
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()


def _on_cuda(job: Job) -> bool:
    return torch.device(job.device).type == "cuda"


def save_checkpoint(
    job: Job,
    network: nn.Module,
    optimiser: torch.optim.Optimizer,
    *,
    epochs: tuple[Epoch, ...],
    scaler: torch.amp.GradScaler | None = None,
) -> None:
    """Write the state that the next epoch needs, and the epochs so far as JSON lines."""
    folder = Path(job.folder)
    state = {
        "binding": checkpoint_binding(job),
        "network": network.state_dict(),
        "optimiser": optimiser.state_dict(),
        "scaler": scaler.state_dict() if scaler else {},
        "epochs": [asdict(epoch) for epoch in epochs],
        "torch_rng": torch.get_rng_state(),
        "cuda_rng": torch.cuda.get_rng_state(job.device) if _on_cuda(job) else None,  # dropout draws there
    }
    last, previous = (folder / name for name in CHECKPOINTS)

    def write(part: Path) -> None:
        with part.open("wb") as file:  # given a path, torch writes its name into the archive
            torch.save(state, file)
        if last.exists():
            last.replace(previous)

    replace_file(last, write, ours=True)
    lines = "".join(json.dumps(asdict(epoch)) + "\n" for epoch in epochs)
    write_text(folder / EPOCHS, lines, ours=True)


@dataclass(frozen=True)
class Restored:
    """The finished epochs of a checkpoint, and the states of its optimiser and scaler; all empty without one."""

    epochs: tuple[Epoch, ...] = ()
    optimiser: Mapping[str, Any] = field(default_factory=dict)
    scaler: Mapping[str, Any] = field(default_factory=dict)  # empty unless the training scales its loss


def load_checkpoint(job: Job, network: nn.Module) -> Restored:
    """Restore the last complete epoch.

    If the latest checkpoint is damaged or another training's, a warning names it and the previous one is restored.
    Without a valid one the training starts over. A checkpoint of the trial's training before this one is not mentioned.
    """
    paths = [Path(job.folder) / name for name in CHECKPOINTS]
    foreign = []
    for path, earlier in zip(paths, (*paths[1:], None), strict=True):
        if not path.exists():
            continue
        resumed = f"resuming from {earlier.name}" if earlier and earlier.exists() else "the training starts over"
        try:
            restored = _restore(path, job, network)
        except ForeignCheckpoint as found:
            foreign.append(path)
            if found.member == job.member:
                LOGGER.warning("the checkpoint %s belongs to another training: %s", path, resumed)
        except DamagedCheckpoint as damage:
            LOGGER.warning("the checkpoint %s is damaged (%s): %s", path, damage, resumed)
            discard(path)  # else the next checkpoint would move it over the previous one
        else:
            for each in foreign:
                discard(each)
            return restored
    return Restored()


def _restore(path: Path, job: Job, network: nn.Module) -> Restored:
    """Restore a checkpoint. Raises DamagedCheckpoint or ForeignCheckpoint, with the network unchanged."""
    before = deepcopy(network.state_dict())
    try:
        with zipfile.ZipFile(require_regular(path)) as file:
            if (broken := file.testzip()) is not None:  # torch.load does not compare the checksums
                raise DamagedCheckpoint(f"the checksum of {broken} differs")
        state = torch.load(path, weights_only=True, map_location=job.device)
        epochs = tuple(Epoch(**epoch) for epoch in state["epochs"])
        if state["binding"] != checkpoint_binding(job):
            raise ForeignCheckpoint(epochs[-1].member)
        rng, restored = state["torch_rng"].cpu(), Restored(epochs, state["optimiser"], state.get("scaler", {}))
        network.load_state_dict(state["network"])
        torch.set_rng_state(rng)
        if _on_cuda(job) and state.get("cuda_rng") is not None:
            torch.cuda.set_rng_state(state["cuda_rng"].cpu(), job.device)
    except (zipfile.BadZipFile, zlib.error, pickle.UnpicklingError, *READ_ERRORS) as error:
        network.load_state_dict(before)
        said = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise DamagedCheckpoint(said or type(error).__name__) from error
    return restored


def save_weights(folder: Path, network: nn.Module, *, member: int = 0) -> str:
    """Write the trained weights of a trial's member; return the SHA-256 of their file."""
    file = folder / weights_name(member)
    save_tensors(network, file, ours=True)
    return file_sha256(file)


def save_tensors(network: nn.Module, path: Path, *, ours: bool = False) -> None:
    """Write a network's state as safetensors, as copies, because safetensors rejects tensors that share memory."""
    tensors = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in network.state_dict().items()}
    replace_file(path, lambda part: save_file(tensors, part), ours=ours)


def load_weights(folder: Path, network: nn.Module, *, sha256: str, member: int = 0) -> None:
    """Load the weights that `save_weights` wrote; all names must match.

    `sha256` is the record's digest, empty in records of earlier versions. Raises ReplacedWeights if the file's digest
    differs.
    """
    file = folder / weights_name(member)
    if sha256 and file_sha256(file) != sha256:
        raise ReplacedWeights(f"{file} has changed since the trial: its digest differs from the record's")
    network.load_state_dict(load_file(file))


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with require_regular(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def delete_checkpoints(folder: Path, *, except_last: bool = False) -> None:
    """Delete the checkpoints and the results of finished members; only unfinished trials need them.

    With `except_last`, the last checkpoint stays: a longer training can continue from it.
    """
    for name in RESUME_FILES:
        if not (except_last and name == LAST):
            discard(folder / name)


def continue_longer(shorter: Job, longer: Job) -> bool:
    """Copy the last checkpoint of a training to one that differs in length alone; return whether it was copied.

    A longer training that has begun keeps its own checkpoints.

    A checkpoint that is damaged, or belongs to another training, is not copied: the longer training then starts over.
    """
    last = Path(shorter.folder) / LAST
    if not last.exists() or any((Path(longer.folder) / name).exists() for name in CHECKPOINTS):
        return False
    try:
        with zipfile.ZipFile(require_regular(last)) as file:
            if (broken := file.testzip()) is not None:
                raise ValueError(f"the checksum of {broken} differs")
        state = torch.load(last, weights_only=True, map_location="cpu")
        if state["binding"] != checkpoint_binding(shorter):
            LOGGER.warning("the checkpoint %s belongs to another training: the training starts over", last)
            return False
    except (zipfile.BadZipFile, zlib.error, pickle.UnpicklingError, *READ_ERRORS) as error:
        LOGGER.warning("the checkpoint %s is damaged (%s): the training starts over", last, error)
        return False
    state["binding"] = checkpoint_binding(longer)
    folder = Path(longer.folder)
    folder.mkdir(parents=True, exist_ok=True)

    def write(part: Path) -> None:
        with part.open("wb") as file:
            torch.save(state, file)

    replace_file(folder / LAST, write, ours=True)
    return True
