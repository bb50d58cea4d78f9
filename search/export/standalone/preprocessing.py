"""Reads preprocessing.json, the settings that predict.py and the MONAI bundle share, and checks them before use."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

RULE_LENGTHS = {"zscore": 1, "zscore_nonzero": 1, "ct": 5, "none": 1, "rescale_to_0_1": 1, "rgb_to_0_1": 1}


def read_settings(file: Path) -> dict[str, Any]:
    """Return the settings. Raises ValueError with the file, and each key that is missing or has another value."""
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # also text that is not UTF-8
        raise ValueError(f"{file}: is not valid JSON ({error})") from error
    if not isinstance(values, dict):
        raise ValueError(f"{file}: is not a JSON object")
    missing = [f"{key!r} is missing" for key in EXPECTED if key not in values]
    other = [
        f"{key!r} is {values[key]!r}, expected {expected}"
        for key, (expected, fits) in EXPECTED.items()
        if key in values and not fits(values[key])
    ]
    if wrong := missing + other or _contradictions(values):
        raise ValueError(f"{file}: {'; '.join(wrong)}")
    return values


def _contradictions(values: dict[str, Any]) -> list[str]:
    """Return which keys, each valid alone, don't fit each other."""
    channels, classes, order = len(values["channels"]), len(values["labels"]), values["order"]
    outputs, indices = len(order) or classes, [*order, *(index for group in values["keep_largest"] for index in group)]
    checks = (
        (len(values["normalisation"]) == channels, f"'normalisation' must have a rule for each of {channels} channels"),
        (len(values["label_values"]) == classes, f"'label_values' must have a value for each of {classes} labels"),
        (values["outputs"] == outputs, f"'outputs' is {values['outputs']}, but 'order' and 'labels' need {outputs}"),
        (max(indices, default=0) < classes, f"'order' and 'keep_largest' must be indices of the {classes} labels"),
    )
    return [said for fits, said in checks if not fits]


def _is_integer(value: Any, least: int = 0) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_rule(value: Any) -> bool:
    name, numbers = (value[0], value[1:]) if isinstance(value, list) and value else (None, [])
    length = RULE_LENGTHS.get(name) if isinstance(name, str) else None
    return length == 1 + len(numbers) and all(map(_is_number, numbers))


def _listed(fits: Callable[[Any], bool], least: int = 0, most: float = math.inf) -> Callable[[Any], bool]:
    """Return a check for a list of `least` to `most` entries that all fit."""
    return lambda value: isinstance(value, list) and least <= len(value) <= most and all(map(fits, value))


_are_indices = _listed(_is_integer)
EXPECTED: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "spacing": ("three positive numbers", _listed(lambda each: _is_number(each) and each > 0, 3, 3)),
    "axes": ("an order of 0, 1 and 2", lambda value: _are_indices(value) and sorted(value) == [0, 1, 2]),
    "normalisation": ("a rule per channel", _listed(_is_rule, 1)),
    "channels": ("a name per channel", _listed(lambda each: isinstance(each, str), 1)),
    "labels": ("a name per label, background first", _listed(lambda each: isinstance(each, str), 2)),
    "label_values": ("integers from 0 to 65535", _listed(lambda each: _is_integer(each) and each < 1 << 16, 2)),
    "outputs": ("a positive integer", lambda value: _is_integer(value, 1)),
    "order": ("indices of labels", _are_indices),
    "patch": ("three positive integers", _listed(lambda each: _is_integer(each, 1), 3, 3)),
    "overlap": ("a number from 0 to below 1", lambda value: _is_number(value) and 0 <= value < 1),
    "keep_largest": ("lists of indices of labels", _listed(_are_indices)),
    "mirror": (
        "different ones of 0, 1 and 2",
        lambda value: _are_indices(value) and len({*value} & {0, 1, 2}) == len(value),
    ),
    "window_bytes": ("an integer", _is_integer),
}
