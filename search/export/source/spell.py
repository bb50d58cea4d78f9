"""How a module is constructed: torch's own by their signatures, all others by their parts."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from search.export.source.trace import NotWritable, is_leaf
from search.export.source.tracked import plain

UNSPELLED = ("self", "device", "dtype", "inplace")


@dataclass(frozen=True)
class Given:
    """A constructor's argument: its name, its value, and what it is where nothing is said."""

    name: str
    value: Any
    default: Any = inspect.Parameter.empty
    positional: bool = False


@dataclass(frozen=True)
class Leaf:
    """One of torch's own modules."""

    kind: str
    given: tuple[Given, ...]


@dataclass(frozen=True)
class Several:
    """A container of torch: its class, and its parts by name."""

    kind: str
    parts: tuple[tuple[str, Any], ...]


@dataclass(frozen=True)
class Weights:
    """A parameter or buffer of its own."""

    sizes: tuple[Given, ...]
    buffer: bool = False
    kind: str = ""  # of numbers that aren't the network's precision


@dataclass(frozen=True, eq=False)
class Own:
    """A module whose class is written out."""

    module: nn.Module


@dataclass(frozen=True)
class Same:
    """A module or parameter that stands elsewhere in the same module too."""

    path: str


Spelled = Leaf | Several | Own | Same | Weights


@dataclass
class Body:
    """What a module's constructor sets: attribute by attribute."""

    parts: list[tuple[str, Spelled]] = field(default_factory=list)


def spell_leaf(module: nn.Module) -> Leaf:
    """Return how one of torch's own modules is made."""
    kind = type(module).__name__
    if getattr(nn, kind, None) is not type(module):
        raise NotWritable(f"torch's {kind} is no public module")
    given: list[Given] = []
    if isinstance(module, nn.Identity):
        return Leaf(kind, ())
    for name, parameter in inspect.signature(type(module).__init__).parameters.items():
        if name in UNSPELLED and not (name == "inplace" and getattr(module, name, False)):
            continue
        if name == "bias" and not isinstance(getattr(module, name, None), bool):
            value: Any = getattr(module, name, None) is not None
        elif hasattr(module, name):
            value = _scalar(getattr(module, name))
        else:
            raise NotWritable(f"torch's {kind} doesn't keep its {name!r}")
        first = parameter.default is inspect.Parameter.empty
        given.append(Given(name, value, parameter.default, first))
    return Leaf(kind, tuple(given))


def _scalar(value: Any) -> Any:
    """Return a plain value; three equal sizes are one."""
    if isinstance(value, (tuple, list)):
        parts = tuple(plain(part) for part in value)
        return parts[0] if len(set(parts)) == 1 else parts
    return plain(value)


def body_of(module: nn.Module, called: set[nn.Module]) -> Body:
    """Return what a module holds; parts that nothing calls and that hold no weights are left out."""
    body, seen = Body(), {id(module): "self"}
    for name, parameter in module._parameters.items():
        if parameter is not None:
            body.parts.append((name, _weights(parameter, seen, name)))
    for name, buffer in module._buffers.items():
        if buffer is None:
            continue
        if name in module._non_persistent_buffers_set:
            raise NotWritable(f"{type(module).__name__} computes with {name!r}, which its weights don't hold")
        body.parts.append((name, _weights(buffer, seen, name)))
    for name, child in module._modules.items():
        if child is not None and (holds_weights(child) or not called.isdisjoint(child.modules())):
            body.parts.append((name, spell(child, seen, name, called)))
    return body


def _weights(value: Tensor, seen: dict[int, str], name: str) -> Spelled:
    if id(value) in seen:
        return Same(seen[id(value)])
    seen[id(value)] = name
    sizes = tuple(Given(f"size_{axis}" if axis else "features", plain(size)) for axis, size in enumerate(value.shape))
    kind = "" if value.is_floating_point() else str(value.dtype)
    return Weights(sizes, not isinstance(value, nn.Parameter), kind)


def spell(module: nn.Module, seen: dict[int, str], path: str, called: set[nn.Module]) -> Spelled:
    """Return how a child is made, or where it stands already."""
    if id(module) in seen:
        return Same(seen[id(module)])
    seen[id(module)] = path
    if is_leaf(module):
        return spell_leaf(module)
    if type(module) in (nn.Sequential, nn.ModuleList, nn.ModuleDict):
        children = [(name, child) for name, child in module._modules.items() if child is not None]
        parts = tuple((name, spell(child, seen, f"{path}.{name}", called)) for name, child in children)
        return Several(type(module).__name__, parts)
    return Own(module)


def holds_weights(module: nn.Module) -> bool:
    """Tell whether a module has a part in the state dict."""
    return any(True for _ in module.state_dict())


def own_modules(spelled: Spelled) -> Iterator[nn.Module]:
    """Yield the modules within whose classes are written out."""
    if isinstance(spelled, Own):
        yield spelled.module
    elif isinstance(spelled, Several):
        for _, part in spelled.parts:
            yield from own_modules(part)
