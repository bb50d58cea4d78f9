"""Finds the volumes in files and folders, and reads them: NIfTI, .mha and .nrrd (with SimpleITK), DICOM series."""

from __future__ import annotations

import os
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import series  # type: ignore[import-not-found]  # files of this folder
import volume_files  # type: ignore[import-not-found]

CHANNEL = re.compile(r"(.+)_([0-9]{4})", re.DOTALL)


@dataclass(frozen=True)
class Case:
    """One volume: its name, and its one file or one file per channel (for a DICOM series, its folder)."""

    name: str
    files: tuple[Path, ...]


def find_cases(inputs: list[Path], *, channels: int, outputs: tuple[Path, ...] = ()) -> tuple[list[Case], list[str]]:
    """Return the volumes in files and folders, and a message on each volume that belongs to no case.

    A folder is a DICOM series, or contains volumes (or folders of series). A case is one volume with all channels, or
    one volume per channel with nnU-Net's names: CASE_0000, CASE_0001, ..., each number below `channels` exactly once.
    `outputs` are no inputs, even if they are in an input folder. Raises ValueError if a folder contains no volumes.
    """
    cases: list[Case] = []
    left: list[str] = []
    for path in inputs:
        if not os.path.isdir(path):  # unlike Path.is_dir, never raises
            found, others = _one(path, channels)
        elif series.is_series(path):
            found, others = [_series(path)], _beside(path, outputs)
        else:
            volumes, others = _volumes(path, outputs)
            if not volumes:
                suffixes = ", ".join(volume_files.SUFFIXES)
                none = f"{path}: contains no volumes ({suffixes}, or DICOM series)"
                raise ValueError("; ".join([none, *others[:3]]))
            found, wrong = _grouped(volumes, channels)
            others += wrong
        cases += found
        left += others
    return cases, left


def _series(folder: Path) -> Case:
    return Case(volume_files.stem_of(os.path.abspath(folder)), (folder,))  # `.` has no name of its own


def _beside(folder: Path, outputs: tuple[Path, ...]) -> list[str]:
    """Return a message on each volume in the folder of a DICOM series."""
    if not series.can_list(folder):
        return []
    others = [each for each in series.entries(folder) if volume_files.suffix_of(each) and not _is_one_of(each, outputs)]
    return [f"{each}: is in the folder of a DICOM series; left out" for each in others]


def _volumes(folder: Path, outputs: tuple[Path, ...]) -> tuple[list[Path], list[str]]:
    """Return the volumes of a folder, and messages on other volumes inside it.

    Whatever has the name of a volume is one, also a link that leads nowhere: reading it reports the fault.
    """
    volumes: list[Path] = []
    left: list[str] = []
    for entry in series.entries(folder):
        if _is_one_of(entry, outputs):
            continue
        if entry.is_dir() and series.is_series(entry):
            volumes.append(entry)
            left += _beside(entry, outputs)
        elif volume_files.suffix_of(entry):
            volumes.append(entry)
        elif entry.is_dir() and any(volume_files.suffix_of(each) or each.is_dir() for each in series.entries(entry)):
            left.append(f"{entry}: is a folder inside an input folder and no DICOM series; left out")
        elif entry.is_file() and series.is_slice(entry):
            left.append(f"{entry}: is a DICOM file or unreadable, among other volumes; left out")
    return volumes, left


def _is_one_of(path: Path, others: tuple[Path, ...]) -> bool:
    return os.path.realpath(path) in map(os.path.realpath, others)


