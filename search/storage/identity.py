"""A study's identity: the values and file contents that its records depend on; changes are reported one by one."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields
from functools import cache
from typing import Any

from search.config.errors import UserError
from search.config.objectives import OBJECTIVES, show
from search.config.schema import Data, Search, Study
from search.config.training_section import Training

CONTENT = "content"  # cases, test cases, channels, classes, splits, planned values, and initial weights by digest
SHOWN = 5  # changed cases that are listed


def plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values after a round trip through JSON."""
    found: dict[str, Any] = json.loads(json.dumps(values))
    return found


def refuse_changes(name: str, known: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Raise UserError listing each difference between a study's values at its start and now."""
    changes = [*key_changes(_keys(known), _keys(given)), *_content_changes(known.get(CONTENT), given.get(CONTENT))]
    if changes:
        hint = f"study {name!r} already has records that depend on this; undo the change, or use another study name"
        raise UserError([*changes, hint])


def _keys(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: each for key, each in values.items() if key != CONTENT}


def key_changes(known: Any, given: Any, path: str = "") -> Iterator[str]:
    """Yield a sentence for each key whose value was another when the study began."""
    if isinstance(known, dict) and isinstance(given, dict):
        for key in dict.fromkeys((*known, *given)):
            yield from key_changes(known.get(key), given.get(key), f"{path}.{key}" if path else str(key))
    elif known != given and not (known is None and path in _defaults() and _defaults()[path] == given):
        before, after = _shown_pair(path, known, given)
        was = "without it" if known is None else f"with {before}"
        now = "no longer has it" if given is None else f"now has {after}"
        yield f"{path}: the study began {was}, the file {now}"


def _shown_pair(path: str, known: Any, given: Any) -> tuple[str, str]:
    """Format two values of a key: budgets with their units, unless these hide the difference."""
    name = path.removeprefix("objectives.").removesuffix(".budget")
    plain_pair, values = (repr(known), repr(given)), (known, given)
    if name not in OBJECTIVES or not all(value is None or isinstance(value, (int, float)) for value in values):
        return plain_pair
    before, after = (show(name, value) for value in values)
    return (before, after) if before != after else plain_pair


@cache
def _defaults() -> dict[str, Any]:
    """Return the default of each key by its path.

    A study of an earlier version lacks the keys that came later; their defaults keep what it did without them.
    """
    sections = {"": Study, "data.": Data, "training.": Training, "search.": Search}
    return {
        f"{prefix}{each.name}": plain({"default": each.default})["default"]
        for prefix, section in sections.items()
        for each in fields(section)
        if each.default is not MISSING
    }


def _content_changes(known: Any, given: Any) -> Iterator[str]:
    if not isinstance(known, dict) or not isinstance(given, dict):
        if known != given:
            yield "data: the study was begun by a version of voxnas that did not record the content of its data"
        return
    yield from _case_changes(known["cases"], given["cases"])
    yield from _test_changes(known.get("test", {}), given.get("test", {}))
    for key, word in (("channels", "channels"), ("classes", "classes"), ("label_values", "label values")):
        if known[key] != given[key]:
            yield f"data: the {word} were {_listed(known[key])} when the study began, now {_listed(given[key])}"
    yield from _split_changes(known["splits"], given["splits"])
    was, is_now = known.get("planned", {}), given.get("planned", {})
    for key in (each for each in was if each in is_now and was[each] != is_now[each]):
        yield f"{key}: nnU-Net's rules gave {was[key]} when the study began, now {is_now[key]}"
    if known["init"] != given["init"]:
        yield "training.init: the weights in the file have changed since the study began"


def _case_changes(known: Mapping[str, str], given: Mapping[str, str]) -> Iterator[str]:
    kinds = {
        "is new": [case for case in given if case not in known],
        "is missing": [case for case in known if case not in given],
        "has other voxels, labels or geometry": [case for case in given if known.get(case, given[case]) != given[case]],
    }
    for what, cases in kinds.items():
        yield from (f"data: case {case} {what} since the study began" for case in cases[:SHOWN])
        if len(cases) > SHOWN:
            yield f"data: the same is true of {len(cases) - SHOWN} more cases"


def _test_changes(known: Mapping[str, str], given: Mapping[str, str]) -> Iterator[str]:
    if [*known] != [*given]:
        was, is_now = _listed([*known]) or "none", _listed([*given]) or "none"
        yield f"data.test: the test cases were {was} when the study began, now {is_now}"
    else:
        yield from _case_changes(known, given)


def _split_changes(known: list[Any], given: list[Any]) -> Iterator[str]:
    if len(known) != len(given):
        yield f"data.folds: the number of folds was {len(known)} when the study began and is now {len(given)}"
    for number, (one, other) in enumerate(zip(known, given, strict=False)):
        if one["validation"] != other["validation"]:
            was, is_now = _listed(one["validation"]), _listed(other["validation"])
            yield f"data.folds: fold {number} validated on {was} when the study began, now on {is_now}"
        elif one["train"] != other["train"]:
            yield f"data.folds: fold {number} trained on other cases when the study began"


def _listed(values: list[Any]) -> str:
    more = f" and {len(values) - SHOWN} more" if len(values) > SHOWN else ""
    return ", ".join(str(each) for each in values[:SHOWN]) + more
