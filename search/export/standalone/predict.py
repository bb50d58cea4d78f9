#!/usr/bin/env python3
"""Segment volumes with the network in this folder. Requires only the packages in requirements.txt.

predict.py IMAGE.nii.gz --out MASK.nii.gz
predict.py FOLDER --out FOLDER_OF_MASKS

An input is a NIfTI file (3D, or 4D with the channels last), a .mha, .mhd or .nrrd file (needs SimpleITK), a folder
with one DICOM series (needs pydicom), or a folder of these. Several channels are given as one 4D file, or as one file
each: with `FIRST --channel SECOND ...` in the order of preprocessing.json, or with nnU-Net's names, CASE_0000,
CASE_0001, ..., exactly one file per channel. Other volumes of a folder are left out. The mask has the image's grid and
affine and the data set's label values.

Exit codes: 0 success; 1 some inputs failed or were left out, each with a line on stderr, and the others were segmented;
2 all inputs failed or the command is invalid.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent
INSTALL = "install the packages in requirements.txt"
sys.path.insert(0, str(FOLDER))
try:
    import components  # type: ignore[import-not-found]  # files of this folder
    import forms  # type: ignore[import-not-found]
    import geometry  # type: ignore[import-not-found]
    import numpy as np
    import volume_files  # type: ignore[import-not-found]
    import volumes  # type: ignore[import-not-found]
    import windows  # type: ignore[import-not-found]
except ModuleNotFoundError as missing:
    print(f"predict.py: {missing}; {INSTALL}", file=sys.stderr)
    sys.exit(2)

NIFTI = (".nii.gz", ".nii")
BYTES = re.compile(r"([0-9.]+)\s*([KMGT]i?)?B?")
MAX_STRIPS = 64
COMPONENT_BYTES = 16  # per voxel, to find the largest component
FAULTS = (ValueError, OSError, MemoryError, RuntimeError, ModuleNotFoundError)


@dataclass(frozen=True)
class Task:
    """One volume and its output files."""

    case: Any
    mask: Path
    probabilities: Path | None
    logits: Path | None


def main(arguments: list[str] | None = None) -> int:
    """Segment all inputs; return the exit code."""
    options = _parse(arguments)
    try:
        settings = json.loads((FOLDER / "preprocessing.json").read_text(encoding="utf-8"))
        tasks, left = plan(options, channels=len(settings["channels"]))
        network, device = forms.load(
            options.form,
            device=options.device,
            precision=options.precision,
            threads=options.threads,
            verify=not options.no_verify,
        )
        network = windows.mirrored(network, settings["mirror"])
    except FAULTS as error:
        _report(error)
        return 2
    for message in left:
        _report(ValueError(message))
    failed = 0
    for number, task in enumerate(tasks, start=1):
        bar = _ProgressBar(f"{number}/{len(tasks)} {task.case.name}")
        try:
            print(segment(task, network, settings, options, bar) + f" on {device}")
        except FAULTS as error:
            bar.clear()
            failed += 1
            _report(error)
    return 2 if failed == len(tasks) else 1 if failed or left else 0


def _report(error: Exception) -> None:
    """Print an error as one line on stderr."""
    message = " ".join(str(error).split()) or type(error).__name__
    hint = f"; {INSTALL}" if isinstance(error, ModuleNotFoundError) else ""
    print(f"predict.py: {message}{hint}", file=sys.stderr)


def plan(options: argparse.Namespace, *, channels: int) -> tuple[list[Task], list[str]]:
    """Return the inputs with their output files, and messages on what is left out.

    Raises ValueError for invalid inputs or outputs.
    """
    if options.channel:
        if len(options.inputs) != 1:
            raise ValueError("--channel: give exactly one input image with --channel")
        case = volumes.Case(volume_files.stem_of(options.inputs[0]), (options.inputs[0], *options.channel))
        cases, left = [case], []
    else:
        cases, left = volumes.find_cases(options.inputs, channels=channels)
    names = [case.name for case in cases]
    twins = sorted({name for name in names if names.count(name) > 1})
    if twins:
        left.append(
            f"several inputs have the name {', '.join(twins)}: their masks would overwrite each other; left out"
        )
        cases = [case for case in cases if case.name not in twins]
    if not cases:
        raise ValueError("; ".join(left))
    one = len(cases) == 1 and options.out.name.endswith(NIFTI)
    for folder in (*([] if one else [options.out]), *([options.logits] if options.logits else [])):
        _require_folder(folder)
    tasks = []
    for case in cases:
        mask = options.out if one else options.out / f"{case.name}.nii.gz"
        stem = mask.name.removesuffix(".gz").removesuffix(".nii")
        probabilities = mask.with_name(f"{stem}_probabilities.nii.gz") if options.probabilities else None
        logits = options.logits / f"{case.name}.npy" if options.logits else None
        tasks.append(Task(case, mask, probabilities, logits))
        for path in filter(None, (mask, probabilities, logits)):
            _require_writable(path, case.files)
    return tasks, left


def segment(task: Task, network: Any, settings: dict[str, Any], options: argparse.Namespace, bar: _ProgressBar) -> str:
    """Read a volume, run the network and write the mask; return a one-line summary."""
    began = time.perf_counter()
    volume = volumes.read_case(task.case, settings["channels"])
    image, grid = geometry.to_grid(volume, geometry.Preprocessing.from_json(settings))
    read = time.perf_counter()
    classes, order = settings["outputs"], settings["order"]
    cuts = windows.cut(grid.shape, settings["patch"], settings["overlap"])
    strips = _strips(cuts, grid, classes=classes, settings=settings, options=options)
    labels = np.empty(grid.turned_shape, dtype=geometry.index_type(classes, order))
    probabilities = np.empty((classes, *grid.turned_shape), dtype=np.float32) if task.probabilities else None
    logits = np.empty((classes, *grid.shape), dtype=np.float32) if task.logits else None
    bar.total = cuts.count
    for strip in strips:
        slabs = windows.logit_slabs(network, image, cuts, strip.needed, done=bar.step)
        if logits is not None:
            slabs = _kept(slabs, logits, strip.needed)
        for number, plane in geometry.source_planes(slabs, grid, strip):
            labels[number, strip.rows] = geometry.labels_of(plane, order)
            if probabilities is not None:
                probabilities[:, number, strip.rows] = _sigmoid(plane) if order else _softmax(plane)
    bar.clear()
    ended = time.perf_counter()
    mask = components.keep_largest(geometry.turn_back(labels, grid), settings["keep_largest"])
    named = list(zip(settings["label_values"], settings["labels"], strict=True))
    volume_files.write_mask(task.mask, np.array(settings["label_values"], dtype=np.uint16)[mask], volume, named)
    if probabilities is not None:
        parts = np.stack([geometry.turn_back(part, grid) for part in probabilities], axis=-1)
        volume_files.save_like(task.probabilities, parts, volume)
    if task.logits and logits is not None:
        _save_array(task.logits, logits)
    sizes = np.bincount(mask.ravel(), minlength=len(named))[1:]
    counts = ", ".join(
        f"{_counted(size, 'voxel')} of {name}" for name, size in zip(settings["labels"][1:], sizes, strict=True)
    )
    seconds = f"{time.perf_counter() - began:.1f} s ({ended - read:.1f} s in {_counted(bar.done, 'window')})"
    return f"{task.mask}: {counts}; {seconds}; peak memory {_peak_bytes() / 2**20:.0f} MiB;"


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _strips(cuts: Any, grid: Any, *, classes: int, settings: dict[str, Any], options: argparse.Namespace) -> list[Any]:
    """Return as few strips as --max-memory allows. Raises ValueError if the maximum number of strips needs more."""
    if options.max_memory is None:
        return list(geometry.strips(grid, 1))
    source = int(np.prod(grid.source_shape))
    masks = 2 + (COMPONENT_BYTES if settings["keep_largest"] else 0)
    fixed = _peak_bytes() + settings["window_bytes"] + source * (masks + 8 * classes * options.probabilities)
    needed = 0
    for count in range(1, min(MAX_STRIPS, grid.turned_shape[1]) + 1):
        strips = geometry.strips(grid, count)
        rows = max(strip.needed.stop - strip.needed.start for strip in strips)
        planes = 4 * 4 * classes * (source // grid.turned_shape[0]) // count
        needed = fixed + windows.strip_bytes(cuts, classes=classes, rows=rows) + planes
        if needed <= options.max_memory:
            return list(strips)
    raise ValueError(f"--max-memory: this volume needs at least {math.ceil(needed / 2**20)} MiB")


def _kept(slabs: Iterator[Any], logits: np.ndarray[Any, Any], rows: slice) -> Iterator[Any]:
    for first, slab in slabs:
        logits[:, first : first + slab.shape[1], rows] = slab
        yield first, slab


def _softmax(plane: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    exponentials: np.ndarray[Any, Any] = np.exp(plane - plane.max(axis=0))
    exponentials /= exponentials.sum(axis=0)
    return exponentials


def _sigmoid(plane: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return the shares of regions, which may overlap."""
    return 0.5 * (1 + np.tanh(0.5 * plane))


