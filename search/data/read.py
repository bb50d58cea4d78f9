"""Read a folder of labelled volumes as a `Dataset`: Medical Segmentation Decathlon and nnU-Net raw layouts."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from search.data.labelling import Labelling
from search.data.read_labels import read_labelling

SUFFIXES = (".nii.gz", ".nii")
CHANNEL = re.compile(r"(.+)_(\d{4})")  # nnU-Net's name of the file of one channel


@dataclass(frozen=True)
class Case:
    """One labelled volume: absolute paths of its image (one file, or one per channel) and of its label."""

    name: str
    images: tuple[str, ...]
    label: str


@dataclass(frozen=True)
class Dataset:
    """The description of a data folder.

    `labels` are the class names in order of their values, background first; `label_values[k]` is the value of class k
    in the files. For a data set with regions, `labels` are the background and the regions. See `Labelling` for the
    other fields.
    """

    name: str
    root: str
    cases: tuple[Case, ...]
    channels: tuple[str, ...]
    labels: tuple[str, ...]
    label_values: tuple[int, ...]
    licence: str
    regions: tuple[tuple[int, ...], ...] = ()
    order: tuple[int, ...] = ()
    ignore: int | None = None

    @property
    def labelling(self) -> Labelling:
        """What the values of the labels mean."""
        return Labelling(self.labels, self.label_values, self.regions, self.order, self.ignore)


class DataError(Exception):
    """Problems with a user's data: one-line messages in `problems`, joined by newlines as the error's text.

    `dataset` holds what could be read despite them, possibly without some cases, or is None.
    """

    def __init__(self, problems: Iterable[str], *, dataset: Dataset | None = None) -> None:
        self.problems = list(problems)
        self.dataset = dataset
        super().__init__("\n".join(self.problems))

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild_error, (self.problems, self.dataset)


def _rebuild_error(problems: list[str], dataset: Dataset | None) -> DataError:
    return DataError(problems, dataset=dataset)


def read_dataset(root: str | Path) -> Dataset:
    """Read `dataset.json` of a Decathlon or nnU-Net raw folder and find its training files.

    No volume is opened. Raises one DataError with all problems.
    """
    folder = Path(root).expanduser().resolve()
    description = _read_description(folder)
    problems: list[str] = []
    channels = _channels(description, problems)
    labelling = read_labelling(description, problems)
    if "training" in description:
        cases = _decathlon_cases(folder, description["training"], len(channels), problems)
    else:
        cases = _nnunet_cases(folder, description, len(channels), problems)
    if not cases and not problems:
        problems.append(f"{folder}: contains no labelled cases")
    complete = _complete_cases(cases, problems)
    dataset = Dataset(
        name=str(description.get("name", folder.name)),
        root=str(folder),
        cases=complete,
        channels=channels,
        labels=labelling.names,
        label_values=labelling.values,
        licence=str(description.get("licence") or description.get("license") or "not stated"),
        regions=labelling.regions,
        order=labelling.order,
        ignore=labelling.ignore,
    )
    if problems:
        raise DataError(problems, dataset=dataset if complete and channels and labelling.names else None)
    return dataset


def group_of(case_name: str, pattern: str | None) -> str | None:
    """Return the group of a case name: the first capture group of `pattern`, or the whole match.

    Without a pattern each case is its own group. Returns None if the pattern does not match; raises DataError if it
    is not a valid regular expression.
    """
    if pattern is None:
        return case_name
    try:
        found = re.search(pattern, case_name)
    except re.error as error:
        raise DataError([f"group {pattern!r}: is not a valid regular expression ({error})"]) from error
    if found is None:
        return None
    return (found.group(1) if found.re.groups else found.group(0)) or None


def case_name_of(path: str | Path) -> str:
    """Return a file's name without folder and NIfTI suffix."""
    name = Path(path).name
    suffix = next((suffix for suffix in SUFFIXES if name.endswith(suffix)), "")
    return name.removesuffix(suffix)


