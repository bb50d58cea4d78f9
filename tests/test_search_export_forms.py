"""Forms of a network that need optional packages: their content, and the message if a package is missing."""

from __future__ import annotations

import errno
import os
import sys

import pytest
import torch
from torch import nn

from search.export import bundle, onnx
from search.export.bundle import write as bundle_write
from search.export.onnx import OnnxExportError, write_onnx
from search.export.standalone import forms

NETWORK = nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.InstanceNorm3d(4), nn.ReLU(), nn.Conv3d(4, 2, 1)).eval()


def test_onnx_is_written_and_compared_and_contains_no_path(tmp_path):
    written = write_onnx(NETWORK, tmp_path / "model.onnx", in_channels=1, patch=(4, 8, 8))
    assert written.max_difference < 1e-4
    assert written.note == "any batch size, the training patch size 4 x 8 x 8 only; opset 20"
    content = (tmp_path / "model.onnx").read_bytes()
    assert b".py" not in content and b"/tests" not in content


def test_onnxruntime_sends_nothing_to_its_maker(tmp_path, monkeypatch):
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY", raising=False)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    for load in (lambda: onnx._session(tmp_path), lambda: forms._onnx(tmp_path, "cpu", None)):
        monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "0")
        with pytest.raises(ImportError):
            load()
        assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"  # before the import, which starts the sending


def test_a_missing_optional_package_is_named_with_the_command_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx, "find_spec", lambda name: None if name == "onnxscript" else True)
    with pytest.raises(OnnxExportError, match="onnxscript can't be imported: pip install 'voxnas\\[onnx\\]'"):
        write_onnx(NETWORK, tmp_path / "model.onnx", in_channels=1, patch=(4, 8, 8))
    monkeypatch.setattr(bundle_write, "find_spec", lambda name: None if name == "fire" else True)
    with pytest.raises(bundle.BundleError, match="fire can't be imported: pip install 'voxnas\\[bundle\\]'"):
        bundle.write_bundle(tmp_path, NETWORK, None)
    monkeypatch.setattr(bundle_write, "find_spec", lambda name: True)
    with pytest.raises(bundle.BundleError, match="it needs model.py, which was not written"):
        bundle.write_bundle(tmp_path, NETWORK, None)
    assert list(tmp_path.iterdir()) == []


def test_a_network_that_onnx_cannot_express_leaves_no_file(tmp_path):
    class Strange(nn.Module):
        def forward(self, x):
            return torch.linalg.eigvals(x[..., :4, :4]).real

    with pytest.raises(OnnxExportError):
        write_onnx(Strange().eval(), tmp_path / "model.onnx", in_channels=1, patch=(4, 4, 4))
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_not_a_network_that_onnx_cannot_express(tmp_path, monkeypatch):
    def full(path, write):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(onnx, "replace_file", full)
    with pytest.raises(OSError, match="No space left on device"):
        write_onnx(NETWORK, tmp_path / "model.onnx", in_channels=1, patch=(4, 8, 8))
