"""The files of an export besides its model card and bundle: weights, source, forms, descriptions, `predict.py`."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import nn

from search.data import components, geometry, volume_files
from search.export.forms import FILES as FORM_FILES
from search.export.forms import Forms, write_forms
from search.export.origin import Origin
from search.files import copy_file, write_text
from search.training.checkpoint import save_tensors

CARD = "MODEL_CARD.md"
STANDALONE = ("predict.py", "planning.py", "preprocessing.py", "forms.py", "series.py", "volumes.py", "windows.py")
SHARED = tuple(  # run in training and in the export
    Path(str(module.__file__)) for module in (geometry, volume_files, components)
)
FILES = (
    *FORM_FILES.values(),
    "weights.safetensors",
    "architecture.json",
    "preprocessing.json",
    "requirements.txt",
    *STANDALONE,
    *(file.name for file in SHARED),
    CARD,
)
LOWEST = {"torch": "2.1", "numpy": "1.24.2", "nibabel": "4.0"}  # with model.py; a long test runs it with these
LOWEST_ONNXRUNTIME = "1.18"


def write_files(staging: Path, network: nn.Module, origin: Origin) -> Forms:
    """Write all files except the model card and the bundle."""
    record, here = origin.record, Path(__file__).parent / "standalone"
    save_tensors(network, staging / "weights.safetensors")
    forms = write_forms(
        network,
        staging,
        architecture=record.architecture,
        context=origin.plan.context,
        count=len(origin.trained.folders),
        title=_title(origin),
    )
    _write_json(staging / "architecture.json", _architecture(origin, network))
    _write_json(staging / "preprocessing.json", _preprocessing(origin))
    write_text(staging / "requirements.txt", "\n".join(_requirements(forms)) + "\n")
    for name in STANDALONE:
        copy_file(here / name, staging / name)
    (staging / "predict.py").chmod(0o755)
    write_shared(staging)
    return forms


def _requirements(forms: Forms) -> list[str]:
    """Return the lines of requirements.txt: the lowest versions with which predict.py computes the same masks."""
    exported_with = ".".join(version("torch").split(".")[:2])  # an older one may not read model.pt2
    lowest = LOWEST if forms.source else {**LOWEST, "torch": exported_with}
    lines = [f"{name}>={number}" for name, number in lowest.items()]
    lines.append("# Python 3.11 or later")
    if forms.source:
        lines.append(f"# --form pt2 needs torch>={exported_with}")
    if forms.onnx:
        lines.append(f"# --form onnx needs onnxruntime>={LOWEST_ONNXRUNTIME} instead of torch")
    return lines


def write_shared(folder: Path) -> None:
    """Write the modules that training and `predict.py` share, so that they import each other from this folder."""
    for file in SHARED:
        text = file.read_text(encoding="utf-8").replace("from search.data.", "from ")
        write_text(folder / file.name, text)


def _title(origin: Origin) -> str:
    labels = ", ".join(origin.prepared.labels[1:])
    return (
        f"Source code of this folder's network: {origin.prepared.name}, segmentation of {labels}.\n\n"
        f"{origin.record.architecture.describe()}. Input (B, {origin.plan.context.in_channels}, D, H, W), preprocessed "
        f"as described in preprocessing.json; output logits (B, {origin.plan.context.classes}, D, H, W). "
        '`load_network("weights.safetensors")` returns the network with its weights.'
    )


def _architecture(origin: Origin, network: nn.Module) -> dict[str, Any]:
    record, context = origin.record, origin.plan.context
    costs = record.measurement.costs
    return {
        "study": origin.plan.study.name,
        "trial": record.number,
        "fingerprint": record.architecture.fingerprint,
        "description": record.architecture.describe(),
        "architecture": dict(record.architecture.entries),
        "networks": len(origin.trained.folders),
        "in_channels": context.in_channels,
        "classes": context.classes,
        "patch": context.patch,
        "spacing": context.spacing,
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "macs": costs.macs if costs else None,
        "voxnas": version("voxnas"),
    }


def _preprocessing(origin: Origin) -> dict[str, Any]:
    prepared, plan, costs = origin.prepared, origin.plan, origin.record.measurement.costs
    return {
        **prepared.preprocessing.to_json(),
        "channels": prepared.channels,
        "labels": prepared.labelling.value_names,
        "label_values": prepared.label_values,
        "outputs": prepared.labelling.outputs,
        "order": prepared.order,
        "patch": plan.context.patch,
        "overlap": plan.training.overlap,
        "window": "gaussian",
        "keep_largest": origin.postprocessing.groups,
        "mirror": ["DHW".index(axis) for axis in plan.training.mirror],
        "window_bytes": costs.inference_memory_bytes if costs else 0,
    }


def _write_json(path: Path, values: dict[str, Any]) -> None:
    write_text(path, json.dumps(values, indent=2) + "\n")
