"""A YAML 1.2 text as plain values, with the line and column of every key, and its overrides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, SequenceNode

from search.config.errors import Mistake, UserError, nearest

Path_ = tuple[str | int, ...]
PLAIN_TAGS = {f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "null")}


@dataclass
class Source:
    """Plain values of a file, where each stands, and what reading found wrong."""

    file: str
    values: dict[str, Any] = field(default_factory=dict)
    places: dict[Path_, str] = field(default_factory=dict)
    mistakes: list[Mistake] = field(default_factory=list)

    def place(self, path: Path_) -> str:
        """Return where `path` stands, or the nearest key above it."""
        while path and path not in self.places:
            path = path[:-1]
        return self.places.get(path, self.file)

    def mistake(self, path: Path_, message: str) -> Mistake:
        """Make the mistake that points at `path`."""
        return Mistake(self.place(path), ".".join(str(part) for part in path), message)


def read_source(file: Path, overrides: Sequence[str] = ()) -> Source:
    """Read a file and lay `key.path=value` overrides over it; values are YAML too.

    A file may hold named sets of overrides under `scales`; the one that `scale` names is laid over it first.
    Raises UserError where the file can't be read or isn't YAML; duplicate keys are collected in `mistakes`.
    """
    source = Source(str(file))
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError([Mistake(str(file), "", f"can't be read: {error.strerror}")]) from None
    except UnicodeDecodeError as error:
        raise UserError([Mistake(str(file), "", f"isn't UTF-8 text: byte {error.start}")]) from None
    root = _compose(text, str(file))
    if root is not None and not isinstance(root, MappingNode):
        raise UserError([Mistake(f"{file}:1:1", "", "a study is a mapping of keys to values")])
    source.values = _plain(root, (), source) if root is not None else {}
    for override in overrides:
        _lay_over(override, source)
    if _lay_scale(source):
        for override in overrides:  # what the command line says holds over what the scale says
            _lay_over(override, source)
    source.values.pop("scale", None)
    return source


def _yaml() -> Any:
    return YAML(typ="safe", pure=True)


def _compose(text: str, file: str) -> Node | None:
    try:
        node: Node | None = _yaml().compose(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{file}:{mark.line + 1}:{mark.column + 1}" if mark else file
        raise UserError([Mistake(where, "", f"not YAML: {error.problem or error.context}")]) from None
    except YAMLError as error:
        raise UserError([Mistake(file, "", f"not YAML: {error}")]) from None
    return node


def _plain(node: Node, path: Path_, source: Source) -> Any:
    if isinstance(node, MappingNode):
        return _mapping(node, path, source)
    if isinstance(node, SequenceNode):
        return [_item(child, (*path, index), source) for index, child in enumerate(node.value)]
    if node.tag in PLAIN_TAGS:
        return _yaml().constructor.construct_object(node)
    return node.value


def _item(node: Node, path: Path_, source: Source) -> Any:
    source.places[path] = _mark(node, source)
    return _plain(node, path, source)


def _mapping(node: MappingNode, path: Path_, source: Source) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key_node, value_node in node.value:
        key = str(key_node.value)
        here = (*path, key)
        if key in values:
            first = source.places[here].removeprefix(f"{source.file}:").partition(":")[0]
            dotted = ".".join(str(part) for part in here)
            message = f"the key stands twice; the first is on line {first}"
            source.mistakes.append(Mistake(_mark(key_node, source), dotted, message))
            continue
        source.places[here] = _mark(key_node, source)
        values[key] = _plain(value_node, here, source)
    return values


def _mark(node: Node, source: Source) -> str:
    return f"{source.file}:{node.start_mark.line + 1}:{node.start_mark.column + 1}"


def _lay_over(override: str, source: Source) -> None:
    dotted, equals, text = override.partition("=")
    place = f"--set {dotted}"
    path: Path_ = tuple(dotted.strip().split("."))
    if not equals or not all(path):
        source.mistakes.append(Mistake(f"--set {override}", "", "write it as key.path=value"))
        return
    node, overlay = _compose(text, place), Source(place)
    lay(source, path, _plain(node, (), overlay) if node is not None else None, place=place)


def lay(source: Source, path: Path_, value: Any, *, place: str) -> None:
    """Lay one value over a source's, as said at `place`; mappings on the way are made where they are missing."""
    holder: Any = source.values
    for part in path[:-1]:
        inner = holder.setdefault(part, {})
        if inner is None:
            inner = holder[part] = {}
        if not isinstance(inner, dict):
            source.mistakes.append(Mistake(place, "", f"{part!r} holds {inner!r}, which has no keys"))
            return
        holder = inner
    for key in [key for key in source.places if key[: len(path)] == path]:
        del source.places[key]
    holder[path[-1]] = value
    source.places[path] = place


def _lay_scale(source: Source) -> bool:
    """Lay the scale's overrides over the file and take its scales away; tell whether it asked for one."""
    scale, scales = source.values.get("scale"), source.values.pop("scales", None) or {}
    if scale is None:
        return False
    known = [str(name) for name in scales] if isinstance(scales, dict) else []
    if scale not in known or not isinstance(scales[scale], dict):
        hint = nearest(scale, known) if known else "; the file has no `scales`"
        source.mistakes.append(source.mistake(("scale",), f"{scale!r} is no scale of this file{hint}"))
        return False
    for dotted, value in scales[scale].items():
        lay(source, tuple(dotted.split(".")), value, place=source.place(("scales", scale, dotted)))
    return True
