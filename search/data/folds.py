"""Cross-validation folds by group: cases of one patient are never on both sides of a split."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search.data.json_files import read_foreign_json
from search.data.read import DataError


@dataclass(frozen=True)
class Fold:
    """Names of the training and validation cases, each sorted."""

    train: tuple[str, ...]
    validation: tuple[str, ...]


def make_folds(groups: Mapping[str, str], *, folds: int, seed: int) -> tuple[Fold, ...]:
    """Split cases into folds of nearly equal size without splitting a group, independent of the mapping's order.

    Raises DataError if there are fewer groups than folds.
    """
    if folds < 2:
        raise ValueError(f"at least 2 folds are needed, got {folds}")
    members: dict[str, list[str]] = {}
    for case in sorted(groups):
        members.setdefault(groups[case], []).append(case)
    if len(members) < folds:
        raise DataError(
            [f"{folds} folds need at least {folds} groups, but the {len(groups)} cases form only {len(members)}"]
        )
    shuffled = sorted(members)
    random.Random(seed).shuffle(shuffled)
    parts: list[list[str]] = [[] for _ in range(folds)]
    for group in sorted(shuffled, key=lambda group: -len(members[group])):
        min(parts, key=len).extend(members[group])
    return tuple(_fold(set(groups) - set(part), set(part)) for part in parts)


def share_of(fold: Fold, groups: Mapping[str, str], *, share: float, seed: int) -> Fold:
    """Keep a share of a fold's training groups, at least one; with one seed, smaller shares are nested."""
    names = sorted(_groups(set(fold.train), groups))
    random.Random(seed).shuffle(names)
    kept = set(names[: max(1, round(share * len(names)))])
    return Fold(tuple(case for case in fold.train if groups[case] in kept), fold.validation)


def read_folds(path: str | Path, groups: Mapping[str, str], *, test: Collection[str] = ()) -> tuple[Fold, ...]:
    """Read folds from nnU-Net's `splits_final.json`, a list of {"train": [...], "val": [...]}.

    A case may be in no fold; `test` cases are left out of all of them. Raises one DataError for all problems: unknown
    cases, a case in train and val, a group on both sides or validated in two folds, an empty side.
    """
    file = Path(path)
    try:
        entries = read_foreign_json(file)
    except ValueError as error:
        raise DataError([str(error)]) from error
    if not isinstance(entries, list) or not entries or not all(_is_entry(entry) for entry in entries):
        raise DataError([f'{file}: is not a list of {{"train": [CASE, ...], "val": [CASE, ...]}}'])
    problems: list[str] = []
    folds: list[Fold] = []
    validated: dict[str, int] = {}
    for number, entry in enumerate(entries):
        train, validation = set(entry["train"]) - set(test), set(entry["val"]) - set(test)
        folds.append(_fold(train, validation))
        place = f"{file}: fold {number}"
        problems += [f"{place}: unknown case {name}" for name in sorted((train | validation) - set(groups))]
        sides = {"train": train, "val": validation}
        problems += [
            f"{place}: '{side}' {'has only test cases' if entry[side] else 'is empty'}"
            for side, cases in sides.items()
            if not cases
        ]
        problems += [f"{place}: case {name} is in both train and val" for name in sorted(train & validation)]
        both = _groups(train - validation, groups) & _groups(validation - train, groups)
        problems += [f"{place}: group {group} is in both train and val" for group in sorted(both)]
        for group in sorted(_groups(validation, groups)):
            first = validated.setdefault(group, number)
            if first != number:
                problems.append(f"{place}: group {group} is already validated in fold {first}")
    if problems:
        raise DataError(problems)
    return tuple(folds)


def _fold(train: set[str], validation: set[str]) -> Fold:
    return Fold(train=tuple(sorted(train)), validation=tuple(sorted(validation)))


def _groups(cases: set[str], groups: Mapping[str, str]) -> set[str]:
    return {groups[case] for case in cases if case in groups}


def _is_entry(entry: Any) -> bool:
    return isinstance(entry, dict) and all(
        isinstance(entry.get(side), list) and all(isinstance(name, str) for name in entry[side])
        for side in ("train", "val")
    )
