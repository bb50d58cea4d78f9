"""A MONAI bundle: the same network, volumes and masks under MONAI's names, run by MONAI's own commands."""

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

from search.data.geometry import load_nifti
from search.export.proof import DIFFERING_SHARE, Expected, failed, link_case

HERE = Path(__file__).parent
SCRIPTS = ("model.py", "geometry.py", "volumes.py")
BLOCKED = Path(__file__).parents[1] / "isolated.py"
SCHEMA = "metadata_schema.json"
META, CONFIG = "configs/metadata.json", "configs/inference.json"


@dataclass(frozen=True)
class Described:
    """What a bundle says of itself, in words and numbers."""

    name: str
    network: str  # the class in model.py
    description: str
    licence: str
    channels: tuple[str, ...]
    labels: tuple[str, ...]
    patch: tuple[int, int, int]
    overlap: float


NEEDED = ("monai", "fire", "jsonschema")  # by MONAI's own commands, which prove a bundle


class NoBundle(ValueError):
    """A bundle that isn't written; the message says why."""


def write_bundle(export: Path, network: nn.Module, said: Described) -> Path:
    """Write `bundle/` into an export that has its model.py; return the folder. Raises NoBundle."""
    absent = [name for name in NEEDED if find_spec(name) is None]
    if absent or not (export / "model.py").is_file():
        why = f"{', '.join(absent)} can't be imported: pip install 'voxnas[bundle]'" if absent else "it needs model.py"
        raise NoBundle(why)
    folder = export / "bundle"
    for name in ("configs", "models", "docs", "scripts"):
        (folder / name).mkdir(parents=True)
    for name in SCRIPTS:
        shutil.copyfile(export / name, folder / "scripts" / name)
    for name in ("__init__.py", "segment.py"):
        shutil.copyfile(HERE / "scripts" / name, folder / "scripts" / name)
    shutil.copyfile(HERE / SCHEMA, folder / "configs" / SCHEMA)
    shutil.copyfile(export / "preprocessing.json", folder / "configs" / "preprocessing.json")
    torch.save({name: value.clone() for name, value in network.state_dict().items()}, folder / "models" / "model.pt")
    _write_json(folder / META, _metadata(said))
    _write_json(folder / CONFIG, _inference(said, class_name=said.network))
    (folder / "docs" / "README.md").write_text(_readme(said), encoding="utf-8")
    (folder / "LICENSE").write_text(_licence(said), encoding="utf-8")
    return folder


def _metadata(said: Described) -> dict[str, Any]:
    def tensor(kind: str, names: Sequence[str], span: list[float]) -> dict[str, Any]:
        return {
            "type": "image",
            "format": kind,
            "modality": "as the channels say",
            "num_channels": len(names),
            "spatial_shape": list(said.patch),
            "dtype": "float32",
            "value_range": span,
            "is_patch_data": True,
            "channel_def": {str(number): name for number, name in enumerate(names)},
        }

    return {
        "schema": SCHEMA,
        "version": "1.0.0",
        "changelog": {"1.0.0": "exported by voxnas " + version("voxnas")},
        "monai_version": _number(version("monai")),
        "pytorch_version": _number(version("torch")),
        "numpy_version": _number(version("numpy")),
        "required_packages_version": {"nibabel": _number(version("nibabel"))},
        "optional_packages_version": {},
        "name": said.name,
        "task": f"Segmentation of {', '.join(said.labels[1:])}",
        "description": said.description,
        "authors": "made with voxnas",
        "copyright": f"Weights: learnt from data whose licence is: {said.licence}",
        "intended_use": "Research. Not a medical device.",
        "network_data_format": {
            "inputs": {"image": tensor("magnitude", said.channels, [-10, 10])},
            "outputs": {"pred": tensor("segmentation", said.labels, [])},
        },
    }