def _grouped(volumes: list[Path], channels: int) -> tuple[list[Case], list[str]]:
    """Return the cases that the volumes of one folder make, and a message on each of the others."""
    cases: list[Case] = []
    left: list[str] = []
    groups: dict[str, list[tuple[int, Path]]] = {}
    for path in volumes:
        match = CHANNEL.fullmatch(volume_files.stem_of(path))
        held = None if channels == 1 else channels_in(path)
        if match and (channels == 1 or held != channels):
            groups.setdefault(match[1], []).append((int(match[2]), path))
        elif held == 1:
            left.append(f"{path}: has 1 channel and no name like CASE_0000, but the network takes {channels}; left out")
        else:
            cases.append(Case(volume_files.stem_of(path), (path,)))
    for name, numbered in groups.items():
        numbers = sorted(number for number, _ in numbered)
        files = tuple(path for _, path in sorted(numbered))
        if numbers == list(range(channels)):
            cases.append(Case(name, files))
        elif channels == 1:  # four digits that number patients
            cases += [Case(volume_files.stem_of(path), (path,)) for path in files]
        else:
            left.append(_wrong_channels(files[0].parent / name, numbers, channels))
    return sorted(cases, key=lambda case: case.name), left


def sharing(outputs: list[tuple[Case, list[str]]]) -> tuple[set[Case], list[str]]:
    """Return the cases that would write to the same file as another one, and a message on each such file.

    Files are compared as file systems do that ignore case and how accents are composed.
    """
    writers: dict[str, list[Case]] = {}
    for case, paths in outputs:
        for path in paths:
            writers.setdefault(unicodedata.normalize("NFC", path).casefold(), []).append(case)
    groups = [cases for cases in writers.values() if len(cases) > 1]
    named = dict.fromkeys(", ".join(str(case.files[0]) for case in group) for group in groups)
    messages = [f"{files}: have the same output file (case is ignored); rename one; left out" for files in named]
    return {case for group in groups for case in group}, messages


def _wrong_channels(case: Path, numbers: list[int], channels: int) -> str:
    found, wanted = (", ".join(f"{number:04d}" for number in each) for each in (numbers, range(channels)))
    return f"{case}: has the channels {found}, but the network takes {wanted}; left out"


def _one(path: Path, channels: int) -> tuple[list[Case], list[str]]:
    """Return the case of one file, with its further channels by nnU-Net's names."""
    suffix, stem = volume_files.suffix_of(path), volume_files.stem_of(path)
    if not os.path.exists(path) and os.path.exists(path.with_name(f"{stem}_0000{suffix}")):
        path, stem = path.with_name(f"{stem}_0000{suffix}"), f"{stem}_0000"
    name = stem.removesuffix("_0000")
    if channels == 1 or name == stem or volume_files.why_no_file(path) or channels_in(path) == channels:
        return [Case(name if channels == 1 else stem, (path,))], []
    siblings = [
        each
        for each in sorted(path.parent.iterdir())
        if (match := CHANNEL.fullmatch(volume_files.stem_of(each)))
        and (match[1], volume_files.suffix_of(each)) == (name, suffix)
    ]
    return _grouped(siblings, channels)


def channels_in(path: Path) -> int | None:
    """Return the number of channels that a volume's header states; None if it can't be read."""
    try:
        if path.is_dir():
            return 1 if series.is_series(path) else None
        if volume_files.why_no_file(path):  # opening a pipe would wait for ever
            return None
        if volume_files.suffix_of(path).lower() in volume_files.NIFTI:
            shape = nibabel.load(path).shape  # (X, Y, Z), (X, Y, Z, C) or (X, Y, Z, 1, C)
            return int(shape[-1]) if len(shape) > 3 else 1
        import SimpleITK

        reader = SimpleITK.ImageFileReader()
        reader.SetFileName(str(path))
        reader.ReadImageInformation()
        return int(reader.GetNumberOfComponents())
    except Exception:  # the readers have no common error class; reading the case reports the fault
        return None


def read_case(case: Case, channels: list[str]) -> Any:
    """Return a case as a volume_files.Volume with these channels. Raises ValueError with the file and the reason."""
    volume = _read(case)
    if (count := len(volume.data)) != len(channels):
        found = f"{count} channel{'' if count == 1 else 's'}"
        expected = f"{len(channels)} ({', '.join(channels)})"
        raise ValueError(f"{volume.name}: has {found}, but the network takes {expected}")
    return volume


def _read(case: Case) -> Any:
    first = case.files[0]
    if len(case.files) == 1 and os.path.isdir(first) and series.is_series(first):
        return series.read_series(first)
    return volume_files.read_volume(case.files)
