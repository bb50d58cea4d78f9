"""A MONAI bundle of an export's network, which runs with MONAI's own commands."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import torch
from torch import nn

from search.config.units import counted
from search.data.volume_files import load_nifti
from search.export.verification import MAX_DIFFERING_SHARE, Reference, failed, link_case
from search.files import copy_file, replace_file, write_text

HERE = Path(__file__).parent
SCRIPTS = ("model.py", "components.py", "geometry.py", "preprocessing.py", "series.py", "volume_files.py", "volumes.py")
ISOLATED = Path(__file__).parents[1] / "isolated.py"
SCHEMA = "metadata_schema.json"
META, CONFIG = "configs/metadata.json", "configs/inference.json"


@dataclass(frozen=True)
class BundleInfo:
    """The metadata of a bundle."""

    name: str
    network: str  # the class in model.py
    description: str
    licence: str
    channels: tuple[str, ...]
    labels: tuple[str, ...]  # background, then the segmented classes
    outputs: tuple[str, ...]  # of the network, channel by channel
    patch: tuple[int, int, int]
    overlap: float


REQUIRED = ("monai", "fire", "jsonschema")  # by MONAI's commands, which verify the bundle


class BundleError(ValueError):
    """A bundle can't be written."""


def write_bundle(export: Path, network: nn.Module, info: BundleInfo) -> Path:
    """Write `bundle/` into an export that has a model.py; return the folder. Raises BundleError."""
    missing = [name for name in REQUIRED if find_spec(name) is None]
    if missing:
        raise BundleError(f"{', '.join(missing)} can't be imported: pip install 'voxnas[bundle]'")
    if not (export / "model.py").is_file():
        raise BundleError("it needs model.py, which was not written")
    folder = export / "bundle"
    for name in ("configs", "models", "docs", "scripts"):
        (folder / name).mkdir(parents=True)
    for name in SCRIPTS:
        copy_file(export / name, folder / "scripts" / name)
    for name in ("__init__.py", "segment.py"):
        copy_file(HERE / "scripts" / name, folder / "scripts" / name)
    copy_file(HERE / SCHEMA, folder / "configs" / SCHEMA)
    copy_file(export / "preprocessing.json", folder / "configs" / "preprocessing.json")
    state = {name: value.clone() for name, value in network.state_dict().items()}

    def write_state(part: Path) -> None:
        with part.open("wb") as file:  # given a path, torch writes its name into the archive
            torch.save(state, file)

    replace_file(folder / "models" / "model.pt", write_state)
    _write_json(folder / META, _metadata(info))
    _write_json(folder / CONFIG, _inference(info, class_name=info.network))
    write_text(folder / "docs" / "README.md", _readme(info))
    write_text(folder / "LICENSE", _licence(info))
    return folder


def _metadata(info: BundleInfo) -> dict[str, Any]:
    def tensor(kind: str, names: Sequence[str], span: list[float]) -> dict[str, Any]:
        return {
            "type": "image",
            "format": kind,
            "modality": "see channel_def",
            "num_channels": len(names),
            "spatial_shape": list(info.patch),
            "dtype": "float32",
            "value_range": span,
            "is_patch_data": True,
            "channel_def": {str(number): name for number, name in enumerate(names)},
        }

    return {
        "schema": SCHEMA,
        "version": "1.0.0",
        "changelog": {"1.0.0": "exported by voxnas " + version("voxnas")},
        "monai_version": _release(version("monai")),
        "pytorch_version": _release(version("torch")),
        "numpy_version": _release(version("numpy")),
        "required_packages_version": {"nibabel": _release(version("nibabel"))},
        "optional_packages_version": {},
        "name": info.name,
        "task": f"Segmentation of {', '.join(info.labels[1:])}",
        "description": info.description,
        "authors": "generated with voxnas",
        "copyright": f"Weights: trained on data with the licence {info.licence}",
        "intended_use": "Research only. Not a medical device.",
        "network_data_format": {
            "inputs": {"image": tensor("magnitude", info.channels, [-10, 10])},
            "outputs": {"pred": tensor("segmentation", info.outputs, [])},
        },
    }


