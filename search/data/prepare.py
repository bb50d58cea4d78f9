"""Prepare volumes as memory-mapped arrays for training, once per data set and settings.

Each run compares the arrays with their checksums before it trains.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from search.data.check import CaseFacts, DataFacts
from search.data.checked_files import read_json, sha256_of, write_array, write_json
from search.data.geometry import (
    Preprocessing,
    Spacing,
    Triple,
    choose_axes,
    label_to_grid,
    to_grid,
)
from search.data.intensities import choose_normalisation
from search.data.labelling import Labelling
from search.data.labels import read_label, to_classes
from search.data.layouts import Case
from search.data.parallel import Progress, for_each
from search.data.prepared import FORMAT, Prepared, PreparedCase, case_file, case_from_json, load_prepared
from search.data.read import DataError, Dataset
from search.data.volume_files import read_volume
from search.files.home import absolute

LOGGER = logging.getLogger("voxnas.prepare")
HASHING_THREADS = 4
LIST = "prepared.json"  # of the cases
KEY = "key"  # in JSON files: the folder's name, a digest of the data and the settings
FOREGROUND_VOXELS = 10_000  # stored per class and case, for patches around the foreground


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
    folder = absolute(cache_dir) / _key(dataset, facts, (target, axes, normalisation))
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
    folder = absolute(cache_dir) / _key(dataset, facts, settings)
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
    write_json(folder / LIST, {"format": FORMAT, KEY: folder.name, **asdict(prepared)})
    return prepared


def _found(folder: Path) -> Prepared | None:
    """Return a prepared folder if it is complete and undamaged, else None."""
    if not (folder / LIST).is_file():
        return None
    try:
        prepared = load_prepared(folder)
        if not _is_of(folder, read_json(folder / LIST)):
            raise ValueError("it belongs to another preparation")
    except (ValueError, KeyError) as error:
        LOGGER.warning("%s is damaged (%s): it is written again", folder / LIST, error)
        return None
    with ThreadPoolExecutor(HASHING_THREADS) as pool:
        sound = pool.map(lambda case: _case_damage(folder, case.name) is None, prepared.cases)
        return prepared if all(sound) else None


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
        return case_from_json(read_json(case_file(folder, facts.name, "json")))
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
        write_array(case_file(folder, facts.name, ending), array)
    counts = np.bincount(label.ravel(), minlength=len(values))[: len(labelling.values)]
    case = PreparedCase(
        name=facts.name,
        group=facts.group,
        shape=grid.shape,
        voxels_per_class=tuple(counts.tolist()),
        grid=grid,
    )
    sizes = {ending: case_file(folder, facts.name, ending).stat().st_size for ending in arrays}
    digests = {ending: sha256_of(case_file(folder, facts.name, ending)) for ending in arrays}
    write_json(
        case_file(folder, facts.name, "json"), {**asdict(case), "bytes": sizes, "sha256": digests, KEY: folder.name}
    )
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
    facts = case_file(folder, name, "json")
    if not facts.exists():
        return ""
    try:
        values = read_json(facts)
    except (OSError, ValueError) as error:
        return f"{facts} is damaged ({getattr(error, 'strerror', None) or error})"
    if values.get("name") != name or not _is_of(folder, values):
        return f"{facts} belongs to another case or preparation"
    if values.get("sha256") is None:  # of a version without checksums
        return ""
    for ending, digest in values["sha256"].items():
        file = case_file(folder, name, ending)
        try:
            if sha256_of(file) != digest:
                return f"{file} is damaged"
        except FileNotFoundError:
            return f"{file} is missing"
        except OSError as error:
            return f"{file} is damaged ({error.strerror})"
    return None


def _is_of(folder: Path, values: Mapping[str, Any]) -> bool:
    """Return whether values were written for a folder; those of earlier versions have no key."""
    return bool(values.get(KEY, folder.name) == folder.name)
