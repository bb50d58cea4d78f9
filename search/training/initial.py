"""Initialise a network from a weights file: tensors that match by name and shape."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from search.config.errors import UserError

EXPORTED = "weights.safetensors"


class NothingFits(RuntimeError):
    """A weights file without any tensor that matches the network."""


def weights_file(path: Path) -> Path:
    """Return the weights file of `init`, which names a file or an exported folder. Raises UserError."""
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


def start_from(network: nn.Module, path: str | None) -> int:
    """Load a file's matching tensors into a network; return their number. Raises NothingFits if there are none."""
    if path is None:
        return 0
    own: dict[str, Tensor] = network.state_dict()
    with safe_open(path, framework="pt") as opened:
        names = [name for name in opened.keys() if name in own]  # noqa: SIM118 (not a mapping)
        fitting = {name: tensor for name in names if (tensor := opened.get_tensor(name)).shape == own[name].shape}
    if not fitting:
        raise NothingFits(f"training.init: none of the weights in {path} fit this network by name and shape")
    network.load_state_dict(fitting, strict=False)
    return len(fitting)
