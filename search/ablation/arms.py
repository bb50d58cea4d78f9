"""The arms that an ablation file asks for, as changes of its base; nothing of data is known yet.

remove   one component a time taken out: a place's attention, a switch, a rate
replace  one axis a time through the values named
add      a bare base without any of the components, and each alone put back (or in, with the value named)
grid     the product of axes
list     spelled out, each under its own name

A key is an axis (`attention@skips`, `csam.slice`), a key of `training`, or `data.share`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from search.ablation.schema import Ablation, Arms
from search.config.yaml_source import KeyPath
from space.axes import Axis
from space.axis_values import matching_axes
from space.specs.registry import BUILT_IN
from space.specs.spec import BlockSpec
from space.unet_axes import full_axes

BASE = "base"
BARE = "bare"
SECTIONS = ("training.", "data.")
SHARE = "data.share"  # the one key of data that an arm may change
ABSENT: tuple[Any, ...] = ("none", False, 0.0, "single")


@dataclass(frozen=True)
class RequestedArm:
    """An arm as the file asks for it: what it changes of the base, and where the file says so."""

    name: str
    changes: tuple[tuple[str, Any], ...]
    place: KeyPath

    @property
    def settings(self) -> dict[str, Any]:
        """What it changes of training and data, by dotted key."""
        return {key: value for key, value in self.changes if key.startswith(SECTIONS)}

    @property
    def axes(self) -> dict[str, Any]:
        """What it changes of the network."""
        return {key: value for key, value in self.changes if not key.startswith(SECTIONS)}


def requested_arms(
    ablation: Ablation, blocks: Sequence[BlockSpec] = BUILT_IN
) -> tuple[list[RequestedArm], list[tuple[KeyPath, str]]]:
    """Return the base and all arms, and what can't be said (path in the file, message)."""
    problems: list[tuple[KeyPath, str]] = []
    arms = ablation.arms
    asked = [RequestedArm(BASE, (), ("base",))]
    axes = full_axes("each", blocks=blocks)
    for made in (
        _removed(arms, axes, problems),
        _replaced(arms),
        _added(arms, axes, problems),
        _grid(arms),
        _listed(arms),
    ):
        asked += made
    if len(asked) == 1:
        problems.append((("arms",), "no arm is asked for; name some under remove, replace, add, grid or list"))
    for number, each in enumerate(asked):
        if each.name in [other.name for other in asked[:number]]:
            problems.append((each.place, f"two arms are called {each.name!r}"))
        wrong = [key for key in each.settings if key.startswith("data.") and key != SHARE]
        problems += [(each.place, f"{key!r} is not for arms to change; of data only {SHARE} is") for key in wrong]
    return asked, problems


def _removed(arms: Arms, axes: Sequence[Axis], problems: list[tuple[KeyPath, str]]) -> Iterable[RequestedArm]:
    for number, key in enumerate(arms.remove):
        place: KeyPath = ("arms", "remove", number)
        yield RequestedArm(f"no {key}", tuple(_without(key, axes, place, problems).items()), place)


def _replaced(arms: Arms) -> Iterable[RequestedArm]:
    for key, values in arms.replace.items():
        for value in values:
            yield RequestedArm(_name({key: value}), ((key, value),), ("arms", "replace", key))


def _added(arms: Arms, axes: Sequence[Axis], problems: list[tuple[KeyPath, str]]) -> Iterable[RequestedArm]:
    """Yield the base without any of the components, and each of them alone."""
    if not arms.add:
        return
    keys = list(arms.add)
    places: list[KeyPath] = [("arms", "add", key if isinstance(arms.add, dict) else n) for n, key in enumerate(keys)]
    bare: dict[str, Any] = {}
    for key, place in zip(keys, places, strict=True):
        bare |= _without(key, axes, place, problems)
    yield RequestedArm(BARE, tuple(bare.items()), ("arms", "add"))
    for key, place in zip(keys, places, strict=True):
        others = {other: gone for other, gone in bare.items() if other != key}
        values = _values(arms.add[key]) if isinstance(arms.add, dict) else (None,)
        for value in values:
            put: dict[str, Any] = {} if value is None else {key: value}
            yield RequestedArm(f"{BARE} + {_name(put) if put else key}", tuple({**others, **put}.items()), place)


def _grid(arms: Arms) -> Iterable[RequestedArm]:
    if arms.grid:
        for values in product(*arms.grid.values()):
            changes = dict(zip(arms.grid, values, strict=True))
            yield RequestedArm(_name(changes), tuple(changes.items()), ("arms", "grid"))


def _listed(arms: Arms) -> Iterable[RequestedArm]:
    for name, changes in arms.list.items():
        yield RequestedArm(name, tuple(changes.items()), ("arms", "list", name))


def _values(said: Any) -> tuple[Any, ...]:
    return tuple(said) if isinstance(said, list) else (said,)


def _without(key: str, axes: Sequence[Axis], place: KeyPath, problems: list[tuple[KeyPath, str]]) -> dict[str, Any]:
    """Return the axis at the value under which its component isn't there; nothing where that is a problem.

    A name that no axis has is left for the space to refuse.
    """
    matching = matching_axes(key, axes)
    choices = matching[0].choices if matching else ()
    for gone in ABSENT:
        if any(choice == gone and type(choice) is type(gone) for choice in choices):
            return {key: gone}
    if matching:
        shown = ", ".join(str(choice) for choice in choices)
        problems.append((place, f"{key!r} is not a component that can be left out (choices: {shown})"))
    elif key.startswith(SECTIONS):
        problems.append((place, f"{key!r} is a setting, which can't be left out; give it values under `replace`"))
    return {} if matching or key.startswith(SECTIONS) else {key: None}


def _name(changes: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} = {_shown(value)}" for key, value in changes.items())


def _shown(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return "x".join(str(each) for each in value)
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value)
