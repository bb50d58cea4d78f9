"""The arms of an ablation file, as changes of its base; the data are not read yet.

remove   remove one component at a time: the attention at a place, a switch, a rate
replace  set one axis or setting at a time to each of the given values
add      a bare base without the components, then each alone restored (or set to the given value)
grid     all combinations of axes or settings
list     arms by name, each with its own changes

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
SHARE = "data.share"  # the only key of `data` that an arm may change
ABSENT: tuple[Any, ...] = ("none", False, 0.0, "single")


@dataclass(frozen=True)
class RequestedArm:
    """An arm as the file defines it: its changes of the base, and its place in the file."""

    name: str
    changes: tuple[tuple[str, Any], ...]
    place: KeyPath

    @property
    def settings(self) -> dict[str, Any]:
        """The changes of training and data, by dotted key."""
        return {key: value for key, value in self.changes if key.startswith(SECTIONS)}

    @property
    def axes(self) -> dict[str, Any]:
        """The changes of the network, by axis."""
        return {key: value for key, value in self.changes if not key.startswith(SECTIONS)}


def requested_arms(
    ablation: Ablation, blocks: Sequence[BlockSpec] = BUILT_IN
) -> tuple[list[RequestedArm], list[tuple[KeyPath, str]]]:
    """Return the base and all arms, and the mistakes as (path in the file, message)."""
    problems: list[tuple[KeyPath, str]] = []
    arms = ablation.arms
    requested = [RequestedArm(BASE, (), ("base",))]
    axes = full_axes("each", blocks=blocks)
    for found in (
        _removed(arms, axes, problems),
        _replaced(arms),
        _added(arms, axes, problems),
        _grid(arms),
        _listed(arms),
    ):
        requested += found
    if len(requested) == 1:
        problems.append((("arms",), "there are no arms; define some under remove, replace, add, grid or list"))
    for number, each in enumerate(requested):
        if each.name in [other.name for other in requested[:number]]:
            problems.append((each.place, f"two arms have the name {each.name!r}"))
        wrong = [key for key in each.settings if key.startswith("data.") and key != SHARE]
        problems += [
            (each.place, f"arms can't change {key!r}; the only key of data they can is {SHARE}") for key in wrong
        ]
    return requested, problems


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
        others = {other: absent for other, absent in bare.items() if other != key}
        values = _values(arms.add[key]) if isinstance(arms.add, dict) else (None,)
        for value in values:
            added: dict[str, Any] = {} if value is None else {key: value}
            yield RequestedArm(f"{BARE} + {_name(added) if added else key}", tuple({**others, **added}.items()), place)


def _grid(arms: Arms) -> Iterable[RequestedArm]:
    if arms.grid:
        for values in product(*arms.grid.values()):
            changes = dict(zip(arms.grid, values, strict=True))
            yield RequestedArm(_name(changes), tuple(changes.items()), ("arms", "grid"))


def _listed(arms: Arms) -> Iterable[RequestedArm]:
    for name, changes in arms.list.items():
        yield RequestedArm(name, tuple(changes.items()), ("arms", "list", name))


def _values(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, list) else (value,)


def _without(key: str, axes: Sequence[Axis], place: KeyPath, problems: list[tuple[KeyPath, str]]) -> dict[str, Any]:
    """Return the change that removes a component; empty, with a problem added, if it can't be removed.

    Unknown axes are passed on, so that the space reports them.
    """
    matching = matching_axes(key, axes)
    choices = matching[0].choices if matching else ()
    for absent in ABSENT:
        if any(choice == absent and type(choice) is type(absent) for choice in choices):
            return {key: absent}
    if matching:
        shown = ", ".join(str(choice) for choice in choices)
        problems.append((place, f"{key!r} is not a component that can be removed (choices: {shown})"))
    elif key.startswith(SECTIONS):
        problems.append((place, f"{key!r} is a setting and can't be removed; give it values under `replace`"))
    return {} if matching or key.startswith(SECTIONS) else {key: None}


def _name(changes: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} = {_shown(value)}" for key, value in changes.items())


def _shown(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return "x".join(str(each) for each in value)
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value)
