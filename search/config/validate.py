"""A file's values as a checked dataclass, or each of pydantic's complaints as a sentence that points at its key."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError

from search.config.errors import Mistake, UserError, nearest
from search.config.schema import DEVICE_PATTERN, NAME_PATTERN
from search.config.yaml_source import Path_, Source

T = TypeVar("T")
PATTERNS = {
    NAME_PATTERN: "letters, digits, '.', '_' and '-', at most 64, the first a letter or digit",
    DEVICE_PATTERN: "auto, cpu, cuda or cuda:N",
}


def read_as(root: type[T], source: Source) -> tuple[T | None, list[Mistake]]:
    """Return what a file says as the dataclass `root`, or None and every mistake in it."""
    try:
        return TypeAdapter(root).validate_python(source.values), []
    except ValidationError as error:
        return None, _alternatives([_say(detail, source, root) for detail in error.errors()])


def refuse(mistakes: Sequence[Mistake]) -> None:
    """Raise UserError with the mistakes in the order of the file, each once; nothing where there are none."""
    if mistakes:
        ordered: list[Mistake] = sorted(dict.fromkeys(mistakes), key=_position)
        raise UserError(ordered)


def _position(mistake: Mistake) -> tuple[str, int, int]:
    parts = mistake.place.rsplit(":", 2)
    numbers = [int(part) if part.isdigit() else 0 for part in parts[1:]]
    return (parts[0], *(numbers + [0, 0])[:2])  # type: ignore[return-value]


def _alternatives(mistakes: list[Mistake]) -> list[Mistake]:
    """Join what a key's alternatives (a word, or three numbers) each say of one value."""
    joined: dict[tuple[str, str], list[str]] = {}
    for mistake in mistakes:
        joined.setdefault((mistake.place, mistake.key), []).append(mistake.message)
    return [Mistake(*where, " / or: ".join(dict.fromkeys(said))) for where, said in joined.items()]


def _say(detail: Any, source: Source, root: type) -> Mistake:
    """Turn one of pydantic's errors into a sentence that points at its key."""
    path = _strip(detail["loc"], source, root)
    kind, value = detail["type"], detail["input"]
    if kind in ("unexpected_keyword_argument", "extra_forbidden"):
        return source.mistake(path, f"unknown key{nearest(path[-1], _keys_at(path[:-1], root))}")
    if kind == "missing" and isinstance(detail["loc"][-1], int):
        return source.mistake(path, f"{len(value)} values where {_length(path, root)} are needed, in {value!r}")
    if kind == "string_pattern_mismatch":
        return source.mistake(path, f"{value!r} doesn't fit: {PATTERNS[detail['ctx']['pattern']]}")
    if kind == "missing":
        return source.mistake(path[:-1], f"the key {path[-1]!r} is missing")
    if kind in ("literal_error", "enum"):
        allowed = [str(option) for option in _options(path, root)] or [detail["ctx"]["expected"]]
        return source.mistake(path, f"{value!r} is not known{nearest(value, allowed)}")
    if kind == "value_error":
        return source.mistake(path, str(detail["ctx"]["error"]))
    if kind == "dataclass_type":
        return source.mistake(path, f"{value!r} should be a mapping with keys: {', '.join(_keys_at(path, root))}")
    message = detail["msg"][0].lower() + detail["msg"][1:]
    return source.mistake(path, f"{message}, not {value!r}")


def _strip(loc: tuple[str | int, ...], source: Source, root: type) -> Path_:
    """Drop what pydantic adds to a location for the branches of a union."""
    path: Path_ = ()
    holder: Any = source.values
    for part in loc:
        in_list = isinstance(holder, list) and isinstance(part, int) and part < len(holder)
        if in_list or (isinstance(holder, dict) and part in holder):
            holder = holder[part]
        elif not (isinstance(holder, dict) and isinstance(part, str) and part in _keys_at(path, root)):
            continue
        path = (*path, part)
    return path


def _keys_at(path: Path_, root: type) -> list[str]:
    at = _type_at(path, root)
    return [each.name for each in fields(at)] if at is not None and is_dataclass(at) else []


def _type_at(path: Path_, root: type) -> Any:
    """Return the dataclass that stands at a path of the schema, None below its leaves."""
    at: Any = root
    for part in path:
        if isinstance(part, int):
            continue  # an item of a list is what the list holds
        hint = get_type_hints(at).get(part) if is_dataclass(at) else None
        at = next((option for option in (hint, *get_args(hint)) if is_dataclass(option)), None)
    return at


def _options(path: Path_, root: type) -> list[Any]:
    found = [value for option in _alternative_hints(path, root) for value in (option, *get_args(option))]
    return list(dict.fromkeys(value for value in found if isinstance(value, str)))


def _length(path: Path_, root: type) -> int:
    """Return how many values the tuple at a path of the schema holds."""
    return next(len(get_args(option)) for option in _alternative_hints(path, root) if get_origin(option) is tuple)


def _alternative_hints(path: Path_, root: type) -> tuple[Any, ...]:
    """Return the hint of the key at a path, and of each of its alternatives."""
    at = _type_at(path[:-1], root)
    hint = get_type_hints(at).get(str(path[-1])) if at else None
    return (hint, *get_args(hint))
