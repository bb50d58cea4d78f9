"""The `labels` of a dataset.json: classes, or nnU-Net's regions with `regions_class_order`, and its ignore label."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from typing import Any

from search.data.labelling import Labelling

MAX_VALUE = (
    65_534  # the largest label value; the number of indices, one more than that of values, must fit into 16 bits
)
IGNORE = "ignore"
NONE = Labelling((), ())
Named = tuple[str, tuple[int, ...]]  # a name and its values


def read_labelling(description: dict[str, Any], problems: list[str]) -> Labelling:
    """Return the labelling, and append all its problems to `problems`."""
    given = description.get("labels")
    if isinstance(given, list) and all(isinstance(name, str) for name in given):
        given = {str(value): name for value, name in enumerate(given)}
    if not isinstance(given, dict) or not given:
        problems.append(
            "dataset.json: 'labels' is missing"
            if given is None
            else f"dataset.json: 'labels' lists no classes: {given!r}"
        )
        return NONE
    before = len(problems)
    named = [each for key, entry in given.items() if (each := _named(str(key), entry, problems))]
    _report_duplicates(named, problems)
    if named and ("background", (0,)) not in named and not any(0 in values for _, values in named):
        problems.append("dataset.json: 'labels': no class has the value 0, the background")
    ignore = next((values[0] for name, values in named if name == IGNORE), None)
    rest = [each for each in named if each[0] != IGNORE]
    if len(rest) == 1:
        problems.append("dataset.json: 'labels' lists no class other than background")
    if "regions_class_order" in description or any(len(values) > 1 for _, values in rest):
        return _with_regions(rest, description.get("regions_class_order"), ignore, problems)
    if ignore is not None and len(problems) == before and ignore <= max(values[0] for _, values in rest):
        problems.append(f"dataset.json: 'labels': ignore has the value {ignore}, but must have the largest value")
    pairs = sorted((values[0], name) for name, values in rest)
    return Labelling(tuple(name for _, name in pairs), tuple(value for value, _ in pairs), ignore=ignore)


def _named(key: str, entry: Any, problems: list[str]) -> Named | None:
    """Return a name and its values; the mapping may be from values to names or the reverse."""
    value, name = (key, entry) if re.fullmatch(r"\d+", key) else (entry, key)
    values = value if isinstance(value, list) else [value]
    numbers = [each for each in values if not isinstance(each, bool | float) and re.fullmatch(r"\d+", str(each))]
    if not values or len(numbers) < len(values):
        problems.append(
            f"dataset.json: 'labels': {name!r} has the value {value!r}, expected an integer, or a list for a region"
        )
        return None
    high = [each for each in numbers if len(str(each).lstrip("0")) > len(str(MAX_VALUE)) or int(each) > MAX_VALUE]
    if high:
        problems.append(f"dataset.json: 'labels': {name!r} has the value {high[0]}, outside 0 to {MAX_VALUE}")
        return None
    return str(name), tuple(sorted({int(each) for each in numbers}))


def _report_duplicates(named: list[Named], problems: list[str]) -> None:
    for entry, times in Counter(values for _, values in named).items():
        if times > 1:
            value = entry[0] if len(entry) == 1 else list(entry)
            problems.append(f"dataset.json: 'labels': value {value} occurs {times} times")
    for name, times in Counter(name for name, _ in named).items():
        if times > 1:
            problems.append(f"dataset.json: 'labels': name {name!r} occurs {times} times")


def _with_regions(named: list[Named], order: Any, ignore: int | None, problems: list[str]) -> Labelling:
    """Return regions in file order; `order` lists the value written for each region."""
    background = next((name for name, values in named if values == (0,)), "background")
    regions = [(name, values) for name, values in named if values != (0,)]
    values = sorted({0, *(value for _, members in regions for value in members)})
    if any(0 in members for _, members in regions):
        problems.append("dataset.json: 'labels': a region contains the value 0, the background")
    whole = isinstance(order, list) and all(isinstance(each, int) and not isinstance(each, bool) for each in order)
    if not whole or len(order) != len(regions):
        problems.append(
            f"dataset.json: 'regions_class_order' is {order!r}, expected an integer for each of the "
            f"{len(regions)} regions ({', '.join(name for name, _ in regions)})"
        )
        return NONE
    absent = [value for value in order if value not in values[1:]]
    duplicates = sorted(_twice(order))
    if absent or duplicates:
        what = f"{absent[0]} is not a value of any region" if absent else f"{duplicates[0]} occurs twice"
        problems.append(f"dataset.json: 'regions_class_order': {what}")
        return NONE
    if ignore is not None and ignore <= values[-1]:
        problems.append(f"dataset.json: 'labels': ignore has the value {ignore}, but must have the largest value")
    return Labelling(
        names=(background, *(name for name, _ in regions)),
        values=tuple(values),
        regions=tuple(tuple(values.index(value) for value in members) for _, members in regions),
        order=tuple(values.index(value) for value in order),
        ignore=ignore,
    )


def _twice(values: Iterable[int]) -> set[int]:
    return {value for value, times in Counter(values).items() if times > 1}