def _inference(said: Described, *, class_name: str) -> dict[str, Any]:
    return {
        "imports": ["$import scripts.segment as segment"],
        "bundle_root": ".",
        "dataset_dir": "input",
        "output_dir": "$@bundle_root + '/output'",
        "device": "$segment.best_device()",
        "settings": "$segment.settings(@bundle_root)",
        "network_def": {"_target_": f"scripts.model.{class_name}"},
        "network": "$segment.with_weights(@network_def, @bundle_root, @device)",
        "preprocessing": {"_target_": "scripts.segment.ReadVolume", "settings": "@settings"},
        "dataset": {
            "_target_": "Dataset",
            "data": f"$segment.cases(@dataset_dir, channels={len(said.channels)})",
            "transform": "@preprocessing",
        },
        "inferer": {
            "_target_": "SlidingWindowInferer",
            "roi_size": list(said.patch),
            "sw_batch_size": 1,
            "overlap": said.overlap,
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
            "network": "@network",
            "inferer": "@inferer",
            "postprocessing": "@postprocessing",
        },
        "initialize": [],
        "run": ["$@evaluator.run()"],
        "finalize": [],
    }


def _readme(said: Described) -> str:
    return (
        f"# {said.name}\n\n{said.description}\n\nIn this folder, with MONAI, nibabel and jsonschema (the last for "
        "`verify_metadata`):\n\n```\n"
        f"python -m monai.bundle run --config_file {CONFIG} --meta_file {META} --dataset_dir FOLDER "
        "--output_dir MASKS\n"
        f"python -m monai.bundle verify_metadata --meta_file {META} --filepath configs/{SCHEMA}\n"
        f"python -m monai.bundle verify_net_in_out network_def --config_file {CONFIG} --meta_file {META}\n```\n\n"
        f"`configs/{SCHEMA}` is written after MONAI's bundle specification and travels with the bundle, so that "
        "nothing is downloaded. Not a medical device.\n"
    )


def _licence(said: Described) -> str:
    return (
        "Code of this bundle: Apache License, Version 2.0 (http://www.apache.org/licenses/LICENSE-2.0).\n"
        f"Weights: learnt from data whose licence is: {said.licence}. Its terms may bind what is made from it.\n"
    )


def check_bundle(folder: Path, expected: Sequence[Expected]) -> str:
    """Run MONAI's three commands in a process without voxnas, and compare the masks; return what was found.

    Raises UserError where one of them fails or a mask differs by more than ties.
    """
    scratch = Path(mkdtemp(prefix="voxnas-"))  # without spaces, for MONAI's commands
    data, output = scratch / "input", scratch / "output"
    data.mkdir()
    try:
        for number, each in enumerate(expected):
            link_case(each.case, f"case{number}", data)
        where = f"--config_file {CONFIG} --meta_file {META}"
        _monai(
            folder,
            f"verify_metadata --meta_file {META} --filepath configs/{SCHEMA}",
            f"verify_net_in_out network_def {where} --device cpu",
            f"run {where} --device cpu --dataset_dir {data} --output_dir {output}",
        )
        differing = 0
        for number, each in enumerate(expected):
            found = load_nifti(output / f"case{number}.nii.gz")[1]
            differing += int((found != each.labels).sum())
        total = sum(each.mask.size for each in expected)
        if differing > DIFFERING_SHARE * total:
            raise failed("bundle", f"{differing} of {total} voxels have another label")
        return f"bundle: {len(expected)} cases by `monai.bundle run`, {differing} of {total:,} voxels differ"
    finally:
        shutil.rmtree(scratch)


def _monai(folder: Path, *commands: str) -> None:
    """Run `python -m monai.bundle` on each, in one process: it takes long to load."""
    command = [sys.executable, "-B", "-P", str(BLOCKED), "--monai", *" --then ".join(commands).split()]
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    ended = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if ended.returncode:
        lines = ended.stderr.strip().splitlines() or ["nothing on stderr"]
        raise failed("bundle", f"monai.bundle ended with {ended.returncode}: {lines[-1]}")


def _number(of: str) -> str:
    return of.partition("+")[0]


def _write_json(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
