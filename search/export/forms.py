"""The forms of an exported network: readable source, torch.export, ONNX."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from search.export.onnx import Onnx, OnnxExportError, write_onnx
from search.export.pt2 import Pt2, other_sizes, write_pt2
from search.export.source import NotWritable, Source, write_source
from search.export.trained import untrained_network
from space.architecture import Architecture
from space.canonical import Context

FORMS = ("source", "pt2", "onnx")  # predict.py's order of preference
FILES = {"source": "model.py", "pt2": "model.pt2", "onnx": "model.onnx"}


@dataclass(frozen=True)
class Forms:
    """The forms that were written, and for each missing form the reason."""

    pt2: Pt2
    source: Source | None = None
    onnx: Onnx | None = None
    missing: tuple[tuple[str, str], ...] = ()

    @property
    def written(self) -> tuple[str, ...]:
        """Names of the forms that were written."""
        return tuple(form for form in FORMS if form not in dict(self.missing))

    @property
    def lines(self) -> tuple[str, ...]:
        """One line per form: the sizes it accepts, or why it is missing."""
        lines = []
        if self.source:
            size = "any volume size" if self.source.sizes == "any" else "the training patch size only"
            lines.append(f"model.py: source code, class {self.source.network}; any batch size, {size}")
        lines.append(f"model.pt2: {self.pt2.note}")
        if self.onnx:
            lines.append(f"model.onnx: {self.onnx.note}")
        return (*lines, *(f"{FILES[form]} was not written: {why}" for form, why in self.missing))


def write_forms(
    network: nn.Module, folder: Path, *, architecture: Architecture, context: Context, count: int, title: str
) -> Forms:
    """Write every possible form of a network in eval mode that packs `count` trainings. Raises UserError."""
    missing: list[tuple[str, str]] = []
    source, onnx = None, None
    channels, patch = context.in_channels, context.patch
    try:
        source = write_source(
            lambda: untrained_network(architecture, context, count=count),
            folder / FILES["source"],
            in_channels=channels,
            sizes=[patch, *other_sizes(patch, architecture.strides)],
            title=title,
        )
    except NotWritable as error:
        missing.append(("source", str(error)))
    pt2 = write_pt2(network, folder / FILES["pt2"], in_channels=channels, patch=patch, strides=architecture.strides)
    try:
        onnx = write_onnx(network, folder / FILES["onnx"], in_channels=channels, patch=patch)
    except OnnxExportError as error:
        missing.append(("onnx", str(error)))
    return Forms(pt2, source, onnx, tuple(missing))
