"""Exports in tests: in a short form, and their predict.py as a module, without a process of its own."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import pytest
import torch

from search.export.onnx import OnnxExportError
from search.export.pt2 import Pt2


def _no_onnx(*_, **__):
    raise OnnxExportError("this test doesn't need it")


@contextmanager
def source_form_alone() -> Iterator[None]:
    """Export only the source form and verify it on one case; torch.export, ONNX and MONAI take far longer."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("search.export.forms.write_pt2", lambda *_, **__: Pt2("any", "not written in this test", 0.0))
        patch.setattr("search.export.forms.write_onnx", _no_onnx)
        patch.setattr("search.export.forms.FORMS", ("source",))
        patch.setattr("search.export.model._bundle", lambda *_: "")
        patch.setattr("search.export.model.CHECKED_CASES", 1)
        yield


@contextmanager
def predict_module(folder: Path) -> Iterator[ModuleType]:
    """Import an export's predict.py with the modules beside it; forget them at the end."""
    spec = importlib.util.spec_from_file_location("exported_predict", folder / "predict.py")
    module = importlib.util.module_from_spec(spec)
    path, own = list(sys.path), {file.stem for file in folder.glob("*.py")} - {"predict"}
    before = {name: sys.modules.pop(name) for name in own if name in sys.modules}
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path[:] = path
        for name in (*own, spec.name):
            sys.modules.pop(name, None)
        sys.modules.update(before)


def predict(folder: Path, *arguments) -> int:
    """Call an export's predict.py on the CPU in this process; return its exit code."""
    threads = torch.get_num_threads()
    try:
        with predict_module(folder) as module:
            return module.main([*map(str, arguments), "--device", "cpu", "--threads", "1"])
    finally:
        torch.set_num_threads(threads)
