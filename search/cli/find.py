"""A study to read, by its file, by its run's folder, or by its name in the runs folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from search.analysis.front import kept_study
from search.config import Study, UserError, load_study
from search.storage.database import database_url
from search.trials.files import run_folder

KEPT = "study.yaml"  # the study file in a run's folder


@dataclass(frozen=True)
class Found:
    """A study, and the folder of its run."""

    study: Study
    folder: Path


def find_study(named: str | Path, *, overrides: Sequence[str] = (), runs: Path = Path("runs")) -> Found:
    """Return a study to read; that of a folder or a name is the one its database keeps, overrides included.

    Raises UserError where there is none.
    """
    file = Path(named)
    if file.is_file():
        study = load_study(file, overrides=overrides, need_data=False).study
        return Found(study, run_folder(runs, study))
    folder = next((each for each in (file, runs / named) if (each / KEPT).is_file()), None)
    if folder is None:
        raise UserError([_not_found(str(named), runs)])
    if overrides:
        raise UserError([f"--set needs the study's file; {named} is a run, whose settings are fixed"])
    return Found(_kept(folder), folder)


def _kept(folder: Path) -> Study:
    storage = load_study(folder / KEPT, need_data=False).study.storage
    name = folder.resolve().name
    study = kept_study(database_url(storage, folder), name, storage=storage)
    if study is None:
        raise UserError([f"{folder}: the study's database has no study {name!r}; start it with `voxnas run`"])
    return study


def _not_found(named: str, runs: Path) -> str:
    names = sorted(file.parent.name for file in runs.glob(f"*/{KEPT}"))
    close = get_close_matches(named, names, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    there = f"studies in {runs}: {', '.join(names)}" if names else f"no study has run in {runs} yet"
    return f"{named!r} is neither a study file nor the name of a study{hint} ({there})"
