"""The `labels` of a dataset.json: classes, or nnU-Net's regions with `regions_class_order`, and its ignore label."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from typing import Any

from search.data.labelling import Labelling

MOST = 65_534  # a label's value; one more index than there are values must fit into 16 bits
IGNORE = "ignore"
NONE = Labelling((), ())
Named = tuple[str, tuple[int, ...]]  # a name and the values that it stands for


def read_labelling(description: dict[str, Any], problems: list[str]) -> Labelling:
    """Return what the labels mean, and append all that is wrong with them to `problems`."""
    given = description.get("labels")
    if not isinstance(given, dict) or not given:
        problems.append(
            "dataset.json: 'labels' is missing"
            if given is None
            else f"dataset.json: 'labels' names no class: {given!r}"
        )
        return NONE
    before = len(problems)
    named = [each for key, entry in given.items() if (each := _named(str(key), entry, problems))]
    _refuse_twins(named, problems)
    if named and ("background", (0,)) not in named and not any(0 in values for _, values in named):
        problems.append("dataset.json: 'labels': no class has the value 0, which is background")
    ignore = next((values[0] for name, values in named if name == IGNORE), None)
    rest = [each for each in named if each[0] != IGNORE]
    if len(rest) == 1:
        problems.append("dataset.json: 'labels' names no class beside background")
    if "regions_class_order" in description or any(len(values) > 1 for _, values in rest):
        return _with_regions(rest, description.get("regions_class_order"), ignore, problems)
    if ignore is not None and len(problems) == before and ignore <= max(values[0] for _, values in rest):
        problems.append(f"dataset.json: 'labels': ignore has the value {ignore}, wanted one above all others")
    pairs = sorted((values[0], name) for name, values in rest)
    return Labelling(tuple(name for _, name in pairs), tuple(value for value, _ in pairs), ignore=ignore)


def _named(key: str, entry: Any, problems: list[str]) -> Named | None:
    """Return a name and its values, from either direction of the mapping."""
    value, name = (key, entry) if re.fullmatch(r"\d+", key) else (entry, key)
    values = value if isinstance(value, list) else [value]
    numbers = [each for each in values if not isinstance(each, bool | float) and re.fullmatch(r"\d+", str(each))]
    if not values or len(numbers) < len(values):
        problems.append(
            f"dataset.json: 'labels': {name!r} has the value {value!r}, wanted a whole number, or several for a region"
        )
        return None
    high = [each for each in numbers if int(each) > MOST]
    if high:
        problems.append(f"dataset.json: 'labels': {name!r} has the value {high[0]}, allowed are 0 to {MOST}")
        return None
    return str(name), tuple(sorted({int(each) for each in numbers}))


def _refuse_twins(named: list[Named], problems: list[str]) -> None:
    for entry, times in Counter(values for _, values in named).items():
        if times > 1:
            said = entry[0] if len(entry) == 1 else list(entry)
            problems.append(f"dataset.json: 'labels': value {said} stands {times} times")
    for name, times in Counter(name for name, _ in named).items():
        if times > 1:
            problems.append(f"dataset.json: 'labels': name {name!r} stands {times} times")


def _with_regions(named: list[Named], order: Any, ignore: int | None, problems: list[str]) -> Labelling:
    """Return regions in the order of the file; `order` names the value that is written for each."""
    background = next((name for name, values in named if values == (0,)), "background")
    regions = [(name, values) for name, values in named if values != (0,)]
    values = sorted({0, *(value for _, members in regions for value in members)})
    if any(0 in members for _, members in regions):
        problems.append("dataset.json: 'labels': a region holds the value 0, which is background")
    whole = isinstance(order, list) and all(isinstance(each, int) and not isinstance(each, bool) for each in order)
    if not whole or len(order) != len(regions):
        problems.append(
            f"dataset.json: 'regions_class_order' is {order!r}, wanted a whole number for each of the "
            f"{len(regions)} regions ({', '.join(name for name, _ in regions)})"
        )
        return NONE
    absent = [value for value in order if value not in values[1:]]
    twins = sorted(_twice(order))
    if absent or twins:
        what = f"{absent[0]} is the value of no region" if absent else f"{twins[0]} stands twice"
        problems.append(f"dataset.json: 'regions_class_order': {what}")
        return NONE
    if ignore is not None and ignore <= values[-1]:
        problems.append(f"dataset.json: 'labels': ignore has the value {ignore}, wanted one above all others")
    return Labelling(
        names=(background, *(name for name, _ in regions)),
        values=tuple(values),
        regions=tuple(tuple(values.index(value) for value in members) for _, members in regions),
        order=tuple(values.index(value) for value in order),
        ignore=ignore,
    )


def _twice(values: Iterable[int]) -> set[int]:
    return {value for value, times in Counter(values).items() if times > 1}
