#!/usr/bin/env python3
"""Segment volumes with the network in this folder. Requires only the packages in requirements.txt.

predict.py IMAGE.nii.gz --out MASK.nii.gz
predict.py FOLDER --out FOLDER_OF_MASKS

An input is a NIfTI file (3D, or 4D with the channels last), a .mha, .mhd or .nrrd file (needs SimpleITK), a folder
with one DICOM series (needs pydicom), or a folder of these. Several channels are given as one 4D file, or as one file
each: with `FIRST --channel SECOND ...` in the order of preprocessing.json, or with nnU-Net's names, CASE_0000,
CASE_0001, ..., exactly one file per channel. Other volumes of a folder are left out. The mask has the image's grid and
affine and the data set's label values. It replaces an earlier file of its name when it is complete.

Exit codes: 0 success; 1 some inputs failed or were left out, each with a line on stderr, and the others were segmented,
or the machine failed (a full disk, too little memory); 2 no input could be used, or the command is invalid.
"""

from __future__ import annotations

import argparse
import errno
import math
import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent
INSTALL = "install the packages in requirements.txt"
if sys.version_info < (3, 11):  # noqa: UP036  # whoever runs this may have any
    print("predict.py: needs Python 3.11 or later", file=sys.stderr)
    sys.exit(2)
sys.path.insert(0, str(FOLDER))
try:
    import components  # type: ignore[import-not-found]  # files of this folder
    import forms  # type: ignore[import-not-found]
    import geometry  # type: ignore[import-not-found]
    import numpy as np
    import planning  # type: ignore[import-not-found]
    import preprocessing  # type: ignore[import-not-found]
    import volume_files  # type: ignore[import-not-found]
    import volumes  # type: ignore[import-not-found]
    import windows  # type: ignore[import-not-found]
except ImportError as missing:
    print(f"predict.py: {missing}; {INSTALL}, and copy the folder whole", file=sys.stderr)
    sys.exit(2)

BYTES = re.compile(r"([0-9]{1,15}(?:\.[0-9]+)?)\s*([KMGT]i?)?B?")
MAX_THREADS = 1024
MAX_STRIPS = 64
COMPONENT_BYTES = 16  # per voxel, to find the largest component
MISTAKES = (ValueError, ImportError)  # of the user; other errors are the machine's, except those of a path
PATH_MISTAKES = {
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.EISDIR, errno.ENOTDIR),
    *(errno.ENAMETOOLONG, errno.ELOOP),
}


def main(arguments: list[str] | None = None) -> int:
    """Segment all inputs; return the exit code."""
    options = _parse(arguments)
    try:
        if not options.no_verify:
            forms.require_unchanged(options.form)
        settings = preprocessing.read_settings(FOLDER / forms.SETTINGS)
        tasks, left = planning.plan(options, channels=len(settings["channels"]))
        for message in left:
            _report(message)
        if not tasks:
            return 2
        network, device = forms.load(
            options.form, device=options.device, precision=options.precision, threads=options.threads
        )
        network = windows.mirrored(network, settings["mirror"])
    except Exception as error:  # torch, onnxruntime and the readers have no common error class
        return _report_error(error)
    codes, lost = [], 0
    for number, task in enumerate(tasks, start=1):
        bar = _ProgressBar(f"{number}/{len(tasks)} {task.case.name}")
        try:
            done = segment(task, network, settings, options, bar)
        except Exception as error:  # the other cases are segmented
            bar.clear()
            codes.append(_report_error(error, task.case.files[0]))
        else:
            lost |= _print(f"{done} on {device}")
    return min(codes) if len(codes) == len(tasks) else 1 if codes or left or lost else 0


def _report_error(error: Exception, file: Path | None = None) -> int:
    """Report an error, with the file that was segmented; return the exit code: 2 for a user's mistake, else 1."""
    is_mistake = isinstance(error, MISTAKES) or (isinstance(error, OSError) and error.errno in PATH_MISTAKES)
    message = str(error)
    if isinstance(error, OSError) and error.strerror:
        message = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    elif not is_mistake or not message:
        message = ": ".join(filter(None, (type(error).__name__, message)))
    if file and str(file) not in message:
        message = f"{file}: {message}"
    _report(f"{message}; {INSTALL}" if isinstance(error, ImportError) else message)
    return 2 if is_mistake else 1


