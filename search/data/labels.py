"""A label file as whole numbers, and label values as class indices."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search.data.geometry import load_nifti


def read_label(path: str | Path) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Return the label values of a file, whole numbers (X, Y, Z), and its affine.

    Raises ValueError, naming the file, for what is no 3D volume of whole numbers.
    """
    image, values = load_nifti(Path(path))
    while values.ndim > 3 and values.shape[-1] == 1:
        values = values[..., 0]
    if values.ndim != 3:
        raise ValueError(f"{path}: has shape {values.shape}, but a label has 3 axes")
    if values.dtype.kind == "f":
        values = _whole(values, path)
    elif values.dtype.kind == "b":
        values = values.astype(np.uint8)
    return values, np.asarray(image.affine, dtype=np.float64)


def to_classes(values: NDArray[Any], label_values: Sequence[int]) -> NDArray[np.unsignedinteger[Any]]:
    """Return class indices, the places of the values in `label_values`; ValueError for any other.

    They are uint8, or uint16 where there are more than 256.
    """
    classes = {value: index for index, value in enumerate(label_values)}
    low, high = int(values.min()), int(values.max())
    if low >= 0 and high <= max(label_values):
        table = np.array([classes.get(value, -1) for value in range(high + 1)], dtype=np.int32)
        placed: NDArray[np.int32] = table[values]
        if placed.min() >= 0:
            return placed.astype(np.min_scalar_type(len(label_values) - 1))
    unknown = sorted(set(np.unique(values).tolist()) - set(classes))
    raise ValueError(f"label values {unknown} are none of {list(label_values)}")


def _whole(values: NDArray[Any], path: str | Path) -> NDArray[Any]:
    finite = np.isfinite(values)
    if not finite.all():
        raise ValueError(f"{path}: holds NaN or infinite values ({values.size - int(finite.sum())} voxels)")
    fractions = values[values != np.rint(values)]
    if fractions.size:
        raise ValueError(f"{path}: holds fractions ({fractions.size} voxels, such as {fractions[0]:g})")
    whole: NDArray[np.int64] = values.astype(np.int64)
    return whole
