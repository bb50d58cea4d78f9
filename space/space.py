"""The search space: axes with conditions and rules, and sampling, mutation and enumeration of decisions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from random import Random

from space.architecture import Architecture, Value
from space.axes import Axis, DecisionError, Rule
from space.canonical import Context, Decisions, canonical
from space.count import count_decisions
from space.specs.registry import BUILT_IN
from space.specs.spec import BlockSpec

MAX_DRAWS = 10_000  # per sample, before sampling gives up


@dataclass(frozen=True)
class Space:
    """A search space: its axes, each after all axes in its condition, its rules, and the networks' input.

    `blocks` lists the attention blocks that places may have. With a `base`, the axes are those that a study opens on
    it; everything else stays as in the base.
    """

    axes: tuple[Axis, ...]
    context: Context
    tied: bool = field(default=False)
    rules: tuple[Rule, ...] = ()
    base: Architecture | None = None
    blocks: tuple[BlockSpec, ...] = BUILT_IN

    @cached_property
    def by_name(self) -> dict[str, Axis]:
        """The axes by name."""
        return {axis.name: axis for axis in self.axes}

    def open_axes(self, decisions: Mapping[str, Value]) -> list[Axis]:
        """Return the axes that are open under these decisions."""
        return [axis for axis in self.axes if axis.is_open(decisions)]

    def architecture(self, decisions: Mapping[str, Value]) -> Architecture:
        """Return the architecture of complete decisions."""
        return canonical(decisions, self.context, self.base, blocks=self.blocks)

    def forbidden(self, decisions: Mapping[str, Value]) -> str:
        """Return why the study forbids these complete decisions; empty if it allows them."""
        return next((rule.why for rule in self.rules if rule.forbids(decisions)), "")

    def complete(self, partial: Mapping[str, Value]) -> Decisions:
        """Fill missing decisions with each axis's first choice, and drop closed axes.

        Raises DecisionError with all unknown names and values, or for decisions that the study forbids.
        """
        problems = [(name, "no such axis in this space") for name in partial if name not in self.by_name]
        for name, value in partial.items():
            axis = self.by_name.get(name)
            if axis and value not in axis.choices:
                problems.append((name, f"{value!r} is not among {list(axis.choices)}"))
        if problems:
            raise DecisionError(tuple(problems))
        decisions = self.walk(lambda axis: partial.get(axis.name, axis.choices[0]))
        why = self.forbidden(decisions)
        if why:
            raise DecisionError((("forbid", why),))
        return decisions

    def sample(self, rng: Random) -> Decisions:
        """Draw each open axis uniformly over its choices; redraw until the study allows the decisions.

        Raises DecisionError after MAX_DRAWS forbidden draws.
        """
        for _ in range(MAX_DRAWS):
            decisions = self.walk(lambda axis: rng.choice(axis.choices))
            if not self.forbidden(decisions):
                return decisions
        raise DecisionError((("forbid", f"the rules excluded {MAX_DRAWS} random networks in a row"),))

    def neighbours(self, decisions: Mapping[str, Value]) -> Iterator[Decisions]:
        """Yield all allowed decision sets that differ in one decision; newly opened axes take their first choice."""
        for axis in self.open_axes(decisions):
            for choice in axis.choices:
                if choice == decisions[axis.name]:
                    continue
                changed = {**decisions, axis.name: choice}
                other = self.walk(lambda each, c=changed: c.get(each.name, each.choices[0]))  # type: ignore[misc]
                if not self.forbidden(other):
                    yield other

    def enumerate(self) -> Iterator[Decisions]:
        """Yield each allowed complete decision set once."""
        return (decisions for decisions in self._extend({}, 0) if not self.forbidden(decisions))

    @cached_property
    def size(self) -> int:
        """The exact number of allowed complete decision sets, counted without enumeration."""
        return count_decisions(self.axes, self.rules)

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
        """Decide the axes in order, each open axis by `choose`."""
        decided: Decisions = {}
        for axis in self.axes:
            if axis.is_open(decided):
                decided[axis.name] = choose(axis)
        return decided
