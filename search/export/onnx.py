"""A network as `model.onnx`: any batch of training patches, written by torch's exporter, tried in onnxruntime."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim

from search.export.pt2 import TOLERANCE, difference, quiet
from space.pooling import Triple

OPSET = 20
NEEDED = ("onnx", "onnxscript", "onnxruntime")


class NoOnnx(ValueError):
    """A network that isn't written as ONNX; the message says why."""


@dataclass(frozen=True)
class Onnx:
    """What a written `.onnx` takes, and how far it was from the network."""

    note: str
    max_difference: float


def write_onnx(network: nn.Module, path: Path, *, in_channels: int, patch: Triple) -> Onnx:
    """Export a network in eval mode. Raises NoOnnx, also where the packages of `voxnas[onnx]` aren't there."""
    absent = [name for name in NEEDED if find_spec(name) is None]
    if absent:
        raise NoOnnx(f"{', '.join(absent)} can't be imported: pip install 'voxnas[onnx]'")
    try:
        with quiet(), torch.no_grad():
            example = torch.zeros(2, in_channels, *patch)
            program = torch.onnx.export(
                network,
                (example,),
                dynamo=True,
                opset_version=OPSET,
                verbose=False,
                input_names=["image"],
                output_names=["logits"],
                dynamic_shapes=({0: Dim.DYNAMIC},),
            )
            if program is None:
                raise NoOnnx("torch wrote nothing")
            _forget_origins(program)
            program.save(path, external_data=False)
        worst = max(difference(_session(path), network, (batch, in_channels, *patch)) for batch in (1, 2))
    except Exception as error:  # the exporter, its optimiser and onnxruntime share no error class
        path.unlink(missing_ok=True)
        raise NoOnnx(f"{type(error).__name__}: {error}".splitlines()[0]) from error
    if not worst <= TOLERANCE:
        path.unlink()
        raise NoOnnx(f"its logits differ by {worst:.3g}")
    size = " x ".join(str(length) for length in patch)
    return Onnx(f"any batch of patches of {size}; opset {OPSET}", worst)


def _forget_origins(program: Any) -> None:
    """Take out what only a file's maker needs: the source lines and paths of each operation."""
    for node in program.model.graph.all_nodes():
        node.metadata_props.clear()
        for value in node.outputs:
            value.metadata_props.clear()


def _session(path: Path) -> nn.Module:
    """Return onnxruntime's own run of a file, as a module."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    class Session(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return torch.from_numpy(session.run(None, {"image": x.numpy()})[0])

    return Session()
