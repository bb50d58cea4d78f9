"""Read the description of a folder of labelled volumes as a `Dataset`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from search.data.json_files import read_foreign_json
from search.data.labelling import Labelling
from search.data.layouts import Case, find_cases
from search.data.read_labels import read_labelling
from search.data.volume_files import why_no_file
from search.files.home import absolute


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
        """The meaning of the label values."""
        return Labelling(self.labels, self.label_values, self.regions, self.order, self.ignore)


class DataError(Exception):
    """Problems with a user's data: one-line messages in `problems`, joined by newlines as the error's text.

    `dataset` contains what could be read in spite of them, possibly without some cases, or is None.
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
    folder = absolute(root)
    description = _read_description(folder)
    problems: list[str] = []
    channels = _channels(description, problems)
    labelling = read_labelling(description, problems)
    complete = find_cases(folder, description, len(channels), problems)
    name = description.get("name")
    dataset = Dataset(
        name=name if isinstance(name, str) and name else folder.name,
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


def _read_description(folder: Path) -> dict[str, Any]:
    file = folder / "dataset.json"
    if folder.is_file():
        raise DataError([f"{folder}: is a file, not the folder of a data set"])
    if not folder.is_dir():
        near = get_close_matches(folder.name, [entry.name for entry in folder.parent.glob("*/")], n=1)
        hint = f"; did you mean {folder.parent / near[0]}?" if near else ""
        raise DataError([f"{folder}: no such folder{hint}"])
    if why_no_file(file) == "no such file":
        inside = sorted(entry.parent.name for entry in folder.glob("*/dataset.json"))
        named = f"subfolders with a dataset.json: {', '.join(inside)}"
        hint = f"; {named if inside else 'a Decathlon task or an nnU-Net raw data set has one'}"
        raise DataError([f"{folder}: contains no dataset.json{hint}"])
    try:
        description = read_foreign_json(file)
    except ValueError as error:
        raise DataError([str(error)]) from error
    if not isinstance(description, dict):
        raise DataError([f"{file}: must be a JSON object, got {type(description).__name__}"])
    return description


def _channels(description: dict[str, Any], problems: list[str]) -> tuple[str, ...]:
    key = "channel_names" if "channel_names" in description else "modality"
    named = description.get(key)
    if named is None:
        problems.append("dataset.json: 'modality' (Decathlon) or 'channel_names' (nnU-Net) is missing")
        return ()
    if isinstance(named, str):
        named = [named]
    if isinstance(named, list) and all(isinstance(name, str) for name in named):
        named = {str(index): name for index, name in enumerate(named)}
    if not isinstance(named, dict) or sorted(named) != sorted(str(index) for index in range(len(named))):
        problems.append(f'dataset.json: "{key}" must have the form {{"0": NAME, "1": NAME, ...}}, got {named!r}')
        return ()
    if not named:
        problems.append(f"dataset.json: '{key}' lists no channels")
    problems += [
        f"dataset.json: '{key}': channel {index} is called {name!r}, expected a name"
        for index, name in named.items()
        if not isinstance(name, str) or not name.strip()
    ]
    return tuple(str(named[str(index)]) for index in range(len(named)))