def _inference(info: BundleInfo, *, class_name: str) -> dict[str, Any]:
    return {
        "imports": ["$import scripts.segment as segment"],
        "bundle_root": ".",
        "dataset_dir": "input",
        "output_dir": "$@bundle_root + '/output'",
        "device": "$segment.best_device()",
        "settings": "$segment.settings(@bundle_root)",
        "network_def": {"_target_": f"scripts.model.{class_name}"},
        "network": "$segment.with_weights(@network_def, @bundle_root, @device)",
        "predictor": "$segment.mirrored(@network, @settings)",
        "preprocessing": {"_target_": "scripts.segment.ReadVolume", "settings": "@settings"},
        "dataset": {
            "_target_": "Dataset",
            "data": f"$segment.cases(@dataset_dir, channels={len(info.channels)})",
            "transform": "@preprocessing",
        },
        "inferer": {
            "_target_": "SlidingWindowInferer",
            "roi_size": list(info.patch),
            "sw_batch_size": 1,
            "overlap": info.overlap,
            "mode": "gaussian",
        },
        "postprocessing": {
            "_target_": "scripts.segment.WriteMask",
            "settings": "@settings",
            "output_dir": "@output_dir",
        },
        "evaluator": {
            "_target_": "scripts.segment.Segmenter",
            "device": "@device",
            "dataset": "@dataset",
            "network": "@predictor",
            "inferer": "@inferer",
            "postprocessing": "@postprocessing",
        },
        "initialize": [],
        "run": ["$@evaluator.run()"],
        "finalize": [],
    }


def _readme(info: BundleInfo) -> str:
    return (
        f"# {info.name}\n\n{info.description}\n\nRun these commands in this folder; they need MONAI, nibabel, fire and "
        "jsonschema (the last only for `verify_metadata`):\n\n```\n"
        f"python -m monai.bundle run --config_file {CONFIG} --meta_file {META} --dataset_dir FOLDER "
        "--output_dir MASKS\n"
        f"python -m monai.bundle verify_metadata --meta_file {META} --filepath configs/{SCHEMA}\n"
        f"python -m monai.bundle verify_net_in_out network_def --config_file {CONFIG} --meta_file {META}\n```\n\n"
        f"`configs/{SCHEMA}` follows MONAI's bundle specification and is part of the bundle: no command downloads "
        "anything. Not a medical device.\n"
    )


def _licence(info: BundleInfo) -> str:
    return (
        "Code of this bundle: Apache License, Version 2.0 (http://www.apache.org/licenses/LICENSE-2.0).\n"
        f"Weights: trained on data with the licence {info.licence}. The terms of that licence may also apply to the "
        "weights.\n"
    )


def check_bundle(folder: Path, references: Sequence[Reference]) -> str:
    """Run MONAI's three commands in a process without voxnas and compare the masks; return a summary.

    Raises UserError if a command fails, or if more voxels differ than ties of logits explain.
    """
    scratch = Path(mkdtemp(prefix="voxnas-"))  # MONAI's commands need paths without spaces
    data, output = scratch / "input", scratch / "output"
    data.mkdir()
    try:
        for number, each in enumerate(references):
            link_case(each.case, f"case{number}", data)
        where = f"--config_file {CONFIG} --meta_file {META}"
        _monai(
            folder,
            f"verify_metadata --meta_file {META} --filepath configs/{SCHEMA}",
            f"verify_net_in_out network_def {where} --device cpu",
            f"run {where} --device cpu --dataset_dir {data} --output_dir {output}",
        )
        differing = 0
        for number, each in enumerate(references):
            found = load_nifti(output / f"case{number}.nii.gz")[1]
            differing += int((found != each.labels).sum())
        total = sum(each.mask.size for each in references)
        if differing > MAX_DIFFERING_SHARE * total:
            raise failed("bundle", f"the labels of {differing:,} of {total:,} voxels differ")
        cases = counted(len(references), "case")
        return f"bundle: {cases} with `monai.bundle run`, {differing:,} of {total:,} voxels differ"
    finally:
        shutil.rmtree(scratch)


def _monai(folder: Path, *commands: str) -> None:
    """Run `python -m monai.bundle` with each command, in one process: MONAI loads slowly."""
    command = [sys.executable, "-B", "-P", str(ISOLATED), "--monai", *" --then ".join(commands).split()]
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    ended = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if ended.returncode:
        lines = ended.stderr.strip().splitlines() or ["nothing on stderr"]
        raise failed("bundle", f"monai.bundle exited with code {ended.returncode}: {lines[-1]}")


def _release(version: str) -> str:
    """Return a version without its local suffix, as MONAI's schema requires."""
    return version.partition("+")[0]


def _write_json(path: Path, values: dict[str, Any]) -> None:
    write_text(path, json.dumps(values, indent=2) + "\n")
