"""A study by its file, by its run's folder, or by its name in the runs folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from json import dumps
from pathlib import Path
from typing import Any

from search.analysis.snapshot_reader import stored_study
from search.config import LoadedStudy, Study, UserError, load_study
from search.storage.address import database_url
from search.storage.ownership import DATABASE

KEPT = "study.yaml"  # the study file in a run's folder
Overrides = Mapping[str, Any] | Sequence[str]


def find_study(
    named: str | Path,
    *,
    overrides: Overrides = (),
    data: Path | None = None,
    runs: Path = Path("runs"),
    allow_code: bool = False,
) -> tuple[LoadedStudy, Path]:
    """Return a study and its runs folder; a run's study is the one that its database keeps, overrides included.

    Raises UserError if there is none. The data need not be there.
    """
    file = Path(named)
    if file.is_file():
        lines = as_lines(overrides)
        return load_study(file, overrides=lines, data_root=data, need_data=False, allow_code=allow_code), runs
    folder = next((each for each in (file, runs / named) if (each / KEPT).is_file()), None)
    if folder is None:
        raise UserError([_not_found(str(named), runs)])
    if overrides:
        raise UserError([f"--set needs the study's file; {named} is a run, whose settings are fixed"])
    return _kept(folder, data, allow_code=allow_code), folder.resolve().parent


def as_lines(overrides: Overrides) -> Sequence[str]:
    """Write overrides as `--set` takes them: `key.path=value`, the value in YAML."""
    if isinstance(overrides, Mapping):
        return [f"{key}={dumps(value)}" for key, value in overrides.items()]
    return overrides


def _kept(folder: Path, data: Path | None, *, allow_code: bool) -> LoadedStudy:
    """Read a run's study from its database; keys that may change between runs come from the file in its folder."""
    loaded = load_study(folder / KEPT, data_root=data, need_data=False, allow_code=allow_code)
    name, written = folder.resolve().name, loaded.study
    kept = stored_study(database_url(written.storage, folder), name, storage=written.storage)
    if kept is None:
        raise UserError([f"{folder}: the study's database has no study {name!r}; start it with `voxnas run`"])
    return replace(loaded, study=_with_free_keys(kept, written))


def _with_free_keys(kept: Study, written: Study) -> Study:
    """Copy the keys that the database doesn't store, because results don't depend on them."""
    return replace(
        kept,
        data=replace(kept.data, path=written.data.path),
        search=replace(kept.search, trials=written.search.trials, hours=written.search.hours),
        executor=written.executor,
        keep=written.keep,
        track=written.track,
    )


def _not_found(named: str, runs: Path) -> str:
    begun = next((each for each in (Path(named), runs / named) if (each / DATABASE).is_file()), None)
    if begun is not None:
        return f"{begun} has a database, but no {KEPT}; give the study's file instead of its name"
    names = sorted(file.parent.name for file in runs.glob(f"*/{KEPT}"))
    close = get_close_matches(named, names, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    there = f"studies in {runs}: {', '.join(names)}" if names else f"no study has run in {runs} yet"
    return f"{named!r} is neither a study file nor the name of a study{hint} ({there})"
