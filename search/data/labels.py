"""Read label files as integers, and convert label values to class indices."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search.data.volume_files import read_values

HIGHEST = 2**53  # up to which a float holds every integer
ROUNDING = 1e-4  # largest rounding error of labels that are scaled by a header's float32 slope


def read_label(path: str | Path) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Return the integer label values of a file, (X, Y, Z), and its affine.

    Values within `ROUNDING` of an integer are rounded. Raises ValueError, naming the file, unless it is a 3D volume of
    integers.
    """
    values, affine, _ = read_values(Path(path))
    while values.ndim > 3 and values.shape[-1] == 1:
        values = values[..., 0]
    if values.ndim != 3:
        raise ValueError(f"{path}: has shape {values.shape}, but a label must have 3 axes")
    if values.dtype.kind == "f":
        values = _whole(values, path)
    elif values.dtype.kind == "b":
        values = values.astype(np.uint8)
    return values, affine


def to_classes(values: NDArray[Any], label_values: Sequence[int]) -> NDArray[np.unsignedinteger[Any]]:
    """Map each value to its class, the index in `label_values`; raises ValueError for unknown values.

    The result is uint8, or uint16 for more than 256 classes.
    """
    classes = {value: index for index, value in enumerate(label_values)}
    low, high = int(values.min()), int(values.max())
    if low >= 0 and high <= max(label_values):
        table = np.array([classes.get(value, -1) for value in range(high + 1)], dtype=np.int32)
        indices: NDArray[np.int32] = table[values]
        if indices.min() >= 0:
            return indices.astype(np.min_scalar_type(len(label_values) - 1))
    unknown = sorted(set(np.unique(values).tolist()) - set(classes))
    raise ValueError(f"unknown label values {unknown}, expected values from {list(label_values)}")


def _whole(values: NDArray[Any], path: str | Path) -> NDArray[Any]:
    finite = np.isfinite(values)
    if not finite.all():
        raise ValueError(f"{path}: contains NaN or infinite values ({values.size - int(finite.sum())} voxels)")
    rounded = np.rint(values)
    fractions = values[np.abs(values - rounded) > ROUNDING]
    if fractions.size:
        raise ValueError(f"{path}: contains non-integer values ({fractions.size} voxels, such as {fractions[0]:g})")
    highest = np.abs(rounded).max(initial=0.0)
    if highest > HIGHEST:
        raise ValueError(f"{path}: contains the value {highest:g}, which is too large for a label")
    whole: NDArray[np.int64] = rounded.astype(np.int64)
    return whole
