"""The block specs that this process knows: the papers' blocks, and the plug-ins that were loaded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from space.architecture import Architecture
from space.place import Place, attention_at
from space.pooling import Triple
from space.specs.csam import CSAM
from space.specs.epa import EPA
from space.specs.isa import ISA
from space.specs.joint import JOINT
from space.specs.spec import BlockSpec, Site

CODE = "code."
BUILT_IN: tuple[BlockSpec, ...] = (ISA, CSAM, JOINT, EPA)
_known: dict[tuple[str, str], BlockSpec] = {(spec.name, spec.code): spec for spec in BUILT_IN}


class UnknownBlock(ValueError):
    """An architecture contains a plug-in block whose code this process hasn't loaded."""


def register(spec: BlockSpec) -> None:
    """Make a plug-in block available under its name and code, for the life of the process."""
    _known[spec.name, spec.code] = spec


@contextmanager
def registered(specs: Sequence[BlockSpec]) -> Iterator[None]:
    """Make blocks available within the context only."""
    for spec in specs:
        register(spec)
    try:
        yield
    finally:
        for spec in specs:
            del _known[spec.name, spec.code]


def known_specs() -> tuple[BlockSpec, ...]:
    """Return all specs, the papers' blocks first."""
    return tuple(_known.values())


def code_entry(block: str) -> str:
    """Return the name of the entry that holds the code digest of a plug-in block."""
    return f"{CODE}{block}"


def is_code_entry(name: str) -> bool:
    """Return whether an entry holds the code digest of a plug-in block."""
    return name.startswith(CODE)


def plugin_blocks(architecture: Architecture) -> tuple[str, ...]:
    """Return the names of a network's plug-in blocks."""
    return tuple(name.removeprefix(CODE) for name, _ in architecture.entries if is_code_entry(name))


def unloaded_blocks(architecture: Architecture) -> tuple[tuple[str, str], ...]:
    """Return (name, code) of a network's plug-in blocks that this process hasn't loaded."""
    used = [(name, str(architecture[code_entry(name)])) for name in plugin_blocks(architecture)]
    return tuple(each for each in used if each not in _known)


def spec_at(architecture: Architecture, place: Place) -> BlockSpec:
    """Return the spec of the block at a place. Raises UnknownBlock if it isn't loaded."""
    name = architecture[attention_at(place)]
    code = architecture.get(code_entry(name), "")
    spec = _known.get((name, code))
    if spec is None:
        which = f" (code {code})" if code else ""
        raise UnknownBlock(f"the block {name!r}{which} is not loaded: name its file or package under `blocks`")
    return spec


def site_at(architecture: Architecture, place: Place, sizes: tuple[Triple, ...]) -> Site:
    """Return the channels and map size of the block at a place; `sizes` are the map sizes (D, H, W) per level."""
    return Site(architecture.channels_at(place), sizes[place.level_of(architecture.levels)], place)
