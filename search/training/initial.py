"""Initialise a network from a weights file: tensors that match by name and shape."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from search.config.errors import UserError

EXPORTED = "weights.safetensors"


class NoMatchingWeights(RuntimeError):
    """No tensor of a weights file matches the network."""


def weights_file(path: Path) -> Path:
    """Return the weights file that `training.init` names, itself or inside an exported folder. Raises UserError."""
    file = path / EXPORTED if path.is_dir() else path
    if not file.is_file():
        raise UserError([f"training.init: {file}: no such file"])
    if file.suffix != ".safetensors":
        hint = "convert it with `voxnas import`"
        raise UserError([f"training.init: {file}: not a .safetensors file; {hint}"])
    try:
        with safe_open(file, framework="pt") as opened:
            opened.keys()
    except (SafetensorError, OSError) as error:
        raise UserError([f"training.init: {file}: can't be read ({error})"]) from error
    return file


def load_matching_weights(network: nn.Module, path: str | None) -> int:
    """Load a file's tensors that match by name and shape; return their number. Raises NoMatchingWeights."""
    if path is None:
        return 0
    own: dict[str, Tensor] = network.state_dict()
    with safe_open(path, framework="pt") as opened:
        names = [name for name in opened.keys() if name in own]  # noqa: SIM118 (not a mapping)
        matching = {name: tensor for name in names if (tensor := opened.get_tensor(name)).shape == own[name].shape}
    if not matching:
        raise NoMatchingWeights(f"training.init: no tensor in {path} matches this network by name and shape")
    network.load_state_dict(matching, strict=False)
    return len(matching)
