"""requirements.txt of an export: its lowest versions, and predict.py in an environment that has exactly these."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from bench_presets import SMALL, narrowed
from test_search_export import expected_mask, noise, origin_of, phantom_study, rotated, values_of
from test_search_export_source import written

from search.export import contents, export_trained
from search.export.standalone import forms
from space.presets import PRESETS

RUN_ALL = """
import importlib.util, sys
from pathlib import Path
import numpy, torch
for folder in map(Path, sys.argv[1:]):
    spec = importlib.util.spec_from_file_location(folder.name, folder / "model.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with torch.inference_mode():
        found = module.load_network(folder / "weights.safetensors")(torch.from_numpy(numpy.load(folder / "image.npy")))
    numpy.save(folder / "found.npy", found.numpy())
"""


def requirements(*, source: bool = True, onnx: bool = True) -> list[str]:
    return contents._requirements(SimpleNamespace(source=source, onnx=onnx))


def test_the_requirements_name_the_lowest_versions_of_each_form(monkeypatch):
    monkeypatch.setattr(contents, "version", lambda name: "2.99.1")
    assert requirements() == [
        "torch>=2.1",
        "numpy>=1.24.2",
        "nibabel>=4.0",
        "# Python 3.11 or later",
        "# --form pt2 needs torch>=2.99",
        "# --form onnx needs onnxruntime>=1.18 instead of torch",
    ]
    assert requirements(source=False, onnx=False) == [
        "torch>=2.99",
        "numpy>=1.24.2",
        "nibabel>=4.0",
        "# Python 3.11 or later",
    ]


def test_a_torch_that_is_too_old_for_model_pt2_is_told_so(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.export.passes", None)
    with pytest.raises(ValueError, match=r"model.pt2: can't be loaded by torch .*passes.*requirements.txt names"):
        forms._program(tmp_path / "model.pt2", "cpu")


@pytest.fixture(scope="module")
def lowest(tmp_path_factory) -> Path:
    """The Python of an environment that has exactly the lowest versions; pip downloads gigabytes for it.

    VOXNAS_LOWEST names the Python of such an environment that exists already.
    """
    if "VOXNAS_LOWEST" in os.environ:
        return Path(os.environ["VOXNAS_LOWEST"])
    if sys.version_info >= (3, 12):
        pytest.skip("the lowest torch has no wheel for this Python")
    folder = tmp_path_factory.mktemp("lowest")
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    python = folder / "bin" / "python"
    pins = [line.replace(">=", "==") for line in requirements() if not line.startswith("#")]
    extra = f"onnxruntime=={contents.LOWEST_ONNXRUNTIME}"
    subprocess.run([str(python), "-m", "pip", "install", "--quiet", *pins, extra], check=True)
    return python


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_predict_writes_the_same_masks_with_the_lowest_versions(lowest, tmp_path, without_bundle):
    study = phantom_study(tmp_path)
    exported = export_trained(origin_of(study), tmp_path / "model")
    image = noise(tmp_path / "image.nii.gz", (41, 37, 5), rotated(20, (1.4, 1.6, 7)))
    expected = expected_mask(study, image)
    for form in ("source", "onnx"):
        mask = tmp_path / f"{form}.nii.gz"
        command = [str(lowest), "-I", str(exported.folder / "predict.py"), str(image), "--out", str(mask)]
        done = subprocess.run([*command, "--form", form], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, ""), form
        assert np.array_equal(values_of(mask), expected), form


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_every_papers_network_computes_the_same_with_the_lowest_versions(lowest, tmp_path):
    expected = {}
    for name, preset in PRESETS.items():
        (folder := tmp_path / name).mkdir()
        context = replace(preset.context, patch=SMALL.get(name.partition("_")[0], (6, 32, 32)))
        network, _, _ = written(narrowed(preset.architecture), context, folder)
        image = torch.randn(1, context.in_channels, *context.patch, generator=torch.Generator().manual_seed(1))
        np.save(folder / "image.npy", image.numpy())
        with torch.inference_mode():
            expected[folder] = network(image).numpy()
    subprocess.run([str(lowest), "-c", RUN_ALL, *map(str, expected)], check=True)
    for folder, logits in expected.items():
        found = np.load(folder / "found.npy")
        assert np.allclose(found, logits, atol=1e-4 * max(1.0, np.abs(logits).max())), folder.name
