"""Recognises and reads folders with one DICOM series (with pydicom)."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import Any

import numpy as np
import volume_files  # type: ignore[import-not-found]  # a file of this folder

TAG = b"DICM"  # after a preamble of 128 bytes
SPACING_TOLERANCE = 0.1  # allowed deviation of a slice distance, relative to the mean distance
SAME_IN_ALL_SLICES, SAME_TOLERANCE = ("Rows", "Columns", "ImageOrientationPatient", "PixelSpacing"), 1e-3


def entries(folder: Path) -> list[Path]:
    """Return what is in a folder, sorted, without hidden files."""
    return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))


def can_list(folder: Path) -> bool:
    """Return whether this user may list a folder and open its files."""
    return bool(volume_files.may(folder, os.R_OK | os.X_OK))


def is_series(folder: Path) -> bool:
    """Return whether a folder contains more DICOM slices than other volumes.

    Also for a folder that can't be listed: reading the series reports that.
    """
    if not can_list(folder):
        return True
    files = [entry for entry in entries(folder) if entry.is_file()]
    volumes = sum(bool(volume_files.suffix_of(file)) for file in files)
    return sum(1 for _ in itertools.islice(filter(is_slice, files), volumes + 1)) > volumes


def is_slice(file: Path) -> bool:
    """Return whether a file is a DICOM file; also for one that can't be read, as reading the series reports that."""
    if volume_files.suffix_of(file):
        return False
    if file.suffix.lower() == ".dcm":
        return True
    try:
        with file.open("rb") as opened:
            return opened.read(132)[128:] == TAG
    except OSError:
        return True


def read_series(folder: Path) -> Any:
    """Return a series as a volume_files.Volume. Raises ValueError with the folder or file and the reason."""
    try:
        return _volume(folder, _slices(folder))
    except ModuleNotFoundError as error:
        raise ValueError(f"{folder}: needs the package {error.name}: pip install {error.name}") from error
    except ValueError as error:
        if str(folder) in str(error):
            raise
        raise ValueError(f"{folder}: {error}") from error
    except Exception as error:  # pydicom has no common error class for a damaged file
        raise ValueError(f"{folder}: cannot be read ({type(error).__name__}: {error})") from error


def _slices(folder: Path) -> list[Any]:
    """Return the slices of a series in any order. Raises ValueError if they are not those of one volume."""
    files = [entry for entry in entries(folder) if entry.is_file() and is_slice(entry)]
    read = [(file, _dicom(file)) for file in files]
    slices = [each for _, each in read if _is_complete(each)]
    kinds = {_kind(each) for each in slices}
    for file, each in read:
        if _kind(each) in kinds and not _is_complete(each):
            raise ValueError(f"{file}: is an incomplete slice")
    series = {(each.get("PatientID"), each.SeriesInstanceUID) for each in slices}
    if len(series) != 1:
        raise ValueError(f"{folder}: contains {len(series)} DICOM series, not 1")
    for keyword in SAME_IN_ALL_SLICES:
        values = [each.get(keyword) for each in slices]
        if None in values:
            raise ValueError(f"{folder}: {values.count(None)} of {len(slices)} slices have no {keyword}")
        if np.ptp(np.array(values, dtype=float), axis=0).max() > SAME_TOLERANCE:
            raise ValueError(f"{folder}: the slices differ in {keyword}, so they are not one volume")
    if any(each.get("SamplesPerPixel", 1) != 1 or int(each.get("NumberOfFrames") or 1) != 1 for each in slices):
        raise ValueError(f"{folder}: a slice must be one image with one value per pixel")
    return slices


def _dicom(file: Path) -> Any:
    import pydicom

    try:
        return pydicom.dcmread(file)
    except Exception as error:  # pydicom has no common error class for a damaged file
        raise ValueError(f"{file}: cannot be read ({type(error).__name__}: {error})") from error


def _is_complete(read: Any) -> bool:
    return "PixelData" in read and "ImagePositionPatient" in read


def _kind(read: Any) -> Any:
    """Return the kind of a DICOM object (CT image, report, ...)."""
    return read.file_meta.get("MediaStorageSOPClassUID")


def _volume(folder: Path, slices: list[Any]) -> Any:
    across, down = np.reshape(np.array(slices[0].ImageOrientationPatient, dtype=float), (2, 3))
    normal = np.cross(across, down)
    slices.sort(key=lambda each: float(np.dot(normal, np.array(each.ImagePositionPatient, dtype=float))))
    positions = np.array([each.ImagePositionPatient for each in slices], dtype=float)
    steps = np.diff(positions, axis=0)
    step = steps.mean(axis=0) if len(steps) else normal * float(slices[0].get("SliceThickness", 1.0))
    if len(steps) and np.linalg.norm(steps - step, axis=1).max() > SPACING_TOLERANCE * np.linalg.norm(step):
        raise ValueError(f"{folder}: the slices are not evenly spaced; a slice may be missing")
    affine = np.eye(4)
    between_rows, between_columns = (float(value) for value in slices[0].PixelSpacing)
    affine[:3, :3] = np.stack([across * between_columns, down * between_rows, step], axis=1)
    affine[:3, 3] = positions[0]
    affine = volume_files.LPS_TO_RAS @ affine
    volume_files.refuse_affine(affine, folder)
    rows = [
        each.pixel_array * float(each.get("RescaleSlope", 1)) + float(each.get("RescaleIntercept", 0))
        for each in slices
    ]  # (rows, columns) each
    data = np.stack(rows, axis=-1).transpose(1, 0, 2)[None]
    return volume_files.volume_of(data, affine, volume_files.nifti_header(data.shape[1:], affine), folder)