def _peak_bytes() -> int:
    """Return the peak memory of this process so far; 0 if the system doesn't report it."""
    try:
        import resource
    except ModuleNotFoundError:
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


class _ProgressBar:
    """A progress bar, shown only on a terminal."""

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
        """Remove the bar from the line."""
        if sys.stderr.isatty():
            print("\r\033[K", end="", file=sys.stderr, flush=True)


def _require_folder(folder: Path) -> None:
    """Create an output folder. Raises ValueError if that fails, before any segmentation starts."""
    if folder.name.endswith(NIFTI):
        raise ValueError(f"--out {folder}: several masks need a folder, not a file name")
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise ValueError(f"--out {folder}: can't be created ({error.strerror})") from error


def _require_writable(path: Path, files: tuple[Path, ...]) -> None:
    """Raise ValueError if an output can't be written, before any segmentation starts."""
    if not path.parent.is_dir():
        raise ValueError(f"{path}: can't be written: the folder {path.parent} doesn't exist")
    if path.is_dir():
        raise ValueError(f"{path}: can't be written: it is a folder")
    if not os.access(path.parent, os.W_OK):
        raise ValueError(f"{path}: can't be written: {path.parent} is read-only")
    if path.resolve() in [file.resolve() for file in files]:
        raise ValueError(f"{path}: can't be written: it is the input image")


