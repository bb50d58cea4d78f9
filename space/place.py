"""Place: a position in a U where an attention block may sit, and the axis names that refer to one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, TypeVar, get_args

Kind = Literal["encoder", "bottleneck", "skip", "decoder"]
KINDS: tuple[Kind, ...] = get_args(Kind)
ATTENTION = "attention"
T = TypeVar("T")


@dataclass(frozen=True)
class Place:
    """A kind of place and its level; level 0 is full resolution.

    `level` is None for the bottleneck, whose level depends on the network, and for a group: `Place("skip")` is
    `skips`, all skips together.
    """

    kind: Kind
    level: int | None = None

    def __str__(self) -> str:
        if self.level is not None:
            return f"{self.kind}{self.level}"
        return f"{self.kind}s" if self.is_group else self.kind

    @staticmethod
    @lru_cache
    def parse(text: str) -> Place:
        """Parse the text of `str(place)`. Raises ValueError for any other text."""
        for kind in KINDS:
            if text == str(Place(kind)):
                return Place(kind)
            level = text.removeprefix(kind)
            if kind != "bottleneck" and level != text and level.isascii() and level.isdigit():
                return Place(kind, int(level))
        raise ValueError(f"no place of a U is called {text!r}")

    @property
    def is_group(self) -> bool:
        """Whether this is the group of all places of a kind."""
        return self.level is None and self.kind != "bottleneck"

    @property
    def group(self) -> Place:
        """All places of this kind; the bottleneck is its own group."""
        return Place(self.kind)

    @property
    def is_down(self) -> bool:
        """Whether the place is in the encoder or the bottleneck."""
        return self.kind in ("encoder", "bottleneck")

    def level_of(self, levels: int) -> int:
        """Return the level in a U with `levels` resolutions. Raises ValueError for a group."""
        if self.kind == "bottleneck":
            return levels - 1
        if self.level is None:
            raise ValueError(f"{self} are at several levels")
        return self.level


BOTTLENECK = Place("bottleneck")
GROUPS = tuple(Place(kind) for kind in KINDS)


@lru_cache
def places(levels: int) -> tuple[Place, ...]:
    """List the places of a U with `levels` resolutions, in the order of the data flow."""
    up = range(levels - 2, -1, -1)
    return (
        *(Place("encoder", level) for level in range(levels - 1)),
        BOTTLENECK,
        *(Place("skip", level) for level in up),
        *(Place("decoder", level) for level in up),
    )


def down_place(level: int, levels: int) -> Place:
    """Return the place after an encoder level of a U with `levels` resolutions."""
    return BOTTLENECK if level == levels - 1 else Place("encoder", level)


@dataclass(frozen=True)
class AxisName:
    """The name of an axis or of an architecture's entry: `width`, `attention@skip0`, `csam.semantic@skips`."""

    head: str
    place: Place | None = None

    def __str__(self) -> str:
        return f"{self.head}@{self.place}" if self.place else self.head

    @staticmethod
    @lru_cache(maxsize=10_000)
    def parse(text: str) -> AxisName:
        """Parse a name; if the part after `@` is not a place, the whole text becomes the head (which no axis has)."""
        head, at, place = text.partition("@")
        try:
            return AxisName(head, Place.parse(place)) if at else AxisName(head)
        except ValueError:
            return AxisName(text)

    @property
    def is_attention(self) -> bool:
        """Whether the axis chooses the attention block of a place."""
        return self.head == ATTENTION and self.place is not None

    @property
    def block(self) -> str:
        """The block that this is an option of; empty for any other axis."""
        return self.head.partition(".")[0] if self.place and not self.is_attention else ""

    @property
    def option(self) -> str:
        """The option's name within its block; empty for any other axis."""
        return self.head.partition(".")[2] if self.block else ""

    @property
    def group(self) -> AxisName:
        """The same axis for all places of a kind."""
        return AxisName(self.head, self.place.group if self.place else None)

    def covers(self, other: AxisName) -> bool:
        """Return whether the other axis is this one or belongs to this group."""
        return self in (other, other.group)


def attention_at(place: Place) -> str:
    """Return the name of the axis that chooses the block of a place."""
    return str(AxisName(ATTENTION, place))


def option_at(block: str, option: str, place: Place) -> str:
    """Return the name of a block's option at a place."""
    return str(AxisName(f"{block}.{option}", place))


def by_place(values: Mapping[str, T]) -> dict[Place, dict[str, T]]:
    """Group values by place (or group of places), then by head: `attention`, `csam.semantic`."""
    found: dict[Place, dict[str, T]] = {}
    for name, value in values.items():
        axis = AxisName.parse(name)
        if axis.place is not None:
            found.setdefault(axis.place, {})[axis.head] = value
    return found


def options_of(block: str, held: Mapping[str, T]) -> dict[str, T]:
    """Return the options of a block among the values of a place (see `by_place`)."""
    prefix = f"{block}."
    return {head.removeprefix(prefix): value for head, value in held.items() if head.startswith(prefix)}
