"""Patients: find case names that look grouped, and the pattern that groups them."""

from __future__ import annotations

import re
from collections.abc import Sequence

LEVELS = 3  # numbers at the start of a name that are tried as the name of a patient
FEWEST = 0.1  # groups per case; fewer are sites or years rather than patients


def suggest_group(names: Sequence[str]) -> str | None:
    """Return the pattern for `data.group` if several cases seem to be of one patient, as patient001_frame01 and 02.

    A patient is what all names have up to their first number (or second, or third), if a separator follows it.
    """
    for level in range(1, LEVELS + 1):
        pattern = r"\D*\d+" * level + r"(?![0-9A-Za-z])"
        found = [match.group(0) for name in names if (match := re.match(pattern, name))]
        groups = len(set(found))
        if len(found) < len(names):
            return None
        if max(2, FEWEST * len(names)) <= groups < len(names):
            forms = {_form(each) for each in found}
            return forms.pop() if len(forms) == 1 else "^" + pattern.removesuffix(r"(?![0-9A-Za-z])")
    return None


def group_warning(names: Sequence[str]) -> str:
    """Return the warning for a data set without `data.group` whose case names look grouped; empty if they don't."""
    pattern = suggest_group(names)
    if pattern is None:
        return ""
    members: dict[str, list[str]] = {}
    for name in sorted(names):
        members.setdefault(re.search(pattern, name)[0], []).append(name)  # type: ignore[index]  # it matches all
    one, other, *_ = max(members.values(), key=len)
    return (
        f"data.group is not set, but {one} and {other} look like one patient: with one of them in training and the "
        f"other in validation, the Dice is too high. If so, write `group: {pattern}` under `data`"
    )


def _form(name: str) -> str:
    """Return a name as a regular expression with its numbers left open."""
    return re.sub(r"\d+", lambda _: r"\d+", re.sub(r"[^\w\s-]", lambda found: re.escape(found[0]), name))
