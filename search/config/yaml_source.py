"""Read YAML 1.2 into plain values with the line and column of every key, and apply overrides."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import CollectionNode, MappingNode, Node, SequenceNode
from ruamel.yaml.reader import ReaderError

from search.config.errors import Mistake, UserError, nearest

KeyPath = tuple[str | int, ...]
MAX_VALUES = 100_000
PLAIN_TAGS = {f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "null")}
TAGS = PLAIN_TAGS | {f"tag:yaml.org,2002:{kind}" for kind in ("map", "seq", "timestamp", "merge", "value")}
MOST_CHARACTERS = 4_000_000


@dataclass
class Source:
    """The plain values of a file, the position of each, and the mistakes found while reading."""

    file: str
    values: dict[str, Any] = field(default_factory=dict)
    places: dict[KeyPath, str] = field(default_factory=dict)
    mistakes: list[Mistake] = field(default_factory=list)

    def place(self, path: KeyPath) -> str:
        """Return the position of `path`, or of its nearest known parent."""
        while path and path not in self.places:
            path = path[:-1]
        return self.places.get(path, self.file)

    def mistake(self, path: KeyPath, message: str) -> Mistake:
        """Return a mistake that points at `path`."""
        return Mistake(self.place(path), ".".join(str(part) for part in path), message)


def read_source(file: Path, overrides: Sequence[str] = ()) -> Source:
    """Read a file and apply `key.path=value` overrides, whose values are YAML too.

    A file may define named sets of overrides under `scales`; the set that `scale` selects is applied first.
    Raises UserError if the file can't be read or isn't YAML; duplicate keys are collected in `mistakes`.
    """
    source = Source(str(file))
    try:
        with file.open(encoding="utf-8") as lines:
            text = lines.read(MOST_CHARACTERS + 1)  # a device may have no end
    except OSError as error:
        raise UserError([Mistake(str(file), "", f"can't be read: {error.strerror}")]) from None
    except UnicodeDecodeError as error:
        raise UserError([Mistake(str(file), "", f"isn't UTF-8 text: invalid byte at offset {error.start}")]) from None
    if len(text) > MOST_CHARACTERS:
        raise UserError([Mistake(str(file), "", f"is no study file: it has more than {MOST_CHARACTERS:,} characters")])
    root = _compose(text, str(file))
    _refuse_expansion(root, str(file))
    if root is not None and not isinstance(root, MappingNode):
        raise UserError([Mistake(f"{file}:1:1", "", "the file must be a mapping of keys to values")])
    source.values = _plain(root, (), source) if root is not None else {}
    for override in overrides:
        _apply_override(override, source)
    if _apply_scale(source):
        for override in overrides:  # the command line takes precedence over the scale
            _apply_override(override, source)
    source.values.pop("scale", None)
    return source


def is_damaged(file: Path) -> bool:
    """Return whether a file that voxnas wrote is no YAML any more, or no file."""
    try:
        return not file.is_file() or not read_source(file).values
    except UserError:
        return True


def _yaml() -> Any:
    return YAML(typ="safe", pure=True)


def _compose(text: str, file: str) -> Node | None:
    try:
        node: Node | None = _yaml().compose(text)
    except RecursionError:
        raise UserError([Mistake(file, "", "invalid YAML: it is nested too deeply")]) from None
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{file}:{mark.line + 1}:{mark.column + 1}" if mark else file
        raise UserError([Mistake(where, "", f"invalid YAML: {error.problem or error.context}")]) from None
    except ReaderError as error:
        *before, last = text[: error.position].split("\n")
        said = f"invalid YAML: the character U+{ord(text[error.position]):04X} is not allowed"
        raise UserError([Mistake(f"{file}:{len(before) + 1}:{len(last) + 1}", "", said)]) from None
    except YAMLError as error:
        raise UserError([Mistake(file, "", f"invalid YAML: {error}")]) from None
    return node


def _refuse_expansion(root: Node | None, file: str) -> None:
    """Raise UserError where aliases (`*name`) refer to what contains them, or repeat too much."""
    sizes: dict[int, float] = {}  # values below a node, by its identity; infinite while it is visited

    def size(node: Node) -> float:
        if id(node) not in sizes:
            sizes[id(node)] = math.inf
            children = node.value if isinstance(node, CollectionNode) else []
            flat = [each for child in children for each in (child if isinstance(child, tuple) else (child,))]
            sizes[id(node)] = 1 + sum(size(child) for child in flat)
        if sizes[id(node)] == math.inf:
            mark = node.start_mark
            where = f"{file}:{mark.line + 1}:{mark.column + 1}"
            raise UserError([Mistake(where, "", "invalid YAML: an alias refers to what contains it")])
        return sizes[id(node)]

    if root is not None and size(root) > MAX_VALUES:
        raise UserError([Mistake(file, "", f"aliases repeat more than {MAX_VALUES:,} values")])


def _plain(node: Node, path: KeyPath, source: Source) -> Any:
    if str(node.tag) not in TAGS:
        dotted = ".".join(str(part) for part in path)
        tag = str(node.tag).replace("tag:yaml.org,2002:", "!!")
        source.mistakes.append(Mistake(_mark(node, source), dotted, f"the tag {tag} has no meaning here; remove it"))
        return None
    if isinstance(node, MappingNode):
        return _mapping(node, path, source)
    if isinstance(node, SequenceNode):
        return [_item(child, (*path, index), source) for index, child in enumerate(node.value)]
    if node.tag in PLAIN_TAGS:
        try:
            return _yaml().constructor.construct_object(node)
        except (ValueError, KeyError, YAMLError):
            kind = node.tag.rpartition(":")[2]
            dotted = ".".join(str(part) for part in path)
            source.mistakes.append(
                Mistake(_mark(node, source), dotted, f"{_short(node.value)} can't be read as {kind}")
            )
            return None
    return node.value


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:57]}...")


def _item(node: Node, path: KeyPath, source: Source) -> Any:
    source.places[path] = _mark(node, source)
    return _plain(node, path, source)


def _mapping(node: MappingNode, path: KeyPath, source: Source) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key_node, value_node in node.value:
        if isinstance(key_node, CollectionNode):
            dotted = ".".join(str(part) for part in path)
            message = "a list or a mapping can't be a key; quote the key if it is text"
            source.mistakes.append(Mistake(_mark(key_node, source), dotted, message))
            continue
        key = str(key_node.value)
        here = (*path, key)
        if key in values:
            first = source.places[here].removeprefix(f"{source.file}:").partition(":")[0]
            dotted = ".".join(str(part) for part in here)
            message = f"duplicate key; first defined on line {first}"
            source.mistakes.append(Mistake(_mark(key_node, source), dotted, message))
            continue
        source.places[here] = _mark(key_node, source)
        values[key] = _plain(value_node, here, source)
    return values


def _mark(node: Node, source: Source) -> str:
    return f"{source.file}:{node.start_mark.line + 1}:{node.start_mark.column + 1}"


def _apply_override(override: str, source: Source) -> None:
    dotted, equals, text = override.partition("=")
    place = f"--set {dotted}"
    path: KeyPath = tuple(dotted.strip().split("."))
    if not equals or not all(path):
        source.mistakes.append(Mistake(f"--set {override}", "", "expected the form key.path=value"))
        return
    node, overlay = _compose(text, place), Source(place)
    _refuse_expansion(node, place)
    set_value(source, path, _plain(node, (), overlay) if node is not None else None, place=place)


def set_value(source: Source, path: KeyPath, value: Any, *, place: str) -> None:
    """Set the value at `path`, with `place` as its position; missing mappings on the way are created."""
    holder: Any = source.values
    for part in path[:-1]:
        inner = holder.setdefault(part, {})
        if inner is None:
            inner = holder[part] = {}
        if not isinstance(inner, dict):
            source.mistakes.append(Mistake(place, "", f"{part!r} is {inner!r}, not a mapping"))
            return
        holder = inner
    for key in [key for key in source.places if key[: len(path)] == path]:
        del source.places[key]
    holder[path[-1]] = value
    source.places[path] = place


def _apply_scale(source: Source) -> bool:
    """Apply the selected scale and remove the `scales` section; return whether a scale was applied."""
    scale, scales = source.values.get("scale"), source.values.pop("scales", None) or {}
    if scale is None:
        return False
    known = [str(name) for name in scales] if isinstance(scales, dict) else []
    if scale not in known or not isinstance(scales[scale], dict):
        hint = nearest(scale, known) if known else "; the file has no `scales` section"
        source.mistakes.append(source.mistake(("scale",), f"{scale!r} is not a scale of this file{hint}"))
        return False
    for dotted, value in scales[scale].items():
        set_value(source, tuple(dotted.split(".")), value, place=source.place(("scales", scale, dotted)))
    return True
