"""All checks of one block, over its options."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from search.export.block_contract.checks import CHECKS, ONCE, Broken, Check, Skipped
from search.export.block_contract.subject import Subject, subjects
from space.specs.spec import BlockSpec

Outcome = Literal["passed", "failed", "skipped"]


@dataclass(frozen=True)
class Result:
    """The result of one check."""

    check: str
    result: Outcome
    detail: str


def check_spec(spec: BlockSpec) -> list[Result]:
    """Run every check at the block's first choices and with each other choice; a check ends at its first failure."""
    made = list(subjects(spec))
    return [_run(name, check, made[:1] if check in ONCE else made) for name, check in CHECKS.items()]


def _run(name: str, check: Check, made: Sequence[Subject]) -> Result:
    details = []
    for subject in made:
        with_options = f"with {subject}: " if subject.options else ""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                details.append(check(subject))
        except Skipped as error:
            return Result(name, "skipped", str(error))
        except Broken as error:
            return Result(name, "failed", f"{with_options}{error}")
        except Exception as error:  # a user's block may raise anything
            lines = str(error).strip().splitlines() or [""]
            return Result(name, "failed", f"{with_options}{type(error).__name__}: {lines[0]}")
    more = f" ({len(made)} sets of options)" if len(made) > 1 else ""
    return Result(name, "passed", f"{details[0]}{more}")
