"""From a study file and its overrides to a Study, or to every mistake in them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError

from search.study.mistakes import Mistake, UserError, nearest
from search.study.schema import DEVICE_PATTERN, NAME_PATTERN, Data, Objectives, SpaceSection, Study
from search.study.source import Path_, Source, read_source
from space.axes import DecisionError
from space.canonical import Context
from space.narrow import narrow_space

PATTERNS = {
    NAME_PATTERN: "letters, digits, '.', '_' and '-', at most 64, the first a letter or digit",
    DEVICE_PATTERN: "auto, cpu, cuda or cuda:N",
}
ANY_CONTEXT = Context((32, 32, 32), (1.0, 1.0, 1.0), 1, 2)  # names and values are checked before data is known


@dataclass(frozen=True)
class LoadedStudy:
    """A study, the file it came from, and the folder in which its data was found."""

    study: Study
    file: Path
    data_folder: Path | None


def load_study(
    file: Path, *, overrides: Sequence[str] = (), data_root: Path | None = None, need_data: bool = True
) -> LoadedStudy:
    """Read and check a study file; `data.path` is looked up under `data_root`, VOXNAS_DATA, the file's folder, here.

    Without `need_data` a study whose volumes are elsewhere can still be looked at. Raises UserError with every
    mistake that can be seen without opening the data.
    """
    source = read_source(file, overrides)
    source.values.setdefault("name", file.stem)
    mistakes: list[Mistake] = list(source.mistakes)
    study: Study | None = None
    try:
        study = TypeAdapter(Study).validate_python(source.values)
    except ValidationError as error:
        mistakes += _alternatives([_say(detail, source) for detail in error.errors()])
    mistakes += _space_mistakes(source) + _objective_mistakes(source)
    folder, missing = _find_data(source, file, data_root)
    mistakes += missing if need_data else []
    if mistakes or study is None:
        ordered: list[Mistake] = sorted(dict.fromkeys(mistakes), key=_position)
        raise UserError(ordered)
    return LoadedStudy(study, file, folder)


def study_values(study: Study) -> dict[str, Any]:
    """Return a study as plain nested values, as it is kept beside its records."""
    return asdict(study)


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


def _say(detail: Any, source: Source) -> Mistake:
    """Turn one of pydantic's errors into a sentence that points at its key."""
    path = _strip(detail["loc"], source)
    kind, value = detail["type"], detail["input"]
    if kind in ("unexpected_keyword_argument", "extra_forbidden"):
        return source.mistake(path, f"unknown key{nearest(path[-1], _keys_at(path[:-1]))}")
    if kind == "missing" and isinstance(detail["loc"][-1], int):
        return source.mistake(path, f"{len(value)} values where {_length(path)} are needed, in {value!r}")
    if kind == "string_pattern_mismatch":
        return source.mistake(path, f"{value!r} doesn't fit: {PATTERNS[detail['ctx']['pattern']]}")
    if kind == "missing":
        return source.mistake(path[:-1], f"the key {path[-1]!r} is missing")
    if kind in ("literal_error", "enum"):
        allowed = [str(option) for option in _options(path)] or [detail["ctx"]["expected"]]
        return source.mistake(path, f"{value!r} is not known{nearest(value, allowed)}")
    if kind == "value_error":
        return source.mistake(path, str(detail["ctx"]["error"]))
    if kind == "dataclass_type":
        return source.mistake(path, f"{value!r} should be a mapping with keys: {', '.join(_keys_at(path))}")
    message = detail["msg"][0].lower() + detail["msg"][1:]
    return source.mistake(path, f"{message}, not {value!r}")


def _strip(loc: tuple[str | int, ...], source: Source) -> Path_:
    """Drop what pydantic adds to a location for the branches of a union."""
    path: Path_ = ()
    holder: Any = source.values
    for part in loc:
        in_list = isinstance(holder, list) and isinstance(part, int) and part < len(holder)
        if in_list or (isinstance(holder, dict) and part in holder):
            holder = holder[part]
        elif not (isinstance(holder, dict) and isinstance(part, str) and part in _keys_at(path)):
            continue
        path = (*path, part)
    return path


def _keys_at(path: Path_) -> list[str]:
    at = _type_at(path)
    return [each.name for each in fields(at)] if at is not None and is_dataclass(at) else []


def _type_at(path: Path_) -> Any:
    """Return the dataclass that stands at a path of the schema, None below its leaves."""
    at: Any = Study
    for part in path:
        if isinstance(part, int):
            continue  # an item of a list is what the list holds
        hint = get_type_hints(at).get(part) if is_dataclass(at) else None
        at = next((option for option in (hint, *get_args(hint)) if is_dataclass(option)), None)
    return at


def _options(path: Path_) -> list[Any]:
    found = [value for option in _alternative_hints(path) for value in (option, *get_args(option))]
    return list(dict.fromkeys(value for value in found if isinstance(value, str)))


def _length(path: Path_) -> int:
    """Return how many values the tuple at a path of the schema holds."""
    return next(len(get_args(option)) for option in _alternative_hints(path) if get_origin(option) is tuple)


def _alternative_hints(path: Path_) -> tuple[Any, ...]:
    """Return the hint of the key at a path, and of each of its alternatives."""
    at = _type_at(path[:-1])
    hint = get_type_hints(at).get(str(path[-1])) if at else None
    return (hint, *get_args(hint))


def _space_mistakes(source: Source) -> list[Mistake]:
    """Check axis names and values, also where other sections are wrong."""
    try:
        section = TypeAdapter(SpaceSection).validate_python(source.values.get("space") or {})
        narrow_space(ANY_CONTEXT, section.narrowing())
    except ValidationError:
        return []
    except DecisionError as error:
        found = []
        for key, message in error.problems:
            found.append(source.mistake(("space", *_place_of(key)), message))
        return found
    return []


def _place_of(key: str) -> Path_:
    """Return where a problem of the space stands; axis names hold dots themselves."""
    kind, _, rest = key.partition(".")
    if kind in ("fix", "choices"):
        return kind, rest
    index, _, inside = rest.partition(".")
    if not index:
        return (kind,)
    within, _, name = inside.partition(".")
    return (kind, int(index), *(part for part in (within, name) if part))


def _objective_mistakes(source: Source) -> list[Mistake]:
    named = source.values.get("objectives")
    try:
        objectives = TypeAdapter(Objectives).validate_python(named or {})
    except ValidationError:
        return []
    if not any(each is not None and each.direction != "record" for each in vars(objectives).values()):
        known = [each.name for each in fields(Objectives)]
        return [source.mistake(("objectives",), f"nothing is optimised; name one of {', '.join(known)}")]
    return []


def _find_data(source: Source, file: Path, data_root: Path | None) -> tuple[Path | None, list[Mistake]]:
    section = source.values.get("data")
    try:
        path = TypeAdapter(Data).validate_python(section).path
    except ValidationError:
        path = section.get("path", "") if isinstance(section, dict) else ""
        if not isinstance(path, str) or not path:
            return None, []
    roots = [
        data_root,
        Path(os.environ["VOXNAS_DATA"]) if os.environ.get("VOXNAS_DATA") else None,
        file.parent,
        Path(),
    ]
    tried = [Path(path)] if Path(path).is_absolute() else [root / path for root in roots if root is not None]
    found = next((folder for folder in tried if folder.is_dir()), None)
    if found is not None:
        return found, []
    looked = ", ".join(dict.fromkeys(str(folder) for folder in tried))
    message = f"no such folder: {looked}; name its parent with --data or VOXNAS_DATA"
    return None, [source.mistake(("data", "path"), message)]
