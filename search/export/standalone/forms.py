"""Loads one form of this folder's network as a function of one window: (C, D, H, W) to logits (K, D, H, W)."""

from __future__ import annotations

import hashlib
import os
import re
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).resolve().parent
FILES = {"source": "model.py", "pt2": "model.pt2", "onnx": "model.onnx"}
CARD, WEIGHTS, SETTINGS = "MODEL_CARD.md", "weights.safetensors", "preprocessing.json"
LISTED = re.compile(r"^\| ([^|]+) \| `([0-9a-f]{64})` \|$", re.MULTILINE)  # the card's table of files
CUDA = "CUDAExecutionProvider"  # of onnxruntime
Network = Callable[["np.ndarray[Any, Any]"], "np.ndarray[Any, Any]"]


def available() -> list[str]:
    """Return the forms that this folder has."""
    return [form for form, file in FILES.items() if (FOLDER / file).is_file()]


def load(form: str, *, device: str, precision: str, threads: int | None) -> tuple[Network, str]:
    """Return the network and the device that it runs on. Raises ValueError if the form or device is not available."""
    path = FOLDER / FILES[form]
    if form == "onnx":
        return _onnx(path, device, threads)
    import torch

    if threads is not None:
        torch.set_num_threads(threads)
    device = choose_device(device)
    half = device == "cuda" and precision in ("auto", "float16")
    return _TorchNetwork(form, path, device, half=half).run, device


def require_unchanged(form: str) -> None:
    """Raise ValueError if the SHA-256 of a file of the network or of its settings is not that of the model card.

    Loading a changed network could run foreign code; changed settings give other masks.
    """
    card = FOLDER / CARD
    if not card.is_file():
        raise ValueError(f"{CARD} is missing, so the network's files can't be checked; --no-verify loads them anyway")
    listed = dict(LISTED.findall(card.read_text(encoding="utf-8", errors="replace")))
    for name in (SETTINGS, FILES[form], *([WEIGHTS] if form == "source" else [])):
        file = FOLDER / name
        if not file.is_file():
            raise ValueError(f"{name} is missing from this folder; get a fresh copy of it")
        with file.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
        if listed.get(name) != digest:
            raise ValueError(
                f"{name} differs from the SHA-256 in {CARD}: it was changed after the export; get a fresh copy of "
                "the folder, or load it anyway with --no-verify"
            )


def choose_device(named: str) -> str:
    """Return `cpu` or `cuda`; `auto` uses a GPU if there is one."""
    import torch

    available = torch.cuda.is_available()
    if named == "cuda" and not available:
        raise ValueError("--device cuda: torch finds no CUDA device; use --device cpu")
    return "cuda" if named != "cpu" and available else "cpu"


class _TorchNetwork:
    """model.py with its weights, or model.pt2; with `half` in float16 until a window overflows."""

    def __init__(self, form: str, path: Path, device: str, *, half: bool) -> None:
        import torch

        self.torch, self.device, self.half, self.form = torch, device, half, form
        if form == "source":
            self.network = _source(path).to(device)
            for parameter in self.network.parameters():
                if parameter.dim() == 5:  # speeds up convolutions on CPUs by a third to a half
                    parameter.data = parameter.data.contiguous(memory_format=torch.channels_last_3d)
            self.network.to(torch.float16 if half else torch.float32)
        else:
            self.network = _program(path, device)

    def run(self, window: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Compute one window's logits."""
        logits = self._logits(window)
        if self.half and not bool(self.torch.isfinite(logits).all()):
            print("predict.py: float16 overflowed; continuing in float32", file=sys.stderr)
            self.half = False
            if self.form == "source":
                self.network.float()
            logits = self._logits(window)
        return logits.float().cpu().numpy()[0]  # type: ignore[no-any-return]

    def _logits(self, window: np.ndarray[Any, Any]) -> Any:
        torch = self.torch
        batch = torch.from_numpy(np.ascontiguousarray(window))[None].to(self.device)  # (1, C, D, H, W)
        batch = batch.contiguous(memory_format=torch.channels_last_3d)
        with torch.inference_mode():
            if self.form == "source":
                return self.network(batch.half() if self.half else batch)
            with torch.autocast(self.device, torch.float16, enabled=self.half):
                return self.network(batch)


def _source(path: Path) -> Any:
    try:
        import model  # type: ignore[import-not-found]  # a file of this folder

        return model.load_network(path.with_name(WEIGHTS))
    except Exception as error:  # with --no-verify, the file may contain anything
        raise ValueError(f"{path}: can't be loaded ({type(error).__name__}: {error})") from error


def _program(path: Path, device: str) -> Any:
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns about its internals
        try:
            from torch.export.passes import move_to_device_pass

            return move_to_device_pass(torch.export.load(path), device).module()
        except Exception as error:  # zipfile, torch's archive and its schema have no common error class
            why = f"{type(error).__name__}: {error}"
            hint = "requirements.txt names the lowest version of torch for this form"
            raise ValueError(f"{path}: can't be loaded by torch {torch.__version__} ({why}); {hint}") from error


def _onnx(path: Path, device: str, threads: int | None) -> tuple[Network, str]:
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # or onnxruntime 1.29 sends names and hashes of the model to its maker
    import onnxruntime

    onnxruntime.disable_telemetry_events()  # of other versions
    usable = set() if device == "cpu" else {CUDA} & set(onnxruntime.get_available_providers())
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(path, options, providers=[*usable, "CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has no common error class
        raise ValueError(f"{path}: can't be loaded ({type(error).__name__}: {error})") from error
    on_gpu = CUDA in session.get_providers()  # onnxruntime falls back to the CPU if it can't use a GPU
    if device == "cuda" and not on_gpu:
        raise ValueError("--device cuda: onnxruntime finds no CUDA device; use --device cpu")
    name = session.get_inputs()[0].name

    def run(window: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return session.run(None, {name: np.ascontiguousarray(window)[None]})[0][0]  # type: ignore[no-any-return]

    return run, "cuda" if on_gpu else "cpu"
