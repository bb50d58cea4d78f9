"""A network as torch.export's `model.pt2`, with the sizes that it was tested to accept."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from search.config.errors import UserError
from search.files import replace_file
from space.pooling import Triple

TOLERANCE = 1e-4  # on logits; relative to the largest logit if that is above 1
EXAMPLE_MULTIPLES = (6, 7, 8)  # of the strides: torch would specialise on small or equal example sizes
ORIGINS = ("stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn", "from_node")

Sizes = Literal["any", "patch"]
Network = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Pt2:
    """The sizes that a written `.pt2` accepts, a note on them, and its largest difference of logits."""

    sizes: Sizes
    note: str
    max_difference: float


def write_pt2(network: nn.Module, path: Path, *, in_channels: int, patch: Triple, strides: tuple[Triple, ...]) -> Pt2:
    """Export a network in eval mode: for any batch and volume size if possible, else for the patch size only.

    `strides` are those of the network's levels. Raises UserError if torch can't export the network at all.
    """
    factors = tuple(math.prod(along) for along in zip(*strides, strict=True))
    generous = tuple(factor * times for factor, times in zip(factors, EXAMPLE_MULTIPLES, strict=True))
    others = other_sizes(patch, strides)
    free = f"any batch size, any volume size (tested at {', '.join(_times(size) for size in (patch, *others))})"
    only = f"any batch size, the training patch size {_times(patch)} only: the network depends on the size"
    faults = []
    for example, axes, tried in ((generous, (0, 2, 3, 4), others), (patch, (0,), [])):
        try:
            with quiet():
                program = _export(network, torch.empty(2, in_channels, *example), axes)
                shapes = [(1, in_channels, *size) for size in (patch, *tried)]
                shapes.append((2, in_channels, *patch))
                worst = _worst(program.module(), network, shapes)
                _save(program, path)
            return Pt2("any", free, worst) if tried else Pt2("patch", only, worst)
        except OSError:
            raise
        except Exception as error:  # torch.export has no error class of its own; try the next variant
            faults.append(f"{type(error).__name__}: {error}".splitlines()[0])
    raise UserError([f"torch.export can't write this network: {fault}" for fault in dict.fromkeys(faults)])


def _save(program: ExportedProgram, path: Path) -> None:
    """Write a program through memory: torch ends the whole process if its own writer finds a full disk."""

    def write(part: Path) -> None:
        archive = BytesIO()
        torch.export.save(program, archive)
        part.write_bytes(archive.getbuffer())

    replace_file(path, write)


def _export(network: nn.Module, example: Tensor, axes: tuple[int, ...]) -> ExportedProgram:
    """Trace the network, then remove the source lines, paths and the example.

    Without the example torch writes no guards on sizes. The guards are stricter than the operations (one residue
    class modulo the strides), so we test sizes instead.
    """
    dynamic = {axis: Dim.DYNAMIC for axis in axes}
    with torch.no_grad():
        program = torch.export.export(network, (example,), dynamic_shapes=(dynamic,))
    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                for key in ORIGINS:
                    node.meta.pop(key, None)
    program.example_inputs = None
    return program


def other_sizes(patch: Triple, strides: tuple[Triple, ...]) -> list[tuple[int, ...]]:
    """Return test sizes: about half the patch, two odd sizes, and a multiple of the strides."""
    factors = [math.prod(along) for along in zip(*strides, strict=True)]
    odd = tuple((length | 1) + 2 for length in patch)
    whole = tuple((-(-length // factor) + 1) * factor for length, factor in zip(patch, factors, strict=True))
    return [tuple(-(-length // 2) for length in patch), odd, tuple(length + 2 for length in odd), whole]


def _worst(program: Network, network: nn.Module, shapes: list[tuple[int, ...]]) -> float:
    """Return the largest difference over the shapes. Raises ValueError if it exceeds the tolerance."""
    worst = 0.0
    for shape in shapes:
        found = difference(program, network, shape)
        if not found <= TOLERANCE:
            raise ValueError(f"logits differ by {found:.3g} at {_times(shape[2:])}")
        worst = max(worst, found)
    return worst


def difference(one: Network, other: Network, shape: tuple[int, ...]) -> float:
    """Return the largest difference of logits on noise, relative to the largest logit if that is above 1."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = other(x)
        return float((one(x) - expected).abs().max()) / max(1.0, float(expected.abs().max()))


def _times(sizes: tuple[int, ...]) -> str:
    return " x ".join(str(size) for size in sizes)


@contextmanager
def quiet() -> Iterator[None]:
    """Silence torch's warnings about its internals."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
