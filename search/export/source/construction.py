"""How to construct a module: torch's own modules from their signatures, all others from their parts."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from search.export.source.nodes import NotWritable
from search.export.source.trace import is_leaf
from search.export.source.tracked import plain

OMITTED = ("self", "device", "dtype", "inplace")


@dataclass(frozen=True)
class ConstructorArgument:
    """An argument of a constructor: its name, value and default."""

    name: str
    value: Any
    default: Any = inspect.Parameter.empty
    positional: bool = False


@dataclass(frozen=True)
class Leaf:
    """One of torch's own modules."""

    kind: str
    given: tuple[ConstructorArgument, ...]


@dataclass(frozen=True)
class Container:
    """One of torch's containers: its class, and its parts by name."""

    kind: str
    parts: tuple[tuple[str, Any], ...]


@dataclass(frozen=True)
class Weights:
    """A parameter or buffer of the module itself."""

    sizes: tuple[ConstructorArgument, ...]
    buffer: bool = False
    kind: str = ""  # dtype, if it is not floating point


@dataclass(frozen=True, eq=False)
class OwnModule:
    """A module whose class is written to model.py."""

    module: nn.Module


@dataclass(frozen=True)
class Alias:
    """A module or parameter that is already part of the same module under another name."""

    path: str


Construction = Leaf | Container | OwnModule | Alias | Weights


@dataclass
class Body:
    """The attributes that a module's constructor sets, in order."""

    parts: list[tuple[str, Construction]] = field(default_factory=list)


def leaf_of(module: nn.Module) -> Leaf:
    """Return the construction of one of torch's own modules."""
    kind = type(module).__name__
    if getattr(nn, kind, None) is not type(module):
        raise NotWritable(f"torch's {kind} is no public module")
    given: list[ConstructorArgument] = []
    if isinstance(module, nn.Identity):
        return Leaf(kind, ())
    for name, parameter in inspect.signature(type(module).__init__).parameters.items():
        if name in OMITTED and not (name == "inplace" and getattr(module, name, False)):
            continue
        if name == "bias" and not isinstance(getattr(module, name, None), bool):
            value: Any = getattr(module, name, None) is not None
        elif hasattr(module, name):
            value = _scalar(getattr(module, name))
        else:
            raise NotWritable(f"torch's {kind} doesn't keep its {name!r}")
        first = parameter.default is inspect.Parameter.empty
        given.append(ConstructorArgument(name, value, parameter.default, first))
    return Leaf(kind, tuple(given))


def _scalar(value: Any) -> Any:
    """Return a plain value; a tuple of equal numbers becomes one number."""
    if isinstance(value, (tuple, list)):
        parts = tuple(plain(part) for part in value)
        return parts[0] if len(set(parts)) == 1 else parts
    return plain(value)


def body_of(module: nn.Module, called: set[nn.Module]) -> Body:
    """Return a module's parts, without those that hold no weights and are never called."""
    body, seen = Body(), {id(module): "self"}
    for name, parameter in module._parameters.items():
        if parameter is not None:
            body.parts.append((name, _weights(parameter, seen, name)))
    for name, buffer in module._buffers.items():
        if buffer is None:
            continue
        if name in module._non_persistent_buffers_set:
            raise NotWritable(f"{type(module).__name__} uses the buffer {name!r}, which is not part of its weights")
        body.parts.append((name, _weights(buffer, seen, name)))
    for name, child in module._modules.items():
        if child is not None and (holds_weights(child) or not called.isdisjoint(child.modules())):
            body.parts.append((name, construction_of(child, seen, name, called)))
    return body


def _weights(value: Tensor, seen: dict[int, str], name: str) -> Construction:
    if id(value) in seen:
        return Alias(seen[id(value)])
    seen[id(value)] = name
    sizes = tuple(
        ConstructorArgument(f"size_{axis}" if axis else "features", plain(size))
        for axis, size in enumerate(value.shape)
    )
    kind = "" if value.is_floating_point() else str(value.dtype)
    return Weights(sizes, not isinstance(value, nn.Parameter), kind)


def construction_of(module: nn.Module, seen: dict[int, str], path: str, called: set[nn.Module]) -> Construction:
    """Return the construction of a child, or an alias if it is already part of the module."""
    if id(module) in seen:
        return Alias(seen[id(module)])
    seen[id(module)] = path
    if is_leaf(module):
        return leaf_of(module)
    if type(module) in (nn.Sequential, nn.ModuleList, nn.ModuleDict):
        children = [(name, child) for name, child in module._modules.items() if child is not None]
        parts = tuple((name, construction_of(child, seen, f"{path}.{name}", called)) for name, child in children)
        return Container(type(module).__name__, parts)
    return OwnModule(module)


def holds_weights(module: nn.Module) -> bool:
    """Return whether a module has entries in the state dict."""
    return any(True for _ in module.state_dict())


def own_modules(construction: Construction) -> Iterator[nn.Module]:
    """Yield the contained modules whose classes are written to model.py."""
    if isinstance(construction, OwnModule):
        yield construction.module
    elif isinstance(construction, Container):
        for _, part in construction.parts:
            yield from own_modules(part)