def _read_description(folder: Path) -> dict[str, Any]:
    file = folder / "dataset.json"
    if not folder.is_dir():
        near = get_close_matches(folder.name, [entry.name for entry in folder.parent.glob("*/")], n=1)
        hint = f"; did you mean {folder.parent / near[0]}?" if near else ""
        raise DataError([f"{folder}: no such folder{hint}"])
    if not file.is_file():
        inside = sorted(entry.parent.name for entry in folder.glob("*/dataset.json"))
        hint = f"; subfolders with a dataset.json: {', '.join(inside)}" if inside else ""
        raise DataError([f"{folder}: contains no dataset.json{hint}"])
    try:
        description = json.loads(file.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise DataError([f"{file}:{error.lineno}:{error.colno}: is not valid JSON ({error.msg})"]) from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError([f"{file}: cannot be read ({error})"]) from error
    if not isinstance(description, dict):
        raise DataError([f"{file}: must be a JSON object, got {type(description).__name__}"])
    return description


def _channels(description: dict[str, Any], problems: list[str]) -> tuple[str, ...]:
    key = "channel_names" if "channel_names" in description else "modality"
    named = description.get(key)
    if named is None:
        problems.append("dataset.json: 'modality' (Decathlon) or 'channel_names' (nnU-Net) is missing")
        return ()
    if not isinstance(named, dict) or sorted(named) != sorted(str(index) for index in range(len(named))):
        problems.append(f'dataset.json: "{key}" must have the form {{"0": NAME, "1": NAME, ...}}, got {named!r}')
        return ()
    if not named:
        problems.append(f"dataset.json: '{key}' lists no channels")
    return tuple(str(named[str(index)]) for index in range(len(named)))


def _decathlon_cases(folder: Path, entries: Any, channels: int, problems: list[str]) -> list[Case]:
    if not isinstance(entries, list):
        problems.append(
            f"dataset.json: 'training' must be a list of image and label paths, got {type(entries).__name__}"
        )
        return []
    cases: list[Case] = []
    split: list[Case] = []
    for number, entry in enumerate(entries):
        paths = [entry.get(key) for key in ("image", "label")] if isinstance(entry, dict) else []
        if len(paths) != 2 or not all(isinstance(path, str) and path for path in paths):
            problems.append(
                f'dataset.json: "training"[{number}]: expected {{"image": PATH, "label": PATH}}, got {entry!r}'
            )
            continue
        image, label = (folder / str(path) for path in paths)
        cases.append(Case(case_name_of(label), _image_files(image, channels), str(label)))
        if cases[-1].images[0] != str(image):
            split.append(cases[-1])
    _report_surplus(split, channels, problems)
    return cases


def _report_surplus(cases: list[Case], channels: int, problems: list[str]) -> None:
    """Report cases of one file a channel that have files of further channels."""
    highest: dict[Path, Counter[str]] = {}  # by folder: the highest channel of each case
    for case in cases:
        first = Path(case.images[0])
        if first.parent not in highest:
            found = (CHANNEL.fullmatch(case_name_of(file)) for file in first.parent.glob("*"))
            highest[first.parent] = Counter()
            for match in filter(None, found):
                highest[first.parent][match[1]] = max(highest[first.parent][match[1]], int(match[2]))
        if highest[first.parent][case_name_of(first).removesuffix("_0000")] >= channels:
            problems.append(f"case {case.name}: has more image files than the {channels} channels of dataset.json")


def _image_files(image: Path, channels: int) -> tuple[str, ...]:
    """Return the image as listed, or nnU-Net's files, one per channel, if only those exist."""
    name = case_name_of(image)
    suffix = image.name.removeprefix(name)
    split = [image.with_name(f"{name}_{index:04d}{suffix}") for index in range(channels)]
    if not image.is_file() and split and split[0].is_file():
        return tuple(str(path) for path in split)
    return (str(image),)


def _complete_cases(cases: list[Case], problems: list[str]) -> tuple[Case, ...]:
    """Return the cases that are listed once and have all their files, sorted by name; report the others."""
    times = Counter(case.name for case in cases)
    for name, number in times.items():
        if number > 1:
            problems.append(f"case {name}: is listed {number} times, but each case must have one image and one label")
    missing = {path for case in cases for path in (*case.images, case.label) if not Path(path).is_file()}
    problems += [f"{path}: no such file" for path in sorted(missing)]
    complete = (c for c in cases if times[c.name] == 1 and missing.isdisjoint((*c.images, c.label)))
    return tuple(sorted(complete, key=lambda case: case.name))


def _nnunet_cases(folder: Path, description: dict[str, Any], channels: int, problems: list[str]) -> list[Case]:
    ending = str(description.get("file_ending", ""))
    if not ending:
        problems.append("dataset.json: 'training' (Decathlon) or 'file_ending' (nnU-Net) is missing")
        return []
    if ending not in SUFFIXES:
        problems.append(f"dataset.json: 'file_ending' is {ending!r}, but only {' and '.join(SUFFIXES)} are supported")
        return []

    def names(sub: str, pattern: str) -> set[str]:
        found = (re.fullmatch(pattern, path.name) for path in (folder / sub).glob(f"*{ending}"))
        return {match.group(1) for match in found if match and not match.group(1).startswith(".")}

    labelled = names("labelsTr", rf"(.+){re.escape(ending)}")
    imaged = names("imagesTr", rf"(.+)_\d{{4}}{re.escape(ending)}")
    if not labelled | imaged:
        problems.append(f"{folder}: imagesTr and labelsTr contain no *{ending} files")
    cases = []
    for name in sorted(labelled | imaged):
        images = tuple(str(folder / f"imagesTr/{name}_{index:04d}{ending}") for index in range(channels))
        cases.append(Case(name, images, str(folder / f"labelsTr/{name}{ending}")))
    if channels:
        _report_surplus(cases, channels, problems)
    expected = description.get("numTraining")
    if isinstance(expected, int) and cases and expected != len(cases):
        problems.append(f"dataset.json: 'numTraining' is {expected}, but the folder contains {len(cases)} cases")
    return cases
