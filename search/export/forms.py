"""A network in all forms that it can be written in: readable source, torch.export, ONNX."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from search.export.onnx import NoOnnx, Onnx, write_onnx
from search.export.pt2 import Pt2, other_sizes, write_pt2
from search.export.source import NotWritable, Source, write_source
from search.export.trained import fresh_network
from space.architecture import Architecture
from space.canonical import Context

FORMS = ("source", "pt2", "onnx")  # in the order in which predict.py prefers them
FILES = {"source": "model.py", "pt2": "model.pt2", "onnx": "model.onnx"}


@dataclass(frozen=True)
class Forms:
    """What was written: the source's class, what the others take, and why a form is absent."""

    pt2: Pt2
    source: Source | None = None
    onnx: Onnx | None = None
    absent: tuple[tuple[str, str], ...] = ()

    @property
    def there(self) -> tuple[str, ...]:
        """Names of the forms that were written."""
        return tuple(form for form in FORMS if form not in dict(self.absent))

    @property
    def lines(self) -> tuple[str, ...]:
        """What each form is, a line each."""
        said = []
        if self.source:
            size = "any size" if self.source.sizes == "any" else "the training patch alone"
            said.append(f"model.py is the network's source, class {self.source.network}, for any batch and {size}")
        said.append(f"model.pt2 takes {self.pt2.note}")
        if self.onnx:
            said.append(f"model.onnx takes {self.onnx.note}")
        return (*said, *(f"{FILES[form]} is not there: {why}" for form, why in self.absent))


def write_forms(
    network: nn.Module, folder: Path, *, architecture: Architecture, context: Context, count: int, title: str
) -> Forms:
    """Write every form that applies; `network` is in eval mode, of `count` trainings. Raises UserError."""
    absent: list[tuple[str, str]] = []
    source, onnx = None, None
    channels, patch = context.in_channels, context.patch
    try:
        source = write_source(
            lambda: fresh_network(architecture, context, count=count),
            folder / FILES["source"],
            in_channels=channels,
            sizes=[patch, *other_sizes(patch, architecture.strides)],
            title=title,
        )
    except NotWritable as error:
        absent.append(("source", str(error)))
    pt2 = write_pt2(network, folder / FILES["pt2"], in_channels=channels, patch=patch, strides=architecture.strides)
    try:
        onnx = write_onnx(network, folder / FILES["onnx"], in_channels=channels, patch=patch)
    except NoOnnx as error:
        absent.append(("onnx", str(error)))
    return Forms(pt2, source, onnx, tuple(absent))
