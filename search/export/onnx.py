"""A network as `model.onnx`: written by torch's exporter for any batch size, compared in onnxruntime."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim

from search.export.pt2 import TOLERANCE, difference, quiet
from search.files import replace_file
from space.pooling import Triple

OPSET = 20
REQUIRED = ("onnx", "onnxscript", "onnxruntime")


class OnnxExportError(ValueError):
    """A network can't be written as ONNX."""


@dataclass(frozen=True)
class Onnx:
    """The sizes that a written `.onnx` accepts, and its largest difference of logits from the network."""

    note: str
    max_difference: float


def write_onnx(network: nn.Module, path: Path, *, in_channels: int, patch: Triple) -> Onnx:
    """Export a network in eval mode. Raises OnnxExportError, also if packages of `voxnas[onnx]` are missing."""
    missing = [name for name in REQUIRED if find_spec(name) is None]
    if missing:
        raise OnnxExportError(f"{', '.join(missing)} can't be imported: pip install 'voxnas[onnx]'")
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
                raise OnnxExportError("torch.onnx.export returned no program")
            _remove_origins(program)
            replace_file(path, partial(program.save, external_data=False))
        worst = max(difference(_session(path), network, (batch, in_channels, *patch)) for batch in (1, 2))
    except Exception as error:  # the exporter, its optimiser and onnxruntime share no error class
        path.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno is not None:  # a full disk is no property of the network
            raise
        raise OnnxExportError(f"{type(error).__name__}: {error}".splitlines()[0]) from error
    if not worst <= TOLERANCE:
        path.unlink()
        raise OnnxExportError(f"its logits differ by {worst:.3g}")
    size = " x ".join(str(length) for length in patch)
    return Onnx(f"any batch size, the training patch size {size} only; opset {OPSET}", worst)


def _remove_origins(program: Any) -> None:
    """Remove the source lines and paths of each operation."""
    for node in program.model.graph.all_nodes():
        node.metadata_props.clear()
        for value in node.outputs:
            value.metadata_props.clear()


def _session(path: Path) -> nn.Module:
    """Return an onnxruntime session as a module."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # or onnxruntime 1.29 sends names and hashes of the model to its maker
    import onnxruntime

    onnxruntime.disable_telemetry_events()  # of other versions
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    class Session(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return torch.from_numpy(session.run(None, {"image": x.numpy()})[0])

    return Session()
