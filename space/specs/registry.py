"""The block specs that this process knows: the papers' blocks, and the plug-ins that were loaded."""

from __future__ import annotations

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
    """An architecture holds a block whose code this process hasn't loaded."""


def register(spec: BlockSpec) -> None:
    """Let architectures of this process hold a plug-in block, under its name and code."""
    _known[spec.name, spec.code] = spec


def known_specs() -> tuple[BlockSpec, ...]:
    """Return all specs, the papers' first."""
    return tuple(_known.values())


def code_entry(block: str) -> str:
    """Return the name of the entry that says which code a plug-in block is."""
    return f"{CODE}{block}"


def is_code_entry(name: str) -> bool:
    """Tell whether an entry says which code a plug-in block is."""
    return name.startswith(CODE)


def plugin_blocks(architecture: Architecture) -> tuple[str, ...]:
    """Return the names of the plug-in blocks that a network holds."""
    return tuple(name.removeprefix(CODE) for name, _ in architecture.entries if is_code_entry(name))


def spec_at(architecture: Architecture, place: Place) -> BlockSpec:
    """Return the spec of the block at a place. Raises UnknownBlock where it isn't loaded."""
    name = architecture[attention_at(place)]
    code = architecture.get(code_entry(name), "")
    spec = _known.get((name, code))
    if spec is None:
        which = f" (code {code})" if code else ""
        raise UnknownBlock(f"the block {name!r}{which} is not loaded: name its file or package under `blocks`")
    return spec


def site_at(architecture: Architecture, place: Place, sizes: tuple[Triple, ...]) -> Site:
    """Return where the block at a place is built; `sizes` are those of the maps, level by level."""
    return Site(architecture.channels_at(place), sizes[place.level_of(architecture.levels)], place)
