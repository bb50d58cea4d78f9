#!/usr/bin/env python3
"""Segment a NIfTI volume with the network in this folder; needs torch, numpy and nibabel alone.

predict.py IMAGE.nii.gz --out MASK.nii.gz

A network of several channels takes one 4D file, or one file a channel: `FIRST --channel SECOND ...` in the
order of preprocessing.json, or nnU-Net's names, where `CASE.nii.gz` or `CASE_0000.nii.gz` stands for all of
CASE_0000, CASE_0001, ... The mask has the image's grid and affine and the data set's label values. The image
is segmented in overlapping windows of the training patch, weighted by a Gaussian as MONAI's
SlidingWindowInferer does it, in float32.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

FOLDER = Path(__file__).resolve().parent
INSTALL = "install what requirements.txt names"
sys.path.insert(0, str(FOLDER))
try:
    import geometry  # type: ignore[import-not-found]  # the file beside this one
    import numpy as np
except ModuleNotFoundError as absent:
    print(f"predict.py: {absent}; {INSTALL}", file=sys.stderr)
    sys.exit(2)

if TYPE_CHECKING:
    import torch

    Network = Callable[[torch.Tensor], torch.Tensor]

SUFFIXES = (".nii.gz", ".nii")
SIGMA = 0.125  # of the window's length, along each axis
SMALLEST_WEIGHT = 1e-3


def main(arguments: list[str] | None = None) -> int:
    """Segment one image; return the exit code: 0, or 2 after one line on stderr that says what is wrong."""
    options = _parse(arguments)
    try:
        print(segment(options))
    except (ValueError, OSError, MemoryError, RuntimeError, ModuleNotFoundError) as error:
        said = " ".join(str(error).split()) or type(error).__name__
        hint = f"; {INSTALL}" if isinstance(error, ModuleNotFoundError) else ""
        print(f"predict.py: {said}{hint}", file=sys.stderr)
        return 2
    return 0


def segment(options: argparse.Namespace) -> str:
    """Read the image, run the network, write the mask; return a line on what was written."""
    began = time.perf_counter()
    settings = json.loads((FOLDER / "preprocessing.json").read_text(encoding="utf-8"))
    files = channel_files(options.image, options.channel, channels=len(settings["channels"]))
    _require_writable(options.out, files, suffixes=SUFFIXES)
    if options.logits:
        _require_writable(options.logits, files, suffixes=(".npy",))
    volume = geometry.read_volume(files)
    if len(volume.data) != len(settings["channels"]):
        wanted = f"{len(settings['channels'])} ({', '.join(settings['channels'])})"
        raise ValueError(f"{volume.name}: has {len(volume.data)} channels, the network takes {wanted}")
    image, grid = geometry.to_grid(volume, geometry.Preprocessing.from_json(settings))
    device = choose_device(options.device, options.threads)
    network = load_network(FOLDER / "model.pt2", device)
    patch, overlap = settings["patch"], settings["overlap"]
    logits = window_logits(network, image, patch=patch, overlap=overlap, device=device)
    classes = geometry.mask_from_logits(logits, grid)
    if options.logits:
        _save_array(options.logits, logits.numpy())
    geometry.write_mask(options.out, np.array(settings["label_values"], dtype=np.uint8)[classes], volume)
    found = np.bincount(classes.ravel(), minlength=len(settings["labels"]))[1:]
    counts = ", ".join(f"{name} {count}" for name, count in zip(settings["labels"][1:], found, strict=True))
    return f"{options.out}: {counts} voxels; {time.perf_counter() - began:.1f} s on {device}"


def channel_files(image: Path, others: list[Path], *, channels: int) -> list[Path]:
    """Return the files of an image, one or one a channel; nnU-Net's names are completed."""
    if others:
        return [image, *others]
    suffix = next((suffix for suffix in SUFFIXES if image.name.endswith(suffix)), "")
    stem = image.name.removesuffix(suffix)
    if not image.exists() and image.with_name(f"{stem}_0000{suffix}").exists():
        stem += "_0000"
    elif channels == 1 or not stem.endswith("_0000"):
        return [image]
    case = stem.removesuffix("_0000")
    return [image.with_name(f"{case}_{number:04d}{suffix}") for number in range(channels)]


def choose_device(named: str, threads: int | None) -> str:
    """Return `cpu` or `cuda`; `auto` takes a GPU where there is one."""
    import torch

    if threads is not None:
        torch.set_num_threads(threads)
    there = torch.cuda.is_available()
    if named == "cuda" and not there:
        raise ValueError("--device cuda: torch sees no CUDA device here; use --device cpu")
    return "cuda" if named != "cpu" and there else "cpu"


