"""Axes and rules: the choices of a search space and their conditions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from space.architecture import Value


@dataclass(frozen=True)
class Axis:
    """A dimension of the search space: its choices, and the earlier decisions under which it is open.

    `when` is a conjunction: each named axis must be open and have one of the listed values.
    """

    name: str
    choices: tuple[Value, ...]
    meaning: str
    when: tuple[tuple[str, tuple[Value, ...]], ...] = ()

    def is_open(self, decisions: Mapping[str, Value]) -> bool:
        """Return whether the axis is open under the decisions before it."""
        return all(decisions.get(name) in allowed for name, allowed in self.when)


@dataclass(frozen=True)
class Rule:
    """A combination of decisions that a study forbids, and why.

    The rule forbids decisions that meet all its conditions. A condition (axes, values) is met if any of the axes is
    open and has one of the values.
    """

    when: tuple[tuple[tuple[str, ...], tuple[Value, ...]], ...]
    why: str

    def forbids(self, decisions: Mapping[str, Value]) -> bool:
        """Return whether complete decisions meet all conditions."""
        return all(any(decisions.get(name) in values for name in names) for names, values in self.when)


class DecisionError(ValueError):
    """Invalid decisions; `problems` lists each mistake as (axis, message)."""

    def __init__(self, problems: tuple[tuple[str, str], ...]):
        super().__init__("; ".join(f"{name}: {message}" for name, message in problems))
        self.problems = problems
