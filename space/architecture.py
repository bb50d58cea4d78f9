"""Architecture: one network, spelled out as plain values, equal exactly when the networks are equal."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from space.place import ATTENTION, Place, by_place, options_of, places

Value = str | int | float | bool | tuple["Value", ...]


def freeze(value: Any) -> Value:
    """Turn JSON lists into tuples, all the way down."""
    if isinstance(value, (list, tuple)):
        return tuple(freeze(item) for item in value)
    if isinstance(value, (str, int, float, bool)):
        return value
    raise ValueError(f"an architecture holds str, int, float, bool and tuples of them, not {value!r}")


@dataclass(frozen=True)
class Architecture:
    """A frozen, hashable list of (name, value), sorted by name; see `space.canonical` for what is written.

    `channels` holds one entry a level, so that the number of levels is its length; attention places that hold
    nothing are not written.
    """

    entries: tuple[tuple[str, Value], ...]

    def __post_init__(self) -> None:
        names = [name for name, _ in self.entries]
        if names != sorted(set(names)):
            raise ValueError(f"entries must be sorted and named once each: {names}")

    def __hash__(self) -> int:
        """Hash once: a search asks ten thousand records at each step which it knows."""
        if "_hashed" not in self.__dict__:
            object.__setattr__(self, "_hashed", hash(self.entries))
        hashed: int = self.__dict__["_hashed"]
        return hashed

    def __reduce__(self) -> tuple[type[Architecture], tuple[Any, ...]]:
        """Travel without the hash, which another process would compute differently."""
        return Architecture, (self.entries,)

    @staticmethod
    def of(values: Mapping[str, Any]) -> Architecture:
        """Make one from a mapping, in any order."""
        return Architecture(tuple(sorted((name, freeze(value)) for name, value in values.items())))

    def __getitem__(self, name: str) -> Any:
        for key, value in self.entries:
            if key == name:
                return value
        raise KeyError(name)

    def get(self, name: str, default: Any = None) -> Any:
        """Return the value written under `name`, or `default`."""
        return next((value for key, value in self.entries if key == name), default)

    @property
    def levels(self) -> int:
        """Number of resolutions, the bottleneck's included."""
        return len(self["channels"])

    @property
    def strides(self) -> tuple[tuple[int, int, int], ...]:
        """Strides (D, H, W) from the image down: the stem's, where there is one, then each level's."""
        stem = self.get("stem")
        pooling: tuple[tuple[int, int, int], ...] = self["pooling"]
        return (stem[1], *pooling) if stem else pooling

    @property
    def decoder_channels(self) -> tuple[int, ...]:
        """Channels of the decoder levels, full resolution first: the encoder's, unless written."""
        written: tuple[int, ...] = self.get("decoder_channels", self["channels"][:-1])
        return written

    @property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits; equal for equal networks, whatever study they come from."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:16]

    def to_json(self) -> str:
        """Write the one JSON text of this architecture."""
        return json.dumps(dict(self.entries), separators=(",", ":"))

    @staticmethod
    def from_json(text: str) -> Architecture:
        """Read what `to_json` wrote."""
        return Architecture.of(json.loads(text))

    def attention(self) -> dict[Place, str]:
        """Return {place: block} of the places that hold an attention block, from the input to the output."""
        held = by_place(dict(self.entries))
        return {place: str(held[place][ATTENTION]) for place in places(self.levels) if place in held}

    def options(self, place: Place) -> dict[str, Any]:
        """Return the options of the block at `place`, by the name that its constructor gives them."""
        held = by_place(dict(self.entries)).get(place, {})
        return options_of(str(held.get(ATTENTION)), held)

    def channels_at(self, place: Place) -> int:
        """Return the channels of the map that an attention place receives."""
        level = place.level_of(self.levels)
        channels: tuple[int, ...] = self["channels"]
        return self.decoder_channels[level] if place.kind == "decoder" else channels[level]

    def describe(self) -> str:
        """Say it in one line for people: units, widths, and which block sits where, with which parts."""
        blocks: dict[str, list[str]] = {}
        held = by_place(dict(self.entries))
        for place in places(self.levels):
            if place in held:
                block = str(held[place][ATTENTION])
                blocks.setdefault(block + _parts(options_of(block, held[place])), []).append(str(place))
        attention = "; ".join(f"{block} at {', '.join(at)}" for block, at in blocks.items()) or "no attention"
        widths = "-".join(str(width) for width in self["channels"])
        units = f" x{self['repeats']}" if self.get("repeats") else ""
        stem = f" after a stem {'x'.join(map(str, self['stem'][1]))}" if self.get("stem") else ""
        return f"{self['encoder']}{units} {widths}{stem}; {attention}{self._stages()}"

    def _stages(self) -> str:
        if self.get("stages") == "two-patch":
            return f"; two patches x{self['expansion']}"
        if self.get("stages") == "cascade":
            return f"; cascade after {', '.join(f'x{expansion}' for expansion in self['cascade.first'])}"
        return ""


def _parts(options: Mapping[str, Any]) -> str:
    """Name a block's switched-on parts and other options: `(semantic+slice)`."""
    said = [name if value is True else f"{name}={value}" for name, value in options.items() if value is not False]
    return f"({'+'.join(said)})" if said else ""
