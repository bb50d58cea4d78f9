"""Arguments and options that several verbs share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def complete_study(incomplete: str) -> list[str]:
    """Complete names of studies in runs/, study files and folders."""
    names = [file.parent.name for file in Path("runs").glob("*/study.yaml")]
    files = [
        f"{path}/" if path.is_dir() else str(path)
        for path in Path().glob(f"{incomplete}*")
        if path.is_dir() or path.suffix in (".yaml", ".yml")
    ]
    return [each for each in [*names, *files] if each.startswith(incomplete)]


def require_folder(path: Path) -> Path:
    """Refuse a path that is no folder, or that lies below a file."""
    for place in (path, *path.parents):
        try:
            if place.is_dir():
                return path
            if place.exists():
                raise typer.BadParameter(f"{place} is a file, not a folder")
        except (OSError, ValueError) as error:
            raise typer.BadParameter(f"{str(path)[:80]!r} can't be a folder: {error}") from None
    return path


StudyFile = Annotated[Path, typer.Argument(metavar="STUDY", help="Study file (YAML).", show_default=False)]
StudyOrName = Annotated[
    str,
    typer.Argument(
        metavar="STUDY",
        help="Study file (YAML), or the name of a study in the runs folder.",
        show_default=False,
        autocompletion=complete_study,
    ),
]
AblationFile = Annotated[Path, typer.Argument(metavar="FILE", help="Ablation file (YAML).", show_default=False)]
DataRoot = Annotated[
    Path | None,
    typer.Option("--data", help="Folder that contains the data folder named in the file.", show_default="$VOXNAS_DATA"),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override a key of the file, e.g. training.epochs=3. Repeat for more keys.",
        show_default=False,
    ),
]
Runs = Annotated[
    Path,
    typer.Option("--runs", help="Folder that contains one folder per study.", callback=require_folder),
]
ExecutorKind = Annotated[
    str | None,
    typer.Option("--executor", metavar="local|ray", help="Where trials run.", show_default="executor.kind in the file"),
]
Address = Annotated[
    str | None,
    typer.Option("--address", help="Ray cluster: auto or HOST:PORT.", show_default="executor.address in the file"),
]
Trials = Annotated[
    int | None,
    typer.Option(
        "--trials",
        min=1,
        help="Number of trainings, including those already done.",
        show_default="search.trials in the file",
    ),
]
AllowCode = Annotated[
    bool,
    typer.Option("--allow-code", help="Run the Python files named under blocks in the file. Read them first."),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress, only the outcome.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables, in bytes, seconds and counts.")]


def with_executor(
    overrides: list[str] | None, kind: str | None, address: str | None, workers: int | None = None
) -> list[str]:
    """Return the executor's options as overrides of the study's file."""
    named = {"executor.kind": kind, "executor.address": address, "executor.workers": workers}
    return [*(overrides or ()), *(f"{key}={value}" for key, value in named.items() if value is not None)]


def run_options(
    data: Path | None, overrides: list[str] | None, trials: int | None, *, allow_code: bool = False
) -> list[str]:
    """Format options of `voxnas run` for its command line."""
    named = {"--data": data, "--trials": trials}
    given = [part for name, value in named.items() if value is not None for part in (name, str(value))]
    allowed = ["--allow-code"] if allow_code else []
    return [*given, *allowed, *(part for override in overrides or () for part in ("--set", override))]
