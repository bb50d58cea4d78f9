"""Check a data set before training: report all problems at once, and collect the facts that preparation needs."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path

import numpy as np
from nibabel.affines import voxel_sizes
from nibabel.orientations import io_orientation

from search.data.facts import FileFacts, read_facts
from search.data.geometry import Spacing, Triple
from search.data.layouts import Case
from search.data.parallel import Progress
from search.data.read import DataError, Dataset, group_of, read_dataset
from search.data.volume_files import AFFINE_TOLERANCE, grid_difference


@dataclass(frozen=True)
class CaseFacts:
    """A valid case: `shape` in voxels and `spacing` in mm along the RAS axes x, y, z.

    `voxels_per_class` is indexed by class. `cropped` is the shape of the bounding box of voxels that any channel has
    non-zero. `digest` is a hash of the content of all its files.
    """

    name: str
    group: str
    shape: Triple
    spacing: Spacing
    voxels_per_class: tuple[int, ...]
    cropped: Triple
    digest: str

    @property
    def filled(self) -> float:
        """The volume fraction of the bounding box of non-zero voxels."""
        return prod(self.cropped) / prod(self.shape)


@dataclass(frozen=True)
class DataFacts:
    """Facts about the volumes of a data set; `problems` prevent training, `notes` are informative.

    Medians are taken over the valid cases, along RAS x, y, z; they are zero if no case is valid. The affines of each
    case's files agree within `affine_tolerance` (see `grid_difference`).
    """

    cases: tuple[CaseFacts, ...]
    spacing_median: Spacing
    shape_median: Triple
    problems: tuple[str, ...]
    notes: tuple[str, ...]
    affine_tolerance: float = AFFINE_TOLERANCE

    @property
    def groups(self) -> dict[str, str]:
        """The group of each case, by case name."""
        return {case.name: case.group for case in self.cases}

    @property
    def voxels_per_class(self) -> tuple[int, ...]:
        """Voxels over all cases, by class index."""
        return tuple(sum(counts) for counts in zip(*(case.voxels_per_class for case in self.cases), strict=True))


def check_folder(
    root: str | Path,
    *,
    group: str | None,
    affine_tolerance: float = AFFINE_TOLERANCE,
    cache_dir: Path | None = None,
    progress: Progress | None = None,
) -> tuple[Dataset, DataFacts]:
    """Read and check a data folder; raises a single DataError for problems of its description and its volumes."""
    try:
        dataset, problems = read_dataset(root), []
    except DataError as error:
        if error.dataset is None:
            raise
        dataset, problems = error.dataset, error.problems
    facts = check_dataset(
        dataset, group=group, affine_tolerance=affine_tolerance, cache_dir=cache_dir, progress=progress
    )
    if problems or facts.problems:
        raise DataError([*problems, *facts.problems], dataset=dataset)
    return dataset, facts


def check_dataset(
    dataset: Dataset,
    *,
    group: str | None,
    affine_tolerance: float = AFFINE_TOLERANCE,
    cache_dir: Path | None = None,
    progress: Progress | None = None,
) -> DataFacts:
    """Read every image and label of a data set and collect all problems.

    `group` is a regular expression on case names (see `group_of`). Facts about files are cached in `cache_dir`.
    Raises DataError only if `group` is not a valid regular expression.
    """
    images = [path for case in dataset.cases for path in case.images]
    labels = [case.label for case in dataset.cases]
    groups = {case.name: group_of(case.name, group) for case in dataset.cases}
    files = read_facts(images, labels, cache_dir=cache_dir, progress=progress)
    problems = [
        f"case {name}: the group pattern {group!r} does not match this name"
        for name, matched in groups.items()
        if matched is None
    ]
    valid = []
    for case in dataset.cases:
        found = case_problems(case, dataset, files, affine_tolerance=affine_tolerance)
        problems += found
        if not found:
            valid.append(_case_facts(case, groups[case.name] or case.name, dataset, files))
    problems += _empty_classes(dataset, valid)
    notes = (
        *_absent_classes(dataset, valid),
        *_duplicate_images(dataset, files),
        *_zero_images(dataset, files),
        *_disagreeing_headers(dataset, files, affine_tolerance),
    )
    return _facts(valid, problems, notes, affine_tolerance=affine_tolerance)


def restricted_to(dataset: Dataset, names: Collection[str]) -> Dataset:
    """Return the data set with only these cases."""
    return replace(dataset, cases=tuple(case for case in dataset.cases if case.name in names))


def facts_of(dataset: Dataset, whole: DataFacts, names: Collection[str]) -> DataFacts:
    """Return the facts about some cases of a checked data set; the notes are those on all of its cases."""
    cases = [case for case in whole.cases if case.name in names]
    problems = _empty_classes(dataset, cases)
    return _facts(cases, problems, whole.notes, affine_tolerance=whole.affine_tolerance)


def _facts(
    cases: Sequence[CaseFacts], problems: Sequence[str], notes: Sequence[str], *, affine_tolerance: float
) -> DataFacts:
    return DataFacts(
        cases=tuple(cases),
        spacing_median=_median([case.spacing for case in cases]),
        shape_median=_triple_of_ints(_median([case.shape for case in cases])),
        problems=tuple(problems),
        notes=tuple(notes),
        affine_tolerance=affine_tolerance,
    )


def case_problems(
    case: Case, dataset: Dataset, files: dict[str, FileFacts], *, affine_tolerance: float = AFFINE_TOLERANCE
) -> list[str]:
    """Return the problems of one case, from the facts about its files."""
    problems = [files[path].problem for path in (*case.images, case.label) if files[path].problem]
    channels = sum(files[path].shape[0] for path in case.images if not files[path].problem)
    expected = len(dataset.channels)
    if not problems and channels != expected:
        problems.append(f"{case.images[0]}: has {channels} channels, but dataset.json lists {expected}")
    label = files[case.label]
    unlisted = [
        (value, voxels) for value, voxels in label.values if value not in (*dataset.label_values, dataset.ignore)
    ]
    for value, voxels in unlisted:
        problems.append(f"{case.label}: contains the value {value} ({voxels} voxels), which dataset.json does not list")
    readable = [path for path in (case.label, *case.images[1:]) if not files[path].problem]
    first = files[case.images[0]]
    for path in readable if not first.problem else []:
        other = files[path]
        difference = grid_difference(
            first.shape[1:], _matrix(first), other.shape[-3:], _matrix(other), tolerance=affine_tolerance
        )
        if difference:
            hint = "; data.affine_tolerance sets what is allowed" if "affine" in difference else ""
            problems.append(f"{path}: {difference}, unlike its image {Path(case.images[0]).name}{hint}")
    if all(files[path].has_only_zeros for path in case.images):
        problems.append(f"{case.images[0]}: contains only zeros")
    return problems


def _case_facts(case: Case, group: str, dataset: Dataset, files: dict[str, FileFacts]) -> CaseFacts:
    image, counts = files[case.images[0]], dict(files[case.label].values)
    affine = _matrix(image)
    # Array axis of each RAS axis
    order = np.argsort(io_orientation(affine)[:, 0])
    digests = "".join(files[path].sha256 for path in (*case.images, case.label))
    sizes = [image.shape[1 + axis] for axis in order]
    boxes = [files[path].box for path in case.images if files[path].box]
    cropped = [max(end for _, end in pairs) - min(first for first, _ in pairs) for pairs in zip(*boxes, strict=True)]
    return CaseFacts(
        name=case.name,
        group=group,
        shape=_triple_of_ints(sizes),
        spacing=_triple(voxel_sizes(affine)[order].tolist()),
        voxels_per_class=tuple(counts.get(value, 0) for value in dataset.label_values),
        cropped=_triple_of_ints([cropped[axis] if cropped else 0 for axis in order]),
        digest=hashlib.sha256(digests.encode()).hexdigest(),
    )


def _empty_classes(dataset: Dataset, valid: Sequence[CaseFacts]) -> list[str]:
    if not valid:
        return []
    labelling = dataset.labelling
    return [
        f"{_kind(dataset)} {name!r} (value {_values(dataset, members)}): has no voxels in any case"
        for name, members in zip(labelling.names[1:], labelling.members, strict=True)
        if not any(case.voxels_per_class[index] for case in valid for index in members)
    ]


def _kind(dataset: Dataset) -> str:
    return "region" if dataset.regions else "class"


def _values(dataset: Dataset, members: Sequence[int]) -> str:
    return ", ".join(str(dataset.label_values[index]) for index in members)


def _absent_classes(dataset: Dataset, valid: Sequence[CaseFacts]) -> list[str]:
    notes = []
    for label, members in zip(dataset.labels[1:], dataset.labelling.members, strict=True):
        without = [case.name for case in valid if not any(case.voxels_per_class[index] for index in members)]
        if 0 < len(without) < len(valid):
            examples = ", ".join(without[:3]) + (", ..." if len(without) > 3 else "")
            notes.append(f"{_kind(dataset)} {label!r}: absent from {len(without)} of {len(valid)} cases ({examples})")
    return notes


def _duplicate_images(dataset: Dataset, files: dict[str, FileFacts]) -> list[str]:
    """Return notes on cases with identical images, which may leak from training into validation."""
    seen: dict[str, str] = {}
    notes = []
    for case in dataset.cases:
        content = "".join(files[path].sha256 for path in case.images)
        if content and seen.setdefault(content, case.name) != case.name:
            notes.append(f"case {case.name}: has the same image as case {seen[content]}")
    return notes


def _zero_images(dataset: Dataset, files: dict[str, FileFacts]) -> list[str]:
    """Return notes on files that contain only zeros, in cases whose other channels don't."""
    return [
        f"{path}: contains only zeros"
        for case in dataset.cases
        for path in case.images
        if files[path].has_only_zeros and not all(files[other].has_only_zeros for other in case.images)
    ]


