#!/usr/bin/env python3
"""Segment volumes with the network in this folder; needs what requirements.txt names, and nothing else.

predict.py IMAGE.nii.gz --out MASK.nii.gz
predict.py FOLDER --out FOLDER_OF_MASKS

An input is a NIfTI file (3D, or 4D with the channels last), a .mha, .mhd or .nrrd file (with SimpleITK), a folder of
one DICOM series (with pydicom), or a folder of such. Several channels are one 4D file or one file each: `FIRST
--channel SECOND ...` in the order of preprocessing.json, or nnU-Net's names, CASE_0000, CASE_0001, ... The mask has the
image's grid and affine and the data set's label values. Exit codes: 0 all done; 1 some inputs failed, each with a line
that says why, the others are done; 2 nothing could be done.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent
INSTALL = "install what requirements.txt names"
sys.path.insert(0, str(FOLDER))
try:
    import forms  # type: ignore[import-not-found]  # the files beside this one
    import geometry  # type: ignore[import-not-found]
    import numpy as np
    import volumes  # type: ignore[import-not-found]
    import windows  # type: ignore[import-not-found]
except ModuleNotFoundError as absent:
    print(f"predict.py: {absent}; {INSTALL}", file=sys.stderr)
    sys.exit(2)

NIFTI = (".nii.gz", ".nii")
BYTES = re.compile(r"([0-9.]+)\s*([KMGT]i?)?B?")
MOST_STRIPS = 64
FAULTS = (ValueError, OSError, MemoryError, RuntimeError, ModuleNotFoundError)


@dataclass(frozen=True)
class Work:
    """One volume and the files that are to be made of it."""

    case: Any
    mask: Path
    probabilities: Path | None
    logits: Path | None


def main(arguments: list[str] | None = None) -> int:
    """Segment all inputs; return the exit code."""
    options = _parse(arguments)
    try:
        settings = json.loads((FOLDER / "preprocessing.json").read_text(encoding="utf-8"))
        works = plan(options, channels=len(settings["channels"]))
        network, device = forms.load(
            options.form, device=options.device, precision=options.precision, threads=options.threads
        )
    except FAULTS as error:
        return _say(error, 2)
    failed = 0
    for number, work in enumerate(works, start=1):
        bar = _Bar(f"{number}/{len(works)} {work.case.name}")
        try:
            print(segment(work, network, settings, options, bar) + f" on {device}")
        except FAULTS as error:
            bar.clear()
            failed += 1
            _say(error, 1)
    return 0 if not failed else 2 if failed == len(works) else 1


def _say(error: Exception, code: int) -> int:
    said = " ".join(str(error).split()) or type(error).__name__
    hint = f"; {INSTALL}" if isinstance(error, ModuleNotFoundError) else ""
    print(f"predict.py: {said}{hint}", file=sys.stderr)
    return code


def plan(options: argparse.Namespace, *, channels: int) -> list[Work]:
    """Say what is to be made of which inputs; ValueError before any work where it can't be."""
    if options.channel:
        if len(options.inputs) != 1:
            raise ValueError("--channel: names the further channels of one image; give one")
        case = volumes.Case(volumes.stem_of(options.inputs[0]), (options.inputs[0], *options.channel))
        cases = [case]
    else:
        cases = volumes.find_cases(options.inputs, channels=channels)
    names = [case.name for case in cases]
    twins = sorted({name for name in names if names.count(name) > 1})
    if twins:
        raise ValueError(f"several inputs are named {', '.join(twins)}: their masks would overwrite each other")
    one = len(cases) == 1 and options.out.name.endswith(NIFTI)
    for folder in (*([] if one else [options.out]), *([options.logits] if options.logits else [])):
        _require_folder(folder)
    works = []
    for case in cases:
        mask = options.out if one else options.out / f"{case.name}.nii.gz"
        stem = mask.name.removesuffix(".gz").removesuffix(".nii")
        shares = mask.with_name(f"{stem}_probabilities.nii.gz") if options.probabilities else None
        works.append(Work(case, mask, shares, options.logits / f"{case.name}.npy" if options.logits else None))
        for path in filter(None, (mask, shares, works[-1].logits)):
            _require_writable(path, case.files)
    return works


def segment(work: Work, network: Any, settings: dict[str, Any], options: argparse.Namespace, bar: _Bar) -> str:
    """Read a volume, run the network, write the mask; return a line on what was written."""
    began = time.perf_counter()
    volume = volumes.read_case(work.case)
    if len(volume.data) != len(settings["channels"]):
        wanted = f"{len(settings['channels'])} ({', '.join(settings['channels'])})"
        raise ValueError(f"{volume.name}: has {len(volume.data)} channels, the network takes {wanted}")
    image, grid = geometry.to_grid(volume, geometry.Preprocessing.from_json(settings))
    read = time.perf_counter()
    classes = len(settings["labels"])
    cuts = windows.cut(grid.shape, settings["patch"], settings["overlap"])
    strips = _strips(cuts, grid, classes=classes, settings=settings, options=options)
    labels = np.empty(grid.turned_shape, dtype=np.uint8)
    shares = np.empty((classes, *grid.turned_shape), dtype=np.float32) if work.probabilities else None
    logits = np.empty((classes, *grid.shape), dtype=np.float32) if work.logits else None
    bar.total = cuts.count
    for strip in strips:
        slabs = windows.logit_slabs(network, image, cuts, strip.needed, done=bar.step)
        if logits is not None:
            slabs = _kept(slabs, logits, strip.needed)
        for number, plane in geometry.source_planes(slabs, grid, strip):
            labels[number, strip.rows] = geometry.labels_of(plane)
            if shares is not None:
                shares[:, number, strip.rows] = _softmax(plane)
    bar.clear()
    ended = time.perf_counter()
    mask = geometry.turn_back(labels, grid)
    named = list(zip(settings["label_values"], settings["labels"], strict=True))
    geometry.write_mask(work.mask, np.array(settings["label_values"], dtype=np.uint8)[mask], volume, named)
    if shares is not None:
        parts = np.stack([geometry.turn_back(part, grid) for part in shares], axis=-1)
        geometry.save_like(work.probabilities, parts, volume)
    if work.logits and logits is not None:
        _save_array(work.logits, logits)
    found = np.bincount(mask.ravel(), minlength=classes)[1:]
    counts = ", ".join(f"{name} {count}" for name, count in zip(settings["labels"][1:], found, strict=True))
    seconds = f"{time.perf_counter() - began:.1f} s ({ended - read:.1f} s in {bar.done} windows)"
    return f"{work.mask}: {counts} voxels; {seconds}; peak memory {_peak_bytes() / 2**20:.0f} MiB;"