def _save_array(path: Path, array: np.ndarray[Any, Any]) -> None:
    """Write an array atomically."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            np.save(file, array)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    description = "Segment volumes with the network in this folder."
    parser = argparse.ArgumentParser(prog="predict.py", description=description, allow_abbrev=False)
    add = parser.add_argument
    found = [form for form, file in forms.FILES.items() if (FOLDER / file).is_file()]
    more = "file of a further channel; repeat in the order of preprocessing.json"
    add("inputs", type=Path, nargs="+", metavar="INPUT", help="volume, DICOM series, or a folder of these")
    add("--channel", type=Path, action="append", default=[], metavar="FILE", help=more)
    add("--out", type=Path, required=True, help="mask to write (.nii.gz or .nii), or a folder for several masks")
    add("--form", choices=found, default=found[0], help=f"form of the network (default: {found[0]})")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto: a GPU if available, else the CPU")
    add("--precision", choices=("auto", "float32", "float16"), default="auto", help="auto: float16 only on a GPU")
    add("--threads", type=_threads, metavar="N", help="number of CPU threads (default: the library's)")
    add("--max-memory", type=_bytes, metavar="SIZE", help="memory limit of this process, for example 4GiB")
    add("--probabilities", action="store_true", help="also write class probabilities, MASK_probabilities.nii.gz")
    add("--no-verify", action="store_true", help="load files that differ from the model card, or without a card")
    add("--logits", type=Path, metavar="FOLDER", help="also save the logits on the network's grid, as .npy")
    return parser.parse_args(arguments)


def _threads(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive integer")
    return int(text)


def _bytes(text: str) -> int:
    found = BYTES.fullmatch(text.strip())
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size; examples: 4GiB, 800MB")
    unit = found[2] or ""
    power = "KMGT".find(unit[:1]) + 1 if unit else 0
    return int(float(found[1]) * (1024 if unit.endswith("i") else 1000) ** power)


if __name__ == "__main__":
    sys.exit(main())
