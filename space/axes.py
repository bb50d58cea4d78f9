"""Axes and spaces: what may be chosen, under which condition, and the pure operations on choices."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from random import Random

from space.architecture import Architecture, Value
from space.canonical import Context, canonical

Decisions = dict[str, Value]


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


class DecisionError(ValueError):
    """Decisions that name what the space doesn't hold; `problems` says each as (axis, message)."""

    def __init__(self, problems: tuple[tuple[str, str], ...]):
        super().__init__("; ".join(f"{name}: {message}" for name, message in problems))
        self.problems = problems


@dataclass(frozen=True)
class Space:
    """Axes in an order in which each comes after those that its condition names, and the patch they meet."""

    axes: tuple[Axis, ...]
    context: Context
    tied: bool = field(default=False)

    @cached_property
    def by_name(self) -> dict[str, Axis]:
        """The axes by name."""
        return {axis.name: axis for axis in self.axes}

    def open_axes(self, decisions: Mapping[str, Value]) -> list[Axis]:
        """Return the axes that exist under these decisions."""
        return [axis for axis in self.axes if axis.is_open(decisions)]

    def architecture(self, decisions: Mapping[str, Value]) -> Architecture:
        """Spell the network out; decisions must be complete."""
        return canonical(decisions, self.context)

    def complete(self, partial: Mapping[str, Value]) -> Decisions:
        """Fill what is not said with each axis's first choice, and drop closed axes.

        Raises DecisionError for names and values that the space doesn't hold, all at once.
        """
        problems = [(name, "no such axis in this space") for name in partial if name not in self.by_name]
        for name, value in partial.items():
            axis = self.by_name.get(name)
            if axis and value not in axis.choices:
                problems.append((name, f"{value!r} is not among {list(axis.choices)}"))
        if problems:
            raise DecisionError(tuple(problems))
        return self.walk(lambda axis: partial.get(axis.name, axis.choices[0]))

    def sample(self, rng: Random) -> Decisions:
        """Decide every open axis at random, evenly over its choices."""
        return self.walk(lambda axis: rng.choice(axis.choices))

    def neighbours(self, decisions: Mapping[str, Value]) -> Iterator[Decisions]:
        """Yield every decision set that differs in exactly one decision; closed axes healed, first choices opened."""
        for axis in self.open_axes(decisions):
            for choice in axis.choices:
                if choice != decisions[axis.name]:
                    changed = {**decisions, axis.name: choice}
                    yield self.walk(lambda each, c=changed: c.get(each.name, each.choices[0]))  # type: ignore[misc]

    def crossover(self, one: Mapping[str, Value], other: Mapping[str, Value], rng: Random) -> Decisions:
        """Take each decision from either parent that has it open."""

        def pick(axis: Axis) -> Value:
            held = [parent[axis.name] for parent in (one, other) if axis.name in parent]
            return rng.choice(held) if held else axis.choices[0]

        return self.walk(pick)

    def enumerate(self) -> Iterator[Decisions]:
        """Yield every complete decision set once."""
        yield from self._extend({}, 0)

    @cached_property
    def size(self) -> int:
        """Exact number of complete decision sets, counted without making them."""
        return _count(self.axes, {})

    def _extend(self, decided: Decisions, index: int) -> Iterator[Decisions]:
        if index == len(self.axes):
            yield dict(decided)
            return
        axis = self.axes[index]
        if not axis.is_open(decided):
            yield from self._extend(decided, index + 1)
            return
        for choice in axis.choices:
            yield from self._extend({**decided, axis.name: choice}, index + 1)

    def walk(self, choose: Callable[[Axis], Value]) -> Decisions:
        """Decide the axes in their order, each open one by `choose`."""
        decided: Decisions = {}
        for axis in self.axes:
            if axis.is_open(decided):
                decided[axis.name] = choose(axis)
        return decided


def _count(axes: tuple[Axis, ...], decided: Decisions) -> int:
    """Count by splitting on axes that others depend on; the rest multiply."""
    total = 1
    for index, axis in enumerate(axes):
        rest = axes[index + 1 :]
        dependants = [other for other in rest if any(name == axis.name for name, _ in other.when)]
        if not axis.is_open(decided):
            continue
        if not dependants:
            total *= len(axis.choices)
            continue
        tree = _tree(axis, rest)
        others = tuple(other for other in rest if other.name not in tree)
        inside = tuple(other for other in rest if other.name in tree)
        branch = sum(_count(inside, {**decided, axis.name: choice}) for choice in axis.choices)
        return total * branch * _count(others, decided)
    return total


def _tree(root: Axis, rest: tuple[Axis, ...]) -> set[str]:
    """Name the axes of `rest` that depend on `root`, directly or through others."""
    names = {root.name}
    for axis in rest:
        if any(name in names for name, _ in axis.when):
            names.add(axis.name)
    return names - {root.name}


def log10_size(size: int) -> float:
    """Return the decimal logarithm of a size that may not fit a float."""
    return math.log10(size) if size > 0 else 0.0
