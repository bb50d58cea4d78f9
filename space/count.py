"""Count a space's decision sets without enumerating them: one pass over the axes that merges equal states."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from space.architecture import Value
from space.axes import Axis, Rule

Met = frozenset[int] | None  # the met conditions of a rule; None once the rule can no longer apply
State = tuple[tuple[tuple[str, Value], ...], tuple[Met, ...]]


def count_decisions(axes: Sequence[Axis], rules: Sequence[Rule]) -> int:
    """Count the complete decision sets that no rule forbids.

    A state holds all that later axes and rules depend on: the decisions that open or close them, with equivalent
    choices merged, and the conditions already met for each rule. Cost: axes x states x choices.
    """
    dependents = _dependents(axes)
    states: Counter[State] = Counter({((), tuple(frozenset[int]() for _ in rules)): 1})
    for index, axis in enumerate(axes):
        after: Counter[State] = Counter()
        for (decided, met), number in states.items():
            known = dict(decided)
            choices = axis.choices if axis.is_open(known) else (None,)
            for choice in choices:
                advanced = _advance(rules, met, axes, index, choice)
                if advanced is None:
                    continue
                if choice is not None and axis.name in dependents:
                    known[axis.name] = _representative(axis, choice, dependents)
                kept = tuple((name, value) for name, value in known.items() if dependents.get(name, (0, ()))[0] > index)
                after[kept, advanced] += number
        states = after
    return sum(states.values())


def _dependents(axes: Sequence[Axis]) -> dict[str, tuple[int, tuple[tuple[Value, ...], ...]]]:
    """Return, for each axis named in conditions, the index of the last axis that depends on it and the allowed values.

    The allowed values are listed once per distinct condition.
    """
    found: dict[str, tuple[int, tuple[tuple[Value, ...], ...]]] = {}
    for index, axis in enumerate(axes):
        for name, allowed in axis.when:
            found[name] = (index, tuple(dict.fromkeys((*found.get(name, (0, ()))[1], allowed))))
    return found


def _representative(
    axis: Axis, choice: Value, dependents: dict[str, tuple[int, tuple[tuple[Value, ...], ...]]]
) -> Value:
    """Return the first choice that all conditions treat the same as this choice."""
    conditions = dependents[axis.name][1]
    mine = [choice in allowed for allowed in conditions]
    return next(other for other in axis.choices if [other in allowed for allowed in conditions] == mine)


def _advance(
    rules: Sequence[Rule], met: tuple[Met, ...], axes: Sequence[Axis], index: int, choice: Value | None
) -> tuple[Met, ...] | None:
    """Return the met conditions of each rule after this decision; None if a rule forbids it."""
    name = axes[index].name
    after: list[Met] = []
    for rule, seen in zip(rules, met, strict=True):
        if seen is None:
            after.append(None)
            continue
        now = seen | {k for k, (names, values) in enumerate(rule.when) if name in names and choice in values}
        if len(now) == len(rule.when):
            return None
        later = {axis.name for axis in axes[index + 1 :]}
        possible = all(k in now or later & set(names) for k, (names, _) in enumerate(rule.when))
        after.append(frozenset(now) if possible else None)
    return tuple(after)
