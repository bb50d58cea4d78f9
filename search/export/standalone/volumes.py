"""Finds and reads the input volumes: NIfTI, .mha and .nrrd (with SimpleITK), DICOM series (with pydicom)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import volume_files  # type: ignore[import-not-found]  # a file of this folder

CHANNEL = re.compile(r"(.+)_(\d{4})")
DICOM_TAG = b"DICM"  # after a preamble of 128 bytes
SPACING_TOLERANCE = 0.1  # allowed deviation of a slice distance, relative to the mean distance


@dataclass(frozen=True)
class Case:
    """One volume: its name, and its one file or one file per channel (for a DICOM series, its folder)."""

    name: str
    files: tuple[Path, ...]


def find_cases(inputs: list[Path], *, channels: int) -> tuple[list[Case], list[str]]:
    """Return the volumes in files and folders, and a message on each volume that belongs to no case.

    A folder is a DICOM series, or contains volumes (or folders of series). A case is one volume with all channels, or
    one volume per channel with nnU-Net's names: CASE_0000, CASE_0001, ..., each number below `channels` exactly once.
    Raises ValueError if a folder contains no volumes.
    """
    cases: list[Case] = []
    left: list[str] = []
    for path in inputs:
        if path.is_dir() and not is_series(path):
            volumes = _volumes(path)
            if not volumes:
                raise ValueError(f"{path}: contains no volumes ({', '.join(volume_files.SUFFIXES)}, or DICOM series)")
            found, others = _grouped(volumes, channels)
        else:
            found, others = _one(path, channels)
        cases += found
        left += others
    return cases, left


def _volumes(folder: Path) -> list[Path]:
    entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    return [
        each
        for each in entries
        if (each.is_file() and volume_files.suffix_of(each)) or (each.is_dir() and is_series(each))
    ]


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


def _wrong_channels(case: Path, numbers: list[int], channels: int) -> str:
    found, wanted = (", ".join(f"{number:04d}" for number in each) for each in (numbers, range(channels)))
    return f"{case}: has the channels {found}, but the network takes {wanted}; left out"


def _one(path: Path, channels: int) -> tuple[list[Case], list[str]]:
    """Return the case of one file, with its further channels by nnU-Net's names."""
    suffix, stem = path.name[len(volume_files.stem_of(path)) :], volume_files.stem_of(path)
    if not path.exists() and path.with_name(f"{stem}_0000{suffix}").exists():
        path, stem = path.with_name(f"{stem}_0000{suffix}"), f"{stem}_0000"
    name = stem.removesuffix("_0000")
    if channels == 1 or name == stem or channels_in(path) == channels:
        return [Case(name if channels == 1 else stem, (path,))], []
    siblings = [
        each
        for each in _volumes(path.parent)
        if (match := CHANNEL.fullmatch(volume_files.stem_of(each))) and match[1] == name
    ]
    return _grouped(
        [each for each in siblings if volume_files.suffix_of(each) == volume_files.suffix_of(path)], channels
    )


def channels_in(path: Path) -> int | None:
    """Return the number of channels that a volume's header states; None if it can't be read."""
    try:
        if path.is_dir():
            return 1
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


def is_series(folder: Path) -> bool:
    """Return whether a folder contains DICOM slices."""
    return any(_is_dicom(entry) for entry in sorted(folder.iterdir())[:3] if entry.is_file())


def _is_dicom(path: Path) -> bool:
    if volume_files.suffix_of(path):
        return False
    with path.open("rb") as file:
        return path.suffix.lower() == ".dcm" or file.read(132)[128:] == DICOM_TAG


def read_case(case: Case, channels: list[str]) -> Any:
    """Return a case as a volume_files.Volume with these channels. Raises ValueError with the file and the reason."""
    volume = _read(case)
    if (count := len(volume.data)) != len(channels):
        found = f"{count} channel{'' if count == 1 else 's'}"
        expected = f"{len(channels)} ({', '.join(channels)})"
        raise ValueError(f"{volume.name}: has {found}, but the network takes {expected}")
    return volume


def _read(case: Case) -> Any:
    if len(case.files) != 1 or not case.files[0].is_dir():
        return volume_files.read_volume(case.files)
    folder = case.files[0]
    try:
        return _read_dicom(folder)
    except ModuleNotFoundError as error:
        raise ValueError(f"{folder}: needs the package {error.name}: pip install {error.name}") from error
    except ValueError:
        raise
    except Exception as error:  # pydicom has no common error class for a damaged file
        raise ValueError(
            f"{folder}: cannot be read ({type(error).__name__}: {' '.join(str(error).split())})"
        ) from error


def _read_dicom(folder: Path) -> Any:
    import pydicom

    read = [pydicom.dcmread(entry) for entry in sorted(folder.iterdir()) if entry.is_file() and _is_dicom(entry)]
    slices = [each for each in read if "PixelData" in each and "ImagePositionPatient" in each]
    if len({each.SeriesInstanceUID for each in slices}) != 1:
        raise ValueError(f"{folder}: contains {len({each.SeriesInstanceUID for each in slices})} DICOM series, not 1")
    across, down = np.reshape(np.array(slices[0].ImageOrientationPatient, dtype=float), (2, 3))
    normal = np.cross(across, down)
    slices.sort(key=lambda each: float(np.dot(normal, np.array(each.ImagePositionPatient, dtype=float))))
    positions = np.array([each.ImagePositionPatient for each in slices], dtype=float)
    steps = np.diff(positions, axis=0)
    step = steps.mean(axis=0) if len(steps) else normal * float(slices[0].get("SliceThickness", 1.0))
    if len(steps) and np.linalg.norm(steps - step, axis=1).max() > SPACING_TOLERANCE * np.linalg.norm(step):
        raise ValueError(f"{folder}: the slices are not evenly spaced; a slice may be missing")
    rows = [
        each.pixel_array * float(each.get("RescaleSlope", 1)) + float(each.get("RescaleIntercept", 0))
        for each in slices
    ]  # (rows, columns) each
    affine = np.eye(4)
    between_rows, between_columns = (float(value) for value in slices[0].PixelSpacing)
    affine[:3, :3] = np.stack([across * between_columns, down * between_rows, step], axis=1)
    affine[:3, 3] = positions[0]
    affine = volume_files.LPS_TO_RAS @ affine
    data = np.stack(rows, axis=-1).transpose(1, 0, 2)[None]
    return volume_files.volume_of(data, affine, volume_files.nifti_header(data.shape[1:], affine), folder)