def _report(message: str) -> None:
    print(f"predict.py: {_one_line(message)}", file=sys.stderr)


def _print(text: str) -> int:
    """Print a line; return 1 if a full disk or a closed pipe prevents that, which does not stop the segmentation."""
    try:
        print(_one_line(text), flush=True)
    except OSError as error:
        _report(f"standard output: {error.strerror}")
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # also for what it still holds
        return 1
    return 0


def _one_line(text: str) -> str:
    """Return a text as one line, in which control characters and undecodable bytes of file names are escaped."""
    line = " ".join(text.split())
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in line)


def segment(task: Any, network: Any, settings: dict[str, Any], options: argparse.Namespace, bar: _ProgressBar) -> str:
    """Read a volume, run the network and write the mask; return a one-line summary."""
    began = time.perf_counter()
    volume = volumes.read_case(task.case, settings["channels"])
    for path in task.outputs:
        path.parent.mkdir(exist_ok=True)
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
    if probabilities is not None:
        parts = np.stack([geometry.turn_back(part, grid) for part in probabilities], axis=-1)
        volume_files.save_like(task.probabilities, parts, volume)
    if logits is not None:
        volume_files.replace_file(task.logits, lambda part: np.save(part, logits), suffix=".npy")
    values = np.array(settings["label_values"], dtype=np.uint16)[mask]
    volume_files.write_mask(task.mask, values, volume, named)  # last: where there is a mask, there is all
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


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    description = "Segment volumes with the network in this folder."
    parser = argparse.ArgumentParser(prog="predict.py", description=description, allow_abbrev=False)
    add = parser.add_argument
    if not (found := forms.available()):
        parser.error(f"none of {', '.join(forms.FILES.values())} is in {FOLDER}; get a fresh copy of the folder")
    more = "file of a further channel; repeat in the order of preprocessing.json"
    add("inputs", type=_path, nargs="+", metavar="INPUT", help="volume, DICOM series, or a folder of these")
    add("--channel", type=_path, action="append", default=[], metavar="FILE", help=more)
    add("--out", type=_path, required=True, help="mask to write (.nii.gz or .nii), or a folder for several masks")
    add("--form", choices=found, default=found[0], help=f"form of the network (default: {found[0]})")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto: a GPU if available, else the CPU")
    add("--precision", choices=("auto", "float32", "float16"), default="auto", help="auto: float16 only on a GPU")
    add("--threads", type=_threads, metavar="N", help="number of CPU threads (default: the library's)")
    add("--max-memory", type=_bytes, metavar="SIZE", help="memory limit of this process, for example 4GiB")
    add("--probabilities", action="store_true", help="also write class probabilities, MASK_probabilities.nii.gz")
    add("--no-verify", action="store_true", help="load files that differ from the model card, or without a card")
    add("--logits", type=_path, metavar="FOLDER", help="also save the logits on the network's grid, as .npy")
    return parser.parse_args(arguments)


def _path(text: str) -> Path:
    if not text:
        raise argparse.ArgumentTypeError("is empty; give a path")  # Path("") would be the working folder
    return Path(text)


def _threads(text: str) -> int:
    if not re.fullmatch("[0-9]{1,4}", text) or not 1 <= int(text) <= MAX_THREADS:
        raise argparse.ArgumentTypeError(f"{text!r} is not an integer from 1 to {MAX_THREADS}")
    return int(text)


def _bytes(text: str) -> int:
    found = BYTES.fullmatch(text.strip())
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size; examples: 4GiB, 800MB")
    unit = found[2] or ""
    power = "KMGT".find(unit[:1]) + 1 if unit else 0
    return int(float(found[1]) * (1024 if unit.endswith("i") else 1000) ** power)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # removes the temporary file
    if sys.stdout:
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # names in any alphabet
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        _report("interrupted")
        sys.exit(130)
