"""Prepare volumes as memory-mapped arrays for training, once per data set and settings.

The folder `cases` contains, per case, `NAME.image.npy` float32 (C, D, H, W), `NAME.label.npy` uint8 (D, H, W),
`NAME.foreground.npy` int32 (N, 4) with class, d, h, w of sampled voxels, `NAME.truth.npy` uint8 (X, Y, Z)
if the label was resampled, and `NAME.json`, written last. `prepared.json` is written once all cases are
complete. The JSON files hold the SHA-256 of the arrays and of themselves; each run compares them before it trains.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from search.data.check import CaseFacts, DataFacts
from search.data.checked_files import read_json, sha256_of, write_array, write_json
from search.data.geometry import (
    Grid,
    Preprocessing,
    Spacing,
    Triple,
    choose_axes,
    label_to_grid,
    to_grid,
    turn_back,
)
from search.data.intensities import choose_normalisation
from search.data.labelling import Labelling
from search.data.labels import read_label, to_classes
from search.data.layouts import Case
from search.data.parallel import Progress, for_each
from search.data.read import DataError, Dataset
from search.data.volume_files import read_volume

LOGGER = logging.getLogger("voxnas.prepare")
FORMAT = 2  # version of the prepared arrays; a new number prepares them again
HASHING_THREADS = 4
FOREGROUND_VOXELS = 10_000  # stored per class and case, for patches around the foreground


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


def prepare(
    dataset: Dataset,
    facts: DataFacts,
    *,
    spacing: Literal["median"] | Spacing,
    normalisation: Literal["auto"] | tuple[str, ...],
    cache_dir: str | Path,
    shared: bool = False,
    progress: Progress | None = None,
) -> Prepared:
    """Prepare the arrays of a checked data set in `cache_dir`, or reuse them; an interrupted run is resumed.

    `spacing` is (D, H, W) in mm or the median of the cases. `normalisation` is one rule per channel ("zscore",
    "zscore_nonzero", "ct", ...; see `geometry.RULES`), or "auto", which decides by the channel's name and the width
    of zero margins.
    Only this user may enter the folder, unless it is `shared`: volumes of patients are private.
    Raises DataError for a data set with problems, ValueError for settings that don't fit the data.
    """
    if facts.problems:
        raise DataError(facts.problems)
    axes = choose_axes(facts.spacing_median)
    target = _target_spacing(facts, axes, spacing)
    folder = Path(cache_dir).expanduser().resolve() / _key(dataset, facts, (target, axes, normalisation))
    if (prepared := _found(folder)) is not None:
        return prepared
    rules = choose_normalisation(dataset, facts, normalisation)
    preprocessing = Preprocessing(spacing=target, axes=axes, normalisation=rules)
    return _prepare_all(dataset, facts, preprocessing, folder=folder, shared=shared, progress=progress)


def prepare_like(
    known: Prepared,
    dataset: Dataset,
    facts: DataFacts,
    *,
    cache_dir: str | Path,
    shared: bool = False,
    progress: Progress | None = None,
) -> Prepared:
    """Prepare other cases with the spacing, axes and intensity statistics of a prepared data set, or reuse them."""
    settings = (known.preprocessing.to_json(),)
    folder = Path(cache_dir).expanduser().resolve() / _key(dataset, facts, settings)
    return _found(folder) or _prepare_all(
        dataset, facts, known.preprocessing, folder=folder, shared=shared, progress=progress
    )


def _prepare_all(
    dataset: Dataset,
    facts: DataFacts,
    preprocessing: Preprocessing,
    *,
    folder: Path,
    shared: bool,
    progress: Progress | None,
) -> Prepared:
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=0o777 if shared else 0o700, exist_ok=True)
    (folder / "cases").mkdir(exist_ok=True)
    sources = {case.name: case for case in dataset.cases}
    work = partial(
        _prepare_case,
        sources=sources,
        folder=folder,
        labelling=dataset.labelling,
        preprocessing=preprocessing,
        affine_tolerance=facts.affine_tolerance,
    )
    cases = for_each(work, facts.cases, progress=progress)
    kept = ("name", "channels", "labels", "label_values", "licence", "regions", "order", "ignore")
    described = {key: getattr(dataset, key) for key in kept}
    prepared = Prepared(folder=str(folder), preprocessing=preprocessing, cases=tuple(cases), **described)
    write_json(folder / "prepared.json", {"format": FORMAT, **asdict(prepared)})
    return prepared


def _found(folder: Path) -> Prepared | None:
    """Return a prepared folder if it is complete and undamaged, else None."""
    if not (folder / "prepared.json").is_file():
        return None
    try:
        prepared = load_prepared(folder)
    except (ValueError, KeyError) as error:
        LOGGER.warning("%s is damaged (%s): it is written again", folder / "prepared.json", error)
        return None
    with ThreadPoolExecutor(HASHING_THREADS) as pool:
        sound = pool.map(lambda case: _case_damage(folder, case.name) is None, prepared.cases)
        return prepared if all(sound) else None


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
        cases=tuple(_case_from_json(case) for case in values["cases"]),
        regions=tuple(tuple(each) for each in values.get("regions", ())),
        order=tuple(values.get("order", ())),
        ignore=values.get("ignore"),
    )


def open_case(prepared: Prepared, name: str) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Return the image (C, D, H, W) and label (D, H, W) of a case as read-only memory maps."""
    image: NDArray[np.float32] = np.load(_file(prepared.folder, name, "image.npy"), mmap_mode="r")
    label: NDArray[np.uint8] = np.load(_file(prepared.folder, name, "label.npy"), mmap_mode="r")
    return image, label


