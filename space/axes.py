"""Axes and rules: what may be chosen, and under which condition."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from space.architecture import Value


@dataclass(frozen=True)
class Axis:
    """One thing to decide: its choices, and the earlier decisions under which it exists.

    `when` is a conjunction: each named axis must be open and hold one of the listed values.
    """

    name: str
    choices: tuple[Value, ...]
    meaning: str
    when: tuple[tuple[str, tuple[Value, ...]], ...] = ()

    def is_open(self, decisions: Mapping[str, Value]) -> bool:
        """Tell whether the axis exists, given the decisions before it."""
        return all(decisions.get(name) in allowed for name, allowed in self.when)


@dataclass(frozen=True)
class Rule:
    """What a study forbids, and why: decisions that meet every condition.

    A condition is (axes, values), met where any of the axes is open and holds one of the values.
    """

    when: tuple[tuple[tuple[str, ...], tuple[Value, ...]], ...]
    why: str

    def forbids(self, decisions: Mapping[str, Value]) -> bool:
        """Tell whether complete decisions meet every condition."""
        return all(any(decisions.get(name) in values for name in names) for names, values in self.when)


class DecisionError(ValueError):
    """Decisions that name what the space doesn't hold; `problems` says each as (axis, message)."""

    def __init__(self, problems: tuple[tuple[str, str], ...]):
        super().__init__("; ".join(f"{name}: {message}" for name, message in problems))
        self.problems = problems
