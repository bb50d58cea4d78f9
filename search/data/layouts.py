"""Find the training files of a data folder: lists of a Decathlon or MONAI description, and nnU-Net's folders."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search.data.volume_files import SUFFIXES, stem_of, suffix_of, why_no_file

CHANNEL = re.compile(r"(.+)_(\d{4})")  # nnU-Net's name of the file of one channel


@dataclass(frozen=True)
class Case:
    """One labelled volume: absolute paths of its image (one file, or one per channel) and of its label."""

    name: str
    images: tuple[str, ...]
    label: str


def find_cases(folder: Path, description: dict[str, Any], channels: int, problems: list[str]) -> tuple[Case, ...]:
    """Return the complete cases, sorted by name, and append the problems of the others to `problems`.

    The cases are those of `training` (Medical Segmentation Decathlon, MONAI), of `dataset` (nnU-Net), or the files in
    imagesTr and labelsTr (nnU-Net). No volume is opened.
    """
    if "training" in description:
        cases = _listed_cases(folder, description["training"], channels, problems)
    elif "dataset" in description:
        cases = _named_cases(folder, description, problems)
    else:
        cases = _nnunet_cases(folder, description, channels, problems)
    if not cases and not problems:
        problems.append(f"{folder}: contains no labelled cases")
    return _complete_cases(cases, channels, problems)


def _listed_cases(folder: Path, entries: Any, channels: int, problems: list[str]) -> list[Case]:
    if not isinstance(entries, list):
        problems.append(
            f"dataset.json: 'training' must be a list of image and label paths, got {type(entries).__name__}"
        )
        return []
    found: list[tuple[tuple[str, ...], Path]] = []
    split: set[int] = set()  # entries whose listed file is replaced by one file per channel
    for number, entry in enumerate(entries):
        files = _files(entry, "image")
        if files is None:
            expected = '{"image": PATH or [PATH, ...], "label": PATH}'
            problems.append(f'dataset.json: "training"[{number}]: expected {expected}, got {entry!r}')
            continue
        images = tuple(str(folder / image) for image in files[0])
        present = images if len(images) > 1 else _image_files(Path(images[0]), channels)
        if present[0] != images[0]:
            split.add(len(found))
        found.append((present, folder / files[1]))
    names = _names([label for _, label in found])
    cases = [Case(name, images, str(label)) for name, (images, label) in zip(names, found, strict=True)]
    _report_surplus([cases[index] for index in sorted(split)], channels, problems)
    return cases


def _named_cases(folder: Path, description: dict[str, Any], problems: list[str]) -> list[Case]:
    """Return the cases of nnU-Net's `dataset`: {CASE: {"images": [PATH, ...], "label": PATH}}."""
    entries = description["dataset"]
    if not isinstance(entries, dict):
        problems.append(f"dataset.json: 'dataset' must map each case to its files, got {type(entries).__name__}")
        return []
    cases = []
    for name, entry in entries.items():
        files = _files(entry, "images")
        if files is None:
            expected = '{"images": [PATH, ...], "label": PATH}'
            problems.append(f'dataset.json: "dataset"[{name!r}]: expected {expected}, got {entry!r}')
        elif Path(name).name != name or name.startswith("."):
            problems.append(f'dataset.json: "dataset": {name!r} is not a name for a case')
        else:
            cases.append(Case(name, tuple(str(folder / image) for image in files[0]), str(folder / files[1])))
    _report_number(description, cases, problems)
    return cases


def _files(entry: Any, key: str) -> tuple[list[str], str] | None:
    """Return the image files and the label file of an entry, or None if it has another form."""
    if not isinstance(entry, dict):
        return None
    given, label = entry.get(key), entry.get("label")
    images = given if isinstance(given, list) else [given]
    files = [each for each in (*images, label) if isinstance(each, str) and each and "\0" not in each]
    return (files[:-1], files[-1]) if images and len(files) == len(images) + 1 else None


def _names(labels: Sequence[Path]) -> list[str]:
    """Return a name for each case: its label's file name, or its folder's name if the files have equal names."""
    stems = [stem_of(label) for label in labels]
    folders = [label.parent.name for label in labels]
    both = [f"{folder}_{stem}" for folder, stem in zip(folders, stems, strict=True)]
    files = len(set(labels))
    return next((names for names in (stems, folders, both) if len(set(names)) == files), stems)


def _report_surplus(cases: Sequence[Case], channels: int, problems: list[str]) -> None:
    """Report cases with one file per channel that have files of additional channels."""
    highest: dict[Path, Counter[str]] = {}  # by folder: the highest channel of each case
    for case in cases:
        first = Path(case.images[0])
        if first.parent not in highest:
            found = (CHANNEL.fullmatch(stem_of(file)) for file in first.parent.glob("*"))
            highest[first.parent] = Counter()
            for match in filter(None, found):
                highest[first.parent][match[1]] = max(highest[first.parent][match[1]], int(match[2]))
        if highest[first.parent][stem_of(first).removesuffix("_0000")] >= channels:
            problems.append(f"case {case.name}: has more image files than the {channels} channels of dataset.json")


def _image_files(image: Path, channels: int) -> tuple[str, ...]:
    """Return the image as listed, or nnU-Net's files, one per channel, if only those exist."""
    name, suffix = stem_of(image), suffix_of(image)
    split = [image.with_name(f"{name}_{index:04d}{suffix}") for index in range(channels)]
    if why_no_file(image) and split and not why_no_file(split[0]):
        return tuple(str(path) for path in split)
    return (str(image),)


def _complete_cases(cases: Sequence[Case], channels: int, problems: list[str]) -> tuple[Case, ...]:
    """Return the cases that are listed once and have all their files, sorted by name; report the others."""
    times = Counter(case.name for case in cases)
    for name, number in times.items():
        if number > 1:
            problems.append(f"case {name}: is listed {number} times, but each case must have one image and one label")
    wrong = {case.name for case in cases if channels and len(case.images) not in (1, channels)}
    problems += [
        f"case {case.name}: has {len(case.images)} image files, but dataset.json lists {channels} channels"
        for case in cases
        if case.name in wrong
    ]
    named = {path for case in cases for path in (*case.images, case.label)}
    missing = {path: why for path in named if (why := why_no_file(Path(path)))}
    problems += [f"{path}: {why}" for path, why in sorted(missing.items())]
    complete = (c for c in cases if times[c.name] == 1 and missing.keys().isdisjoint((*c.images, c.label)))
    return tuple(sorted((c for c in complete if c.name not in wrong), key=lambda case: case.name))


def _nnunet_cases(folder: Path, description: dict[str, Any], channels: int, problems: list[str]) -> list[Case]:
    ending = str(description.get("file_ending", ""))
    if not ending:
        problems.append("dataset.json: 'training' (Decathlon, MONAI), 'dataset' or 'file_ending' (nnU-Net) is missing")
        return []
    ending = ending if ending.startswith(".") else f".{ending}"
    if ending not in SUFFIXES:
        problems.append(f"dataset.json: 'file_ending' is {ending!r}, but only {', '.join(SUFFIXES)} are supported")
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
    _report_number(description, cases, problems)
    return cases


def _report_number(description: dict[str, Any], cases: Sequence[Case], problems: list[str]) -> None:
    expected = description.get("numTraining")
    if isinstance(expected, int) and cases and expected != len(cases):
        problems.append(f"dataset.json: 'numTraining' is {expected}, but the number of cases is {len(cases)}")
