"""Validate a file's values as a dataclass, or turn each pydantic error into a message that points at its key."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError

from search.config.errors import Mistake, UserError, nearest
from search.config.schema import DEVICE_PATTERN, NAME_PATTERN
from search.config.yaml_source import KeyPath, Source

T = TypeVar("T")
PATTERNS = {
    NAME_PATTERN: "use at most 64 letters, digits, '.', '_' and '-', starting with a letter or digit",
    DEVICE_PATTERN: "use auto, cpu, cuda or cuda:N",
}
_ADAPTERS: dict[type, TypeAdapter[Any]] = {}


def adapter_of(root: type[T]) -> TypeAdapter[T]:
    """Return pydantic's validator of a dataclass, built once: that takes longer than to validate many files."""
    if root not in _ADAPTERS:
        _ADAPTERS[root] = TypeAdapter(root)
    return _ADAPTERS[root]


def read_as(root: type[T], source: Source) -> tuple[T | None, list[Mistake]]:
    """Return the values of a file as the dataclass `root`, or None and all mistakes."""
    try:
        return adapter_of(root).validate_python(source.values), []
    except ValidationError as error:
        return None, _alternatives([_to_mistake(detail, source, root) for detail in error.errors()])


def raise_mistakes(mistakes: Sequence[Mistake]) -> None:
    """Raise UserError with the distinct mistakes in file order; do nothing if there are none."""
    if mistakes:
        ordered: list[Mistake] = sorted(dict.fromkeys(mistakes), key=_position)
        raise UserError(ordered)


def _position(mistake: Mistake) -> tuple[str, int, int]:
    parts = mistake.place.rsplit(":", 2)
    numbers = [int(part) if part.isdigit() else 0 for part in parts[1:]]
    return (parts[0], *(numbers + [0, 0])[:2])  # type: ignore[return-value]


def _alternatives(mistakes: list[Mistake]) -> list[Mistake]:
    """Join the messages of a key's alternative types (a word, or three numbers) about one value."""
    joined: dict[tuple[str, str], list[str]] = {}
    for mistake in mistakes:
        joined.setdefault((mistake.place, mistake.key), []).append(mistake.message)
    return [Mistake(*where, "; or: ".join(dict.fromkeys(messages))) for where, messages in joined.items()]


def _to_mistake(detail: Any, source: Source, root: type) -> Mistake:
    """Turn one pydantic error into a message that points at its key."""
    path = _strip(detail["loc"], source, root)
    kind, value = detail["type"], detail["input"]
    if kind in ("unexpected_keyword_argument", "extra_forbidden"):
        return source.mistake(path, f"unknown key{nearest(path[-1], _keys_at(path[:-1], root))}")
    if kind == "missing" and isinstance(detail["loc"][-1], int):
        return source.mistake(path, f"expected {_length(path, root)} values, got {len(value)}: {value!r}")
    if kind == "string_pattern_mismatch":
        return source.mistake(path, f"{value!r} is not valid: {PATTERNS[detail['ctx']['pattern']]}")
    if kind == "missing":
        return source.mistake(path[:-1], f"the key {path[-1]!r} is missing")
    if kind in ("literal_error", "enum"):
        allowed = [str(option) for option in _options(path, root)] or [detail["ctx"]["expected"]]
        return source.mistake(path, f"{value!r} is not known{nearest(value, allowed)}")
    if kind == "value_error":
        return source.mistake(path, str(detail["ctx"]["error"]))
    if kind == "dataclass_type":
        return source.mistake(path, f"{value!r} must be a mapping with keys: {', '.join(_keys_at(path, root))}")
    message = detail["msg"][0].lower() + detail["msg"][1:]
    return source.mistake(path, f"{message}, got {value!r}")


def _strip(loc: tuple[str | int, ...], source: Source, root: type) -> KeyPath:
    """Drop the parts that pydantic adds to a location for the branches of a union."""
    path: KeyPath = ()
    holder: Any = source.values
    for part in loc:
        in_list = isinstance(holder, list) and isinstance(part, int) and part < len(holder)
        if in_list or (isinstance(holder, dict) and part in holder):
            holder = holder[part]
        elif not (isinstance(holder, dict) and isinstance(part, str) and part in _keys_at(path, root)):
            continue
        path = (*path, part)
    return path


def _keys_at(path: KeyPath, root: type) -> list[str]:
    at = _type_at(path, root)
    return [each.name for each in fields(at)] if at is not None and is_dataclass(at) else []


def _type_at(path: KeyPath, root: type) -> Any:
    """Return the dataclass at a path of the schema, None below its leaves."""
    at: Any = root
    for part in path:
        if isinstance(part, int):
            continue  # a list index does not change the type: the hint of a list names its items
        hint = get_type_hints(at).get(part) if is_dataclass(at) else None
        at = next((option for option in (hint, *get_args(hint)) if is_dataclass(option)), None)
    return at


def _options(path: KeyPath, root: type) -> list[Any]:
    found = [value for option in _alternative_hints(path, root) for value in (option, *get_args(option))]
    return list(dict.fromkeys(value for value in found if isinstance(value, str)))


def _length(path: KeyPath, root: type) -> int:
    """Return the length of the tuple at a path of the schema."""
    return next(len(get_args(option)) for option in _alternative_hints(path, root) if get_origin(option) is tuple)


def _alternative_hints(path: KeyPath, root: type) -> tuple[Any, ...]:
    """Return the type hint of the key at a path, and the hint of each alternative."""
    at = _type_at(path[:-1], root)
    hint = get_type_hints(at).get(str(path[-1])) if at else None
    return (hint, *get_args(hint))
