"""Find which cases belong together by their names: two frames or visits of one patient must not be split."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

SEPARATED = re.compile(r"(.*\d)[._-][^._-]+")  # a part with a number, a separator, and one more part
FEWEST_GROUPS = 3


def guess_group(names: Sequence[str]) -> str | None:
    """Return a pattern whose match is the patient's part of each name; None where every case seems to be a patient.

    `patient001_frame01` gives `patient\\d+`. A pattern is returned only if it matches all names, and if some of its
    groups hold several cases.
    """
    matches = [SEPARATED.fullmatch(name) for name in names]
    if None in matches or not matches:
        return None
    parts = [match[1] for match in matches if match]
    groups = Counter(parts)
    if len(groups) < FEWEST_GROUPS or len(groups) == len(names):
        return None
    forms = {_form(part) for part in parts}
    pattern = forms.pop() if len(forms) == 1 else r"(.*\d)[._-][^._-]+$"
    found = [re.search(pattern, name) for name in names]
    as_meant = all(
        match and (match[1] if match.re.groups else match[0]) == part for match, part in zip(found, parts, strict=True)
    )
    return pattern if as_meant else None


def _form(part: str) -> str:
    """Return a regular expression for a name's part: its text, with any number where it has one."""
    return re.sub(r"\d+", r"\\d+", re.escape(part).replace(r"\-", "-"))
