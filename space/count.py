"""How many decision sets a space holds, without making them: one pass over its axes, states merged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from space.architecture import Value
from space.axes import Axis, Rule

Met = frozenset[int] | None  # which conditions of a rule are met; None where it can't forbid any more
State = tuple[tuple[tuple[str, Value], ...], tuple[Met, ...]]


def count_decisions(axes: Sequence[Axis], rules: Sequence[Rule]) -> int:
    """Count complete decision sets that no rule forbids.

    A state is what later axes and rules still ask for: the decisions that open or close them, equal ones merged,
    and the conditions that each rule has seen met. Cost: axes x states x choices.
    """
    asked = _asked(axes)
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
                if choice is not None and axis.name in asked:
                    known[axis.name] = _stand_in(axis, choice, asked)
                kept = tuple((name, value) for name, value in known.items() if asked.get(name, (0, ()))[0] > index)
                after[kept, advanced] += number
        states = after
    return sum(states.values())


def _asked(axes: Sequence[Axis]) -> dict[str, tuple[int, tuple[tuple[Value, ...], ...]]]:
    """Return, for each axis that conditions name, the last axis that asks for it and the values they allow."""
    found: dict[str, tuple[int, tuple[tuple[Value, ...], ...]]] = {}
    for index, axis in enumerate(axes):
        for name, allowed in axis.when:
            found[name] = (index, tuple(dict.fromkeys((*found.get(name, (0, ()))[1], allowed))))
    return found


def _stand_in(axis: Axis, choice: Value, asked: dict[str, tuple[int, tuple[tuple[Value, ...], ...]]]) -> Value:
    """Return the first choice that every condition treats as it treats this one."""
    conditions = asked[axis.name][1]
    mine = [choice in allowed for allowed in conditions]
    return next(other for other in axis.choices if [other in allowed for allowed in conditions] == mine)


def _advance(
    rules: Sequence[Rule], met: tuple[Met, ...], axes: Sequence[Axis], index: int, choice: Value | None
) -> tuple[Met, ...] | None:
    """Return what each rule has seen met after this decision; None where one of them forbids."""
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
