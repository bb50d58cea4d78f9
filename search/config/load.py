"""Load a study file with its overrides as a Study, or report every mistake in them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import ValidationError

from search.config.blocks import KEY as BLOCKS
from search.config.blocks import load_named_blocks
from search.config.errors import Mistake
from search.config.goals import Objectives
from search.config.objectives import OBJECTIVES
from search.config.schema import Data, Study
from search.config.space_section import SpaceSection
from search.config.validate import adapter_of, raise_mistakes, read_as
from search.config.yaml_source import KeyPath, Source, read_source
from space.axes import DecisionError
from space.canonical import Context
from space.narrow import narrow_space
from space.plugins import BlockCode, load_blocks
from space.specs.spec import BlockSpec

ANY_CONTEXT = Context((32, 32, 32), (1.0, 1.0, 1.0), 1, 2)  # axis names and values are checked before the data is known


@dataclass(frozen=True)
class LoadedStudy:
    """A study with its file, its data folder (if found) and the code of its plug-in blocks."""

    study: Study
    file: Path
    data_folder: Path | None
    blocks: tuple[BlockCode, ...] = ()

    @property
    def specs(self) -> tuple[BlockSpec, ...]:
        """The blocks that places may hold."""
        return load_blocks(self.blocks)


def load_study(
    file: Path,
    *,
    overrides: Sequence[str] = (),
    data_root: Path | None = None,
    need_data: bool = True,
    allow_code: bool = False,
) -> LoadedStudy:
    """Load and validate a study file.

    `data.path` is resolved against `data_root` alone; without it, against VOXNAS_DATA, the file's folder and the
    working directory, in this order. Without `need_data`, a study whose volumes are elsewhere loads too; its plug-in
    blocks are then loaded only with `allow_code`, and without them its space is not validated (see `with_code`).
    Raises UserError with every mistake that can be detected without opening the data.
    """
    source = read_source(file, overrides)
    source.values.setdefault("name", file.stem)
    study, mistakes = read_as(Study, source)
    codes: tuple[BlockCode, ...] = ()
    if need_data or allow_code or not source.values.get(BLOCKS):
        codes, specs, wrong = load_named_blocks(source, file, allow_code=allow_code)
        mistakes += wrong or _space_mistakes(source, specs)
    mistakes += source.mistakes + _objective_mistakes(source)
    folder, missing = find_data(source, file, data_root)
    raise_mistakes(mistakes + (missing if need_data else []))
    if study is None:
        raise ValueError(f"{file} produced neither a study nor a mistake")
    return LoadedStudy(study, file, folder, codes)


def with_code(loaded: LoadedStudy) -> LoadedStudy:
    """Return a study with the code of its plug-in blocks loaded, as required to build its networks.

    Raises UserError if a block is not installed, or is a local file whose code was not allowed at loading.
    """
    if len(loaded.blocks) == len(loaded.study.blocks):
        return loaded
    source = Source(str(loaded.file), {BLOCKS: list(loaded.study.blocks)})
    codes, _, mistakes = load_named_blocks(source, loaded.file, allow_code=False)
    raise_mistakes(mistakes)
    return replace(loaded, blocks=codes)


def _space_mistakes(source: Source, blocks: Sequence[BlockSpec]) -> list[Mistake]:
    """Validate axis names and values, even if other sections are invalid."""
    try:
        section = adapter_of(SpaceSection).validate_python(source.values.get("space") or {})
        narrow_space(ANY_CONTEXT, section.narrowing(ANY_CONTEXT, blocks))
    except ValidationError:
        return []
    except DecisionError as error:
        found = []
        for key, message in error.problems:
            found.append(source.mistake(("space", *_place_of(key)), message))
        return found
    return []


def _place_of(key: str) -> KeyPath:
    """Return the key path of a problem of the space; axis names may contain dots."""
    kind, _, rest = key.partition(".")
    if kind in ("fix", "choices"):
        return kind, rest
    index, _, inside = rest.partition(".")
    if not index:
        return (kind,)
    within, _, name = inside.partition(".")
    return (kind, int(index), *(part for part in (within, name) if part))


def _objective_mistakes(source: Source) -> list[Mistake]:
    section = source.values.get("objectives") or {}
    try:
        objectives = adapter_of(Objectives).validate_python(section)
    except ValidationError:
        return []
    if all(goal.direction == "record" for goal in objectives.goals.values()):
        message = f"no objective is optimised; add at least one of {', '.join(OBJECTIVES)}"
        return [source.mistake(("objectives",), message)]
    return []


def find_data(source: Source, file: Path, data_root: Path | None) -> tuple[Path | None, list[Mistake]]:
    """Return the folder of `data.path`, or None and a mistake that lists the paths tried.

    A relative path is looked up in `data_root` alone, if that is given: never in another folder of the same name.
    """
    section = source.values.get("data")
    try:
        path = adapter_of(Data).validate_python(section).path
    except ValidationError:
        path = section.get("path", "") if isinstance(section, dict) else ""
        if not isinstance(path, str) or not path:
            return None, []
    named = [Path(os.environ["VOXNAS_DATA"])] if os.environ.get("VOXNAS_DATA") else []
    roots = [*named, file.parent, Path()] if data_root is None else [data_root]
    tried = [Path(path)] if Path(path).is_absolute() else [root / path for root in roots]
    found = next((folder for folder in tried if os.path.isdir(folder)), None)
    if found is not None:
        return found, []
    candidates = ", ".join(dict.fromkeys(str(folder) for folder in tried))
    message = f"no such folder: {candidates}; set its parent folder with --data or VOXNAS_DATA"
    return None, [source.mistake(("data", "path"), message)]
