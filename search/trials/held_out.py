"""A use of the test cases: one trained network, scored once on the cases that no search sees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import TypeAdapter

from search.trials.records import CaseDice

FILE = "test.json"  # in the study's folder: all uses, as in its database


@dataclass(frozen=True)
class HeldOutScore:
    """The scores of a trial's weights on the test cases; `at` is the time in UTC, `pick` the rule that chose them.

    `dice` and `cases` are without postprocessing. `keep_largest` holds the postprocessing that an export of these
    weights applies (see `search.data.components.keep_largest`), and `postprocessed` the scores with it; both are empty
    if there is none.
    """

    trial: int
    fingerprint: str
    weights_sha256: str
    pick: str
    at: str
    dice: float
    cases: tuple[CaseDice, ...]
    versions: tuple[tuple[str, str], ...] = ()
    keep_largest: tuple[tuple[int, ...], ...] = ()
    postprocessed: tuple[CaseDice, ...] = ()

    def to_values(self) -> dict[str, Any]:
        """Return the plain nested values that JSON holds."""
        return asdict(self)

    @staticmethod
    def from_values(values: Any) -> HeldOutScore:
        """Read what `to_values` gave. Raises ValueError at other content."""
        return _SCORE.validate_python(values)


def score_of(uses: Sequence[HeldOutScore], *, trial: int, weights_sha256: str) -> HeldOutScore | None:
    """Return the score of these very weights, if they were scored."""
    return next((use for use in uses if (use.trial, use.weights_sha256) == (trial, weights_sha256)), None)


_SCORE: TypeAdapter[HeldOutScore] = TypeAdapter(HeldOutScore)
