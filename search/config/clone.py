"""A study file with changed keys, as text: comments and layout of the original stay."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from search.config.validate import raise_mistakes
from search.config.yaml_source import read_source

PATHS = (("data", "path"), ("data", "folds"), ("training", "init"), ("search", "learn_from"), ("", "blocks"))


def clone_text(file: Path, overrides: Sequence[str], *, new: Path) -> str:
    """Return the text of a study file under the name of `new`, with overrides applied.

    Relative paths that exist beside the original are written relative to `new`. Raises UserError if the file or an
    override can't be read; the keys themselves are not checked here.
    """
    source = read_source(file, overrides)
    raise_mistakes(source.mistakes)
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 1000
    document = yaml.load(file.read_text(encoding="utf-8")) or {}
    values = source.values
    values["name"] = new.stem
    _move_paths(values, file.parent, new.parent)
    _merge(document, values)
    text = StringIO()
    yaml.dump(document, text)
    changes = f" with {', '.join(overrides)}" if overrides else ""
    return f"# {as_comment(f'Clone of {file.name}{changes}')}\n{text.getvalue()}"


def as_comment(text: str) -> str:
    """Return a text without what would end a comment or YAML forbids: line breaks and control characters."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def _merge(document: Any, values: Mapping[str, Any]) -> None:
    """Change what differs, and nothing else: what stays keeps its comments."""
    for key in [key for key in document if key not in values and key != "scales"]:
        del document[key]
    for key, value in values.items():
        if isinstance(value, Mapping) and isinstance(document.get(key), Mapping):
            _merge(document[key], value)
        elif key not in document or document[key] != value:
            document[key] = value


def _move_paths(values: dict[str, Any], old: Path, new: Path) -> None:
    """Rewrite relative paths for a file in another folder."""
    for section, key in PATHS:
        inside = values.get(section) if section else values
        if not isinstance(inside, dict):
            continue
        given = inside.get(key)
        if isinstance(given, str):
            inside[key] = _moved(given, old, new)
        elif isinstance(given, list):
            inside[key] = [_moved(each, old, new) if isinstance(each, str) else each for each in given]


def _moved(path: str, old: Path, new: Path) -> str:
    if Path(path).is_absolute() or not (old / path).exists() or old.resolve() == new.resolve():
        return path
    moved = os.path.relpath((old / path).resolve(), new.resolve())
    return moved if moved.startswith(".") else f"./{moved}"
