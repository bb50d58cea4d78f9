"""Architecture: a network as plain values. Two architectures are equal exactly when their networks are."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from space.place import ATTENTION, Place, by_place, options_of, places

Value = str | int | float | bool | tuple["Value", ...]


def freeze(value: Any) -> Value:
    """Convert JSON lists to tuples recursively."""
    if isinstance(value, (str, int, float, bool)):
        return value
    if isinstance(value, (list, tuple)):
        return tuple([freeze(item) for item in value])
    raise ValueError(f"an architecture's values must be str, int, float, bool or tuples of these, not {value!r}")


@dataclass(frozen=True)
class Architecture:
    """A frozen, hashable list of (name, value), sorted by name; `space.canonical` decides which entries it has.

    `channels` has one entry per level, and its length is the number of levels. Places without an attention block
    have no entry.
    """

    entries: tuple[tuple[str, Value], ...]

    def __post_init__(self) -> None:
        names = [name for name, _ in self.entries]
        if names != sorted(set(names)):
            raise ValueError(f"entries must be sorted by name, without duplicates: {names}")

    def __hash__(self) -> int:
        """Cache the hash: at each step a search looks its architectures up among up to ten thousand records."""
        if "_hashed" not in self.__dict__:
            object.__setattr__(self, "_hashed", hash(self.entries))
        hashed: int = self.__dict__["_hashed"]
        return hashed

    def __reduce__(self) -> tuple[type[Architecture], tuple[Any, ...]]:
        """Pickle without what is cached: the hash differs between processes."""
        return Architecture, (self.entries,)

    @staticmethod
    def of(values: Mapping[str, Any]) -> Architecture:
        """Create an architecture from a mapping in any order."""
        return Architecture(tuple(sorted((name, freeze(value)) for name, value in values.items())))

    def __getitem__(self, name: str) -> Any:
        return self._by_name[name]

    def get(self, name: str, default: Any = None) -> Any:
        """Return the value of entry `name`, or `default`."""
        return self._by_name.get(name, default)

    @cached_property
    def _by_name(self) -> dict[str, Value]:
        """The entries by name, cached: a closed-form cost looks up about 100."""
        return dict(self.entries)

    @property
    def levels(self) -> int:
        """Number of resolutions, including the bottleneck's."""
        return len(self["channels"])

    @property
    def strides(self) -> tuple[tuple[int, int, int], ...]:
        """Strides (D, H, W) from the image down: the stem's, if any, then each level's."""
        stem = self.get("stem")
        pooling: tuple[tuple[int, int, int], ...] = self["pooling"]
        return (stem[1], *pooling) if stem else pooling

    @property
    def decoder_channels(self) -> tuple[int, ...]:
        """Channels of the decoder levels, full resolution first; by default the encoder's."""
        channels: tuple[int, ...] = self.get("decoder_channels", self["channels"][:-1])
        return channels

    @property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits, equal for equal networks across studies; computed once."""
        if "_fingerprint" not in self.__dict__:
            object.__setattr__(self, "_fingerprint", hashlib.sha256(self.to_json().encode()).hexdigest()[:16])
        found: str = self.__dict__["_fingerprint"]
        return found

    def to_json(self) -> str:
        """Return the canonical JSON text of this architecture."""
        return json.dumps(dict(self.entries), separators=(",", ":"))

    @staticmethod
    def from_json(text: str) -> Architecture:
        """Parse the output of `to_json`."""
        return Architecture.of(json.loads(text))

    @cached_property
    def _by_place(self) -> dict[Place, dict[str, Value]]:
        """The entries of each place: a search asks every network of a space for its blocks and their options."""
        return by_place(self._by_name)

    def attention(self) -> dict[Place, str]:
        """Return {place: block} for all places with an attention block, from input to output."""
        held = self._by_place
        return {place: str(held[place][ATTENTION]) for place in places(self.levels) if place in held}

    def options(self, place: Place) -> dict[str, Any]:
        """Return the options of the block at `place`, keyed by the block's own option names."""
        held = self._by_place.get(place, {})
        return options_of(str(held.get(ATTENTION)), held)

    def channels_at(self, place: Place) -> int:
        """Return the number of channels of the feature map at an attention place."""
        level = place.level_of(self.levels)
        channels: tuple[int, ...] = self["channels"]
        return self.decoder_channels[level] if place.kind == "decoder" else channels[level]

    def describe(self) -> str:
        """Describe the network in one line: encoder units, widths, and the attention blocks with places and options."""
        blocks: dict[str, list[str]] = {}
        held = self._by_place
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
    """List a block's enabled parts and other options: `(semantic+slice)`."""
    parts = [name if value is True else f"{name}={value}" for name, value in options.items() if value is not False]
    return f"({'+'.join(parts)})" if parts else ""
