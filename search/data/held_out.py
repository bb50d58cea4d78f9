"""Test cases: chosen from a seed and the cases' names, then kept out of everything that a search sees."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from search.data.check import DataFacts, facts_of, restricted_to
from search.data.read import DataError, Dataset

SHOWN = 3  # names in a message


@dataclass(frozen=True)
class HeldOut:
    """The test cases, as a data set of their own."""

    dataset: Dataset
    facts: DataFacts

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the test cases, sorted."""
        return tuple(case.name for case in self.facts.cases)


def choose_test_cases(groups: Mapping[str, str], wanted: float | Sequence[str], *, seed: int) -> tuple[str, ...]:
    """Return the test cases, sorted: those of a share of the groups (at least one), or those named.

    A share depends on the seed and the names of cases and groups alone. Raises one DataError with all problems:
    unknown or repeated names, a group with cases on both sides, no case left to train on.
    """
    if isinstance(wanted, float):
        names = sorted(set(groups.values()))
        random.Random(f"test cases {seed}").shuffle(names)  # not in the order of the folds, whose seed is the same
        chosen = set(names[: max(1, round(wanted * len(names)))])
        found = {case for case, group in groups.items() if group in chosen}
    else:
        _require_whole_groups(groups, wanted)
        found = set(wanted)
    if found == set(groups):
        raise DataError(["data.test: takes all cases; leave some for the search"])
    return tuple(sorted(found))


def _require_whole_groups(groups: Mapping[str, str], wanted: Sequence[str]) -> None:
    problems = [f"data.test: there is no case {name!r}" for name in dict.fromkeys(wanted) if name not in groups]
    problems += [f"data.test: {name!r} is listed twice" for name in sorted({n for n in wanted if wanted.count(n) > 1})]
    for group in sorted({groups[name] for name in wanted if name in groups}):
        missing = [case for case in sorted(groups) if groups[case] == group and case not in wanted]
        if missing:
            problems.append(f"data.test: lists only some cases of group {group}; add {_some(missing)}")
    if problems:
        raise DataError(problems)


def hold_out(dataset: Dataset, facts: DataFacts, names: Collection[str]) -> tuple[Dataset, DataFacts, HeldOut]:
    """Split a checked data set into what the search sees and the test cases.

    Medians and problems are those of each part. Raises DataError if a class is absent from what the search sees.
    """
    rest = [case.name for case in facts.cases if case.name not in names]
    kept, held = restricted_to(dataset, rest), restricted_to(dataset, names)
    seen, unseen = facts_of(kept, facts, rest), facts_of(held, facts, names)
    if not any(any(case.voxels_per_class[1:]) for case in unseen.cases):
        raise DataError(
            [f"data.test: the test cases ({_some(list(names))}) contain only background, so no Dice can be measured"]
        )
    if seen.problems:
        raise DataError([f"{problem} outside the test cases (data.test)" for problem in seen.problems])
    return kept, seen, HeldOut(held, unseen)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
