"""`voxnas import`: the weights of an export or of the authors' release, as a file to initialise trainings from."""

from __future__ import annotations

import json
import pickle
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from search.config.errors import UserError, nearest
from search.config.units import counted
from search.files import replace_file
from search.training.initial import EXPORTED
from space.architecture import Architecture
from space.build import build
from space.canonical import Context
from space.presets import PRESETS, Preset
from space.released_weights import from_released, released_prefixes

NESTED = ("state_dict", "model_state_dict", "model", "network_weights", "net")
WRAPPERS = ("module.", "encoder.")  # prefixes of nn.DataParallel, and of a whole network around CSAM's encoder
State = dict[str, Tensor]


@dataclass(frozen=True)
class Imported:
    """The written weights file, the network that it fits, and the names of skipped tensors."""

    file: Path
    network: str
    tensors: int
    skipped: tuple[str, ...]

    def __str__(self) -> str:
        names = ", ".join(self.skipped[:3]) + (", ..." if len(self.skipped) > 3 else "")
        skipped = f"; skipped {counted(len(self.skipped), 'tensor')} ({names})" if self.skipped else ""
        return (
            f"{self.file}: {counted(self.tensors, 'tensor')} of {self.network}{skipped}; "
            "start trainings from this file with `training.init`"
        )


def import_weights(source: Path, out: Path, *, preset: str | None = None) -> Imported:
    """Read an export's folder, a .safetensors file or a checkpoint, and write a .safetensors file with our names.

    Only tensors and plain values are unpickled. Without `preset`, all released networks are tried. Raises UserError.
    """
    if out.suffix != ".safetensors":
        raise UserError([f"--out {out}: the file name must end in .safetensors"])
    if preset is not None and preset not in PRESETS:
        raise UserError([f"--preset: there is no preset {preset!r}{nearest(preset, list(PRESETS))}"])
    if source.is_dir():
        architecture, state = _exported(source)
        network, skipped = architecture.describe(), list[str]()
    else:
        found, state, skipped = _released(_read(source), source, preset)
        architecture, network = found.architecture, found.name
    tensors = {name: tensor.clone().contiguous() for name, tensor in state.items()}
    metadata = {"architecture": architecture.to_json(), "source": source.name}
    replace_file(out, lambda part: save_file(tensors, part, metadata=metadata))
    return Imported(out, network, len(tensors), tuple(skipped))


def _exported(folder: Path) -> tuple[Architecture, State]:
    """Return an export's architecture and weights; those of the first network of an ensemble."""
    file = folder / "architecture.json"
    if not file.is_file():
        raise UserError([f"{folder}: is not an export: architecture.json is missing"])
    state = _read(folder / EXPORTED)
    try:
        values = json.loads(file.read_bytes())
        architecture = Architecture.of(values["architecture"])
        context = Context(tuple(values["patch"]), tuple(values["spacing"]), values["in_channels"], values["classes"])
        expected, packed = _shapes(architecture, context), int(values.get("networks", 1)) > 1
    except (ArithmeticError, AttributeError, LookupError, RecursionError, RuntimeError, TypeError, ValueError) as error:
        raise UserError([f"{file}: is not the description of a network ({_first_line(error)})"]) from error
    if packed:
        prefix = "networks.0."
        state = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
    if {name: tuple(tensor.shape) for name, tensor in state.items()} != expected:
        raise UserError([f"{folder / EXPORTED}: the weights don't match architecture.json"])
    return architecture, state


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _shapes(architecture: Architecture, context: Context) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        return {name: tuple(tensor.shape) for name, tensor in build(architecture, context).state_dict().items()}


def _read(path: Path) -> State:
    """Return the tensors of a file by name."""
    if not path.is_file():
        raise UserError([f"{path}: no such file"])
    with path.open("rb"):
        pass  # raises for a file that this user may not read; libraries call it missing
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as opened:
                return {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what torch says about old or malicious pickles, before it refuses them
            loaded = torch.load(path, weights_only=True, map_location="cpu")
    except pickle.UnpicklingError as error:
        hint = "it contains objects other than tensors and plain values; if you trust it, save only its state dict"
        raise UserError([f"{path}: was not loaded: {hint}"]) from error
    except Exception as error:  # safetensors, zipfile and torch have no common error class for a damaged file
        raise UserError([f"{path}: can't be read ({_first_line(error)})"]) from error
    return _state_in(loaded, path)


def _state_in(loaded: Any, path: Path) -> State:
    """Find the state dict in a loaded checkpoint."""
    for candidate in (loaded, *(loaded.get(name) for name in NESTED if isinstance(loaded, Mapping))):
        values = list(candidate.values()) if isinstance(candidate, Mapping) else []
        if values and all(isinstance(each, Tensor) for each in values):
            return dict(candidate)
    raise UserError([f"{path}: contains no state dict (searched at the top level and under {', '.join(NESTED)})"])


def _released(state: State, file: Path, preset: str | None) -> tuple[Preset, State, list[str]]:
    """Return the preset that a released state dict fits, its weights with our names, and the skipped names."""
    tried = [PRESETS[preset]] if preset else [each for each in PRESETS.values() if _has_names(each)]
    fits = [_fit(state, each) for each in tried]
    best = max(range(len(tried)), key=lambda index: len(fits[index][0]))
    if not fits[best][0]:
        names = ", ".join(each.name for each in tried)
        raise UserError([f"{file}: no tensor matches a preset by name and shape (tried: {names})"])
    return tried[best], *fits[best]


def _fit(state: State, preset: Preset) -> tuple[State, list[str]]:
    """Return the tensors that fit a preset, with our names, and the names of the others."""
    expected = _shapes(preset.architecture, preset.context)
    fitting: State = {}
    skipped: list[str] = []
    for name, tensor in state.items():
        ours = _our_name(name, tensor, preset)
        if ours and expected.get(ours[0]) == tuple(ours[1].shape):
            fitting[ours[0]] = ours[1]
        else:
            skipped.append(name)
    return fitting, skipped


def _our_name(name: str, tensor: Tensor, preset: Preset) -> tuple[str, Tensor] | None:
    """Convert a tensor with a released name to our name and shape; other names are taken as ours."""
    bare = name.removeprefix(WRAPPERS[0])
    for candidate in (bare, bare.removeprefix(WRAPPERS[1])) if _has_names(preset) else ():
        try:
            return next(iter(from_released({candidate: tensor}, preset.architecture).items()))
        except ValueError:  # not in the table of released names
            continue
    return bare, tensor


def _has_names(preset: Preset) -> bool:
    try:
        return bool(released_prefixes(preset.architecture))
    except ValueError:
        return False
