"""A prepared data set: its metadata, and its arrays as memory maps.

The folder `cases` contains, per case, `NAME.image.npy` float32 (C, D, H, W), `NAME.label.npy` uint8 (D, H, W),
`NAME.foreground.npy` int32 (N, 4) with class, d, h, w of sampled voxels, `NAME.truth.npy` uint8 (X, Y, Z)
if the label was resampled, and `NAME.json`, written last. `prepared.json` is written once all cases are
complete. The JSON files hold the SHA-256 of the arrays and of themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search.data.checked_files import read_json
from search.data.geometry import Grid, Preprocessing, Triple, turn_back
from search.data.labelling import Labelling

FORMAT = 2  # version of the prepared arrays; a new number prepares them again


@dataclass(frozen=True)
class PreparedCase:
    """One case on the network grid; `voxels_per_class` counts voxels of this grid, by class index."""

    name: str
    group: str
    shape: Triple
    voxels_per_class: tuple[int, ...]
    grid: Grid


@dataclass(frozen=True)
class Prepared:
    """A prepared data set: its metadata and the folder with the arrays."""

    folder: str
    name: str
    channels: tuple[str, ...]
    labels: tuple[str, ...]
    label_values: tuple[int, ...]
    licence: str
    preprocessing: Preprocessing
    cases: tuple[PreparedCase, ...]
    regions: tuple[tuple[int, ...], ...] = ()
    order: tuple[int, ...] = ()
    ignore: int | None = None

    @property
    def labelling(self) -> Labelling:
        """The meaning of the arrays' class indices."""
        return Labelling(self.labels, self.label_values, self.regions, self.order, self.ignore)

    @property
    def groups(self) -> dict[str, str]:
        """The group of each case, by case name."""
        return {case.name: case.group for case in self.cases}

    @property
    def shape_median(self) -> Triple:
        """Median size (D, H, W) on the network grid."""
        depth, height, width = np.median([case.shape for case in self.cases], axis=0).astype(int).tolist()
        return depth, height, width

    def case(self, name: str) -> PreparedCase:
        """Return the case with this name, which must exist."""
        return next(case for case in self.cases if case.name == name)


def load_prepared(folder: str | Path) -> Prepared:
    """Read a prepared folder, even if it was moved; raises ValueError if it is invalid or incomplete."""
    file = Path(folder) / "prepared.json"
    if not file.is_file():
        raise ValueError(f"{folder}: is not a complete prepared data set (prepared.json is missing)")
    values = read_json(file)
    if values["format"] != FORMAT:
        raise ValueError(f"{file}: has format {values['format']}, but this version reads format {FORMAT}")
    return Prepared(
        folder=str(file.parent),
        name=values["name"],
        channels=tuple(values["channels"]),
        labels=tuple(values["labels"]),
        label_values=tuple(values["label_values"]),
        licence=values["licence"],
        preprocessing=Preprocessing.from_json(values["preprocessing"]),
        cases=tuple(case_from_json(case) for case in values["cases"]),
        regions=tuple(tuple(each) for each in values.get("regions", ())),
        order=tuple(values.get("order", ())),
        ignore=values.get("ignore"),
    )


def open_case(prepared: Prepared, name: str) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Return the image (C, D, H, W) and label (D, H, W) of a case as read-only memory maps."""
    image: NDArray[np.float32] = np.load(case_file(prepared.folder, name, "image.npy"), mmap_mode="r")
    label: NDArray[np.uint8] = np.load(case_file(prepared.folder, name, "label.npy"), mmap_mode="r")
    return image, label


def open_truth(prepared: Prepared, name: str) -> tuple[NDArray[np.uint8], Grid]:
    """Return class indices on the source grid, (X, Y, Z), and the grid for resampling predictions to it."""
    grid = prepared.case(name).grid
    if grid.resampled:
        truth: NDArray[np.uint8] = np.load(case_file(prepared.folder, name, "truth.npy"), mmap_mode="r")
        return truth, grid
    return turn_back(open_case(prepared, name)[1], grid), grid


def open_foreground(prepared: Prepared, name: str) -> dict[int, NDArray[np.int32]]:
    """Return d, h, w of sampled voxels, (N, 3), by class index above 0; N = 0 for an absent class."""
    rows: NDArray[np.int32] = np.load(case_file(prepared.folder, name, "foreground.npy"), mmap_mode="r")
    classes = range(1, len(prepared.label_values))
    return {index: rows[slice(*np.searchsorted(rows[:, 0], [index, index + 1])), 1:] for index in classes}


def case_from_json(values: Mapping[str, Any]) -> PreparedCase:
    """Read a case's JSON file."""
    depth, height, width = values["shape"]
    return PreparedCase(
        name=values["name"],
        group=values["group"],
        shape=(depth, height, width),
        voxels_per_class=tuple(values["voxels_per_class"]),
        grid=Grid.from_json(values["grid"]),
    )


def case_file(folder: str | Path, name: str, ending: str) -> Path:
    """Return the path of one of a case's files."""
    return Path(folder) / "cases" / f"{name}.{ending}"