def _disagreeing_headers(dataset: Dataset, files: dict[str, FileFacts], tolerance: float) -> list[str]:
    """Return a note if sform and qform disagree, with the cases in which they do."""
    apart_mm = {}
    for case in dataset.cases:
        known = [files[path] for path in case.images if not files[path].problem]
        found = [each.qform_mm for each in known if each.qform_mm > tolerance * min(voxel_sizes(_matrix(each)))]
        if found:
            apart_mm[case.name] = max(found)
    if not apart_mm:
        return []
    names = ", ".join([*apart_mm][:3]) + (", ..." if len(apart_mm) > 3 else "")
    count = f"{len(apart_mm)} of {len(dataset.cases)} cases ({names})"
    return [
        f"sform and qform disagree in {count}, by up to {max(apart_mm.values()):.3g} mm: the sform is used; check that "
        "it is the one that the labels were drawn with"
    ]


def _matrix(facts: FileFacts) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return np.array(facts.affine, dtype=np.float64).reshape(4, 4)


def _median(rows: Sequence[Sequence[float]]) -> Spacing:
    return _triple(np.median(rows, axis=0).tolist()) if rows else (0.0, 0.0, 0.0)


def _triple(values: Sequence[float]) -> Spacing:
    """Round to 6 decimals, to remove the rounding error of the single-precision values in headers."""
    x, y, z = (round(float(value), 6) for value in values)
    return x, y, z


def _triple_of_ints(values: Sequence[float]) -> Triple:
    x, y, z = (int(value) for value in values)
    return x, y, z
