"""The entry points: open a study that has run, or look at the space of a study file."""

from __future__ import annotations

from pathlib import Path

from search.api.find import Overrides, find_study
from search.api.spaces import SearchSpace
from search.api.study import Study
from search.config.load import with_code
from space.canonical import Context
from space.narrow import narrow_space


def open_study(
    named: str | Path, *, data: str | Path | None = None, runs: str | Path = "runs", allow_code: bool = False
) -> Study:
    """Open a study that has run: by its folder (`runs/acdc`), its name in `runs`, or its file.

    `data` is needed to run it further or to export, not to read its results. `allow_code` runs the Python files that
    it names under `blocks`, which building and exporting its networks needs: read them first.
    """
    loaded, found = find_study(named, data=None if data is None else Path(data), runs=Path(runs), allow_code=allow_code)
    return Study(loaded, runs=found)


def space(
    study: str | Path,
    *,
    overrides: Overrides = (),
    data: str | Path | None = None,
    context: Context | None = None,
    allow_code: bool = False,
) -> SearchSpace:
    """Return the space of a study file; patch, channels and classes come from its data, or from `context`."""
    found = Study.from_yaml(study, overrides=overrides, data=data, allow_code=allow_code)
    if context is None:
        return found.space
    return SearchSpace(narrow_space(context, found.settings.space.narrowing(context, with_code(found.loaded).specs)))