def _strips(cuts: Any, grid: Any, *, classes: int, settings: dict[str, Any], options: argparse.Namespace) -> list[Any]:
    """Cut the work into as few strips as --max-memory allows; ValueError where even the most are too much."""
    if options.max_memory is None:
        return list(geometry.strips(grid, 1))
    source = int(np.prod(grid.source_shape))
    fixed = _peak_bytes() + settings["window_bytes"] + source * (2 + 8 * classes * options.probabilities)
    needed = 0
    for count in range(1, min(MOST_STRIPS, grid.turned_shape[1]) + 1):
        strips = geometry.strips(grid, count)
        rows = max(strip.needed.stop - strip.needed.start for strip in strips)
        planes = 4 * 4 * classes * (source // grid.turned_shape[0]) // count
        needed = fixed + windows.strip_bytes(cuts, classes=classes, rows=rows) + planes
        if needed <= options.max_memory:
            return list(strips)
    raise ValueError(f"--max-memory: this volume needs {needed / 2**20:.0f} MiB or more")


def _kept(slabs: Iterator[Any], logits: np.ndarray[Any, Any], rows: slice) -> Iterator[Any]:
    for first, slab in slabs:
        logits[:, first : first + slab.shape[1], rows] = slab
        yield first, slab


def _softmax(plane: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    grown: np.ndarray[Any, Any] = np.exp(plane - plane.max(axis=0))
    grown /= grown.sum(axis=0)
    return grown


def _peak_bytes() -> int:
    """Return the most memory that this process has held so far; 0 where the system doesn't say."""
    try:
        import resource
    except ModuleNotFoundError:
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


class _Bar:
    """A progress bar on a terminal; nothing elsewhere."""

    def __init__(self, title: str) -> None:
        self.title, self.total, self.done = title, 1, 0

    def step(self) -> None:
        """Count one window."""
        self.done += 1
        if sys.stderr.isatty():
            share = min(1.0, self.done / self.total)
            drawn = "#" * round(30 * share)
            print(f"\r{self.title} [{drawn:30}] {share:4.0%}", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Leave the line as it was before."""
        if sys.stderr.isatty():
            print("\r\033[K", end="", file=sys.stderr, flush=True)


def _require_folder(folder: Path) -> None:
    """Make the folder of masks, or refuse it before the work."""
    if folder.name.endswith(NIFTI):
        raise ValueError(f"--out {folder}: several volumes are written to a folder; name one")
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise ValueError(f"--out {folder}: can't be made ({error.strerror})") from error


def _require_writable(path: Path, files: tuple[Path, ...]) -> None:
    """Refuse an output before the work rather than after it."""
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
    what = "Segment volumes with the network in this folder."
    parser = argparse.ArgumentParser(prog="predict.py", description=what, allow_abbrev=False)
    add = parser.add_argument
    there = [form for form, file in forms.FILES.items() if (FOLDER / file).is_file()]
    add("inputs", type=Path, nargs="+", metavar="INPUT", help="volume, DICOM series, or folder of them")
    add("--channel", type=Path, action="append", default=[], metavar="FILE", help="a further channel's file")
    add("--out", type=Path, required=True, help="mask to write, .nii.gz or .nii; of several volumes a folder")
    add("--form", choices=there, default=there[0], help=f"form of the network to run (default: {there[0]})")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto: a GPU where there is one")
    add("--precision", choices=("auto", "float32", "float16"), default="auto", help="auto: float16 on a GPU")
    add("--threads", type=_threads, metavar="N", help="CPU threads (default: the library's choice)")
    add("--max-memory", type=_bytes, metavar="SIZE", help="most memory of this process, as 4GiB")
    add("--probabilities", action="store_true", help="also write each class's share, MASK_probabilities.nii.gz")
    add("--logits", type=Path, metavar="FOLDER", help="also save logits on the network's grid, .npy")
    return parser.parse_args(arguments)


def _threads(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")
    return int(text)


def _bytes(text: str) -> int:
    found = BYTES.fullmatch(text.strip())
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is no size such as 4GiB or 800MB")
    unit = found[2] or ""
    power = "KMGT".find(unit[:1]) + 1 if unit else 0
    return int(float(found[1]) * (1024 if unit.endswith("i") else 1000) ** power)


if __name__ == "__main__":
    sys.exit(main())