def load_network(path: Path, device: str) -> Network:
    """Return the network: (1, C, D, H, W) to logits (1, K, D, H, W), on the device."""
    import torch
    from torch.export.passes import move_to_device_pass

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch, about its own insides
        try:
            network: Network = move_to_device_pass(torch.export.load(path), device).module()
        except Exception as error:  # zipfile, torch's archive and its schema share no error class
            raise ValueError(f"{path}: can't be loaded ({type(error).__name__}: {error})") from error
    return network


def window_logits(
    network: Network, image: np.ndarray[Any, Any], *, patch: list[int], overlap: float, device: str
) -> torch.Tensor:
    """Run the network over (C, D, H, W) in windows; return the logits (K, D, H, W) on the CPU.

    An image smaller than a window is padded with zeros, evenly on both sides, and the padding is cut off
    again. Only one window at a time is on the device.
    """
    import torch

    missing = [max(0, length - size) for length, size in zip(patch, image.shape[1:], strict=True)]
    before = [margin // 2 for margin in missing]
    pads = [(0, 0), *((first, margin - first) for first, margin in zip(before, missing, strict=True))]
    padded = torch.from_numpy(np.pad(image, pads))[None]  # (1, C, D', H', W')
    weight = gaussian_weight(patch)
    count = torch.zeros(padded.shape[2:])
    total = torch.zeros(0)
    with torch.no_grad():
        for window in windows(padded.shape[2:], patch, overlap):
            logits = network(padded[:, :, *window].to(device))[0].float().cpu()  # (K, *patch)
            if not len(total):
                total = torch.zeros(len(logits), *padded.shape[2:])
            total[:, *window] += logits.mul_(weight)
            count[window] += weight
    inside = tuple(slice(first, first + size) for first, size in zip(before, image.shape[1:], strict=True))
    return total.div_(count)[:, *inside]


def windows(shape: tuple[int, ...], patch: list[int], overlap: float) -> Iterator[tuple[slice, ...]]:
    """Yield windows that cover a shape no smaller than the patch, last axis fastest."""
    starts = []
    for size, length in zip(shape, patch, strict=True):
        step = length if size == length else max(1, int(length * (1 - overlap)))
        steps = math.ceil((size - length) / step)
        starts.append([min(number * step, size - length) for number in range(steps + 1)])
    for corner in itertools.product(*starts):
        yield tuple(slice(start, start + length) for start, length in zip(corner, patch, strict=True))


def gaussian_weight(patch: list[int]) -> torch.Tensor:
    """Return the weight of each voxel of a window, (D, H, W)."""
    import torch

    weight = torch.ones(())
    for length in patch:
        place = torch.arange(-(length - 1) / 2.0, (length - 1) / 2.0 + 1, dtype=torch.float)
        weight = weight[..., None] * torch.exp(place**2 / (-2 * (SIGMA * length) ** 2))
    return weight.clamp_(min=max(weight.min().item(), SMALLEST_WEIGHT))


def _require_writable(path: Path, files: list[Path], *, suffixes: tuple[str, ...]) -> None:
    """Refuse an output before the work rather than after it."""
    if not path.name.endswith(suffixes):
        raise ValueError(f"{path}: can't be written: its name must end in {' or '.join(suffixes)}")
    if not path.parent.is_dir():
        raise ValueError(f"{path}: can't be written: there is no folder {path.parent}")
    if path.is_dir():
        raise ValueError(f"{path}: can't be written: it is a folder")
    if not os.access(path.parent, os.W_OK):
        raise ValueError(f"{path}: can't be written: {path.parent} is read-only")
    if path.resolve() in [file.resolve() for file in files]:
        raise ValueError(f"{path}: can't be written: it is the image itself")


def _save_array(path: Path, array: np.ndarray[Any, Any]) -> None:
    """Write an array whole or not at all."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with beside.open("wb") as file:
            np.save(file, array)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    what = "Segment a NIfTI volume with the network in this folder."
    parser = argparse.ArgumentParser(prog="predict.py", description=what, allow_abbrev=False)
    add = parser.add_argument
    add("image", type=Path, metavar="IMAGE", help="NIfTI file, .nii.gz or .nii")
    add("--channel", type=Path, action="append", default=[], metavar="FILE", help="a further channel's file")
    add("--out", type=Path, required=True, metavar="MASK", help="file to write, .nii.gz or .nii")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto: a GPU where there is one")
    add("--threads", type=_threads, metavar="N", help="CPU threads (default: torch's choice)")
    add("--logits", type=Path, metavar="FILE", help="also save the logits on the network's grid, .npy")
    return parser.parse_args(arguments)


def _threads(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