def open_truth(prepared: Prepared, name: str) -> tuple[NDArray[np.uint8], Grid]:
    """Return class indices on the source grid, (X, Y, Z), and the grid for resampling predictions to it."""
    grid = prepared.case(name).grid
    if grid.resampled:
        truth: NDArray[np.uint8] = np.load(_file(prepared.folder, name, "truth.npy"), mmap_mode="r")
        return truth, grid
    return turn_back(open_case(prepared, name)[1], grid), grid


def open_foreground(prepared: Prepared, name: str) -> dict[int, NDArray[np.int32]]:
    """Return d, h, w of sampled voxels, (N, 3), by class index above 0; N = 0 for an absent class."""
    rows: NDArray[np.int32] = np.load(_file(prepared.folder, name, "foreground.npy"), mmap_mode="r")
    classes = range(1, len(prepared.label_values))
    return {index: rows[slice(*np.searchsorted(rows[:, 0], [index, index + 1])), 1:] for index in classes}


def _prepare_case(
    facts: CaseFacts,
    *,
    sources: Mapping[str, Case],
    folder: Path,
    labelling: Labelling,
    preprocessing: Preprocessing,
    affine_tolerance: float,
) -> PreparedCase:
    """Write the arrays of one case unless they exist undamaged."""
    damage = _case_damage(folder, facts.name)
    if damage is None:
        return _case_from_json(read_json(_file(folder, facts.name, "json")))
    if damage:
        LOGGER.warning("%s: preparing the case %s again", damage, facts.name)
    source = sources[facts.name]
    image, grid = to_grid(read_volume(source.images, tolerance=affine_tolerance), preprocessing)
    values = labelling.values if labelling.ignore is None else (*labelling.values, labelling.ignore)
    truth = to_classes(read_label(source.label)[0], values)
    label = label_to_grid(truth, grid)
    arrays: dict[str, NDArray[Any]] = {
        "image.npy": image,
        "label.npy": label,
        "foreground.npy": _foreground(label, facts.name, ignored=labelling.ignored),
    }
    if grid.resampled:
        arrays["truth.npy"] = truth
    for ending, array in arrays.items():
        write_array(_file(folder, facts.name, ending), array)
    counts = np.bincount(label.ravel(), minlength=len(values))[: len(labelling.values)]
    case = PreparedCase(
        name=facts.name,
        group=facts.group,
        shape=grid.shape,
        voxels_per_class=tuple(counts.tolist()),
        grid=grid,
    )
    sizes = {ending: _file(folder, facts.name, ending).stat().st_size for ending in arrays}
    digests = {ending: sha256_of(_file(folder, facts.name, ending)) for ending in arrays}
    write_json(_file(folder, facts.name, "json"), {**asdict(case), "bytes": sizes, "sha256": digests})
    return case


def _foreground(label: NDArray[Any], name: str, *, ignored: int | None) -> NDArray[np.int32]:
    """Return class, d, h, w of a seeded sample of foreground voxels, sorted."""
    draw = np.random.default_rng(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big"))
    rows = [np.empty((0, 4), dtype=np.int32)]
    for index in np.unique(label[(label > 0) & (label != ignored)] if ignored else label[label > 0]):
        places = np.flatnonzero(label == index)
        if len(places) > FOREGROUND_VOXELS:
            places = np.sort(draw.choice(places, FOREGROUND_VOXELS, replace=False))
        where = np.stack(np.unravel_index(places, label.shape), axis=1)
        rows.append(np.insert(where, 0, index, axis=1).astype(np.int32))
    return np.concatenate(rows)


def _target_spacing(facts: DataFacts, axes: Triple, spacing: Literal["median"] | Spacing) -> Spacing:
    if spacing == "median":
        depth, height, width = (facts.spacing_median[axis] for axis in axes)
        return depth, height, width
    if len(spacing) != 3 or not all(0 < size_mm < np.inf for size_mm in spacing):
        raise ValueError(f"the target spacing must be three positive sizes in mm, got {spacing}")
    return float(spacing[0]), float(spacing[1]), float(spacing[2])


def _key(dataset: Dataset, facts: DataFacts, settings: tuple[Any, ...]) -> str:
    """Return a cache key that depends on the files' content, the meaning of labels, and the settings."""
    cases = [(case.name, case.group, case.digest) for case in facts.cases]
    named = (dataset.name, dataset.channels, dataset.labels, dataset.label_values, dataset.licence)
    more = (dataset.regions, dataset.order, dataset.ignore)
    parts = [FORMAT, named, cases, settings, *([more] if any(each not in ((), None) for each in more) else [])]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def _case_damage(folder: Path, name: str) -> str | None:
    """Describe the damage of a prepared case; None if it is undamaged, empty if it was never completed."""
    facts = _file(folder, name, "json")
    if not facts.is_file():
        return ""
    try:
        digests = read_json(facts).get("sha256")
        if digests is None:  # of a version without checksums
            return ""
        for ending, digest in digests.items():
            if sha256_of(_file(folder, name, ending)) != digest:
                return f"{_file(folder, name, ending)} is damaged"
    except FileNotFoundError as error:
        return f"{error.filename} is missing"
    except (OSError, ValueError) as error:
        return f"{facts} is damaged ({error})"
    return None


def _case_from_json(values: Mapping[str, Any]) -> PreparedCase:
    depth, height, width = values["shape"]
    return PreparedCase(
        name=values["name"],
        group=values["group"],
        shape=(depth, height, width),
        voxels_per_class=tuple(values["voxels_per_class"]),
        grid=Grid.from_json(values["grid"]),
    )


def _file(folder: str | Path, name: str, ending: str) -> Path:
    return Path(folder) / "cases" / f"{name}.{ending}"
