"""Mistakes in a user's input, with position, key and allowed values; all reported at once, without a traceback."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches


@dataclass(frozen=True)
class Mistake:
    """One mistake: `place` is file:line:column or an option, `key` is dotted and may be empty."""

    place: str
    key: str
    message: str

    def __str__(self) -> str:
        key = "" if self.place == f"--set {self.key}" else self.key
        return ": ".join(part for part in (self.place, key, self.message) if part)


class UserError(Exception):
    """Mistakes that the user can fix; the command line prints one per line and exits with code 2."""

    exit_code = 2

    def __init__(self, mistakes: Iterable[Mistake | str]):
        self.mistakes = tuple(each if isinstance(each, Mistake) else Mistake("", "", each) for each in mistakes)
        super().__init__("\n".join(str(mistake) for mistake in self.mistakes))


class RunError(UserError):
    """What stopped a correct command: a full disk, a server that can't be reached, trials that failed. Exit code 1."""

    exit_code = 1


def nearest(word: object, allowed: Sequence[str]) -> str:
    """Return the end of a message about an unknown word: the nearest match and the allowed words."""
    close = get_close_matches(str(word), allowed, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"{hint} (allowed: {', '.join(allowed)})"
