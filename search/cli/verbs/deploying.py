"""Verbs that export networks and import weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from search.cli.announce import announce
from search.cli.options import AllowCode, AsJson, DataRoot, Overrides, Quiet, Runs, StudyOrName
from search.cli.verbs.register import DEPLOY, verb

app = typer.Typer()
Retrain = Literal["full"]
Ensemble = Literal["folds"]


@verb(app, DEPLOY, example="voxnas export studies/acdc.yaml --data FOLDER --pick knee --out model")
def export(
    study: StudyOrName,
    out: Annotated[Path, typer.Option("--out", help="Folder to write.")],
    pick: Annotated[
        str,
        typer.Option(
            metavar="RULE",
            help="Network to export: knee, best, cheapest:dice>=0.85, under:memory=4GiB,latency=30ms, or a trial.",
        ),
    ] = "knee",
    retrain: Annotated[
        Retrain | None,
        typer.Option(help="Retrain the network on all cases first.", show_default=False),
    ] = None,
    ensemble: Annotated[
        Ensemble | None,
        typer.Option(help="Export one network per fold; missing ones are trained.", show_default=False),
    ] = None,
    contact: Annotated[str, typer.Option(help="Name and address for the model card.", show_default=False)] = "",
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier export in the folder.")] = False,
    data: DataRoot = None,
    overrides: Overrides = None,
    runs: Runs = Path("runs"),
    allow_code: AllowCode = False,
    quiet: Quiet = False,
) -> None:
    """Export one network as a folder that runs without voxnas, and verify it."""
    announce(study, quiet=quiet)
    from search.cli.running import export_network, load_to_use
    from search.config.errors import UserError

    if retrain and ensemble:
        raise UserError(["export: choose one of --retrain full (one network) and --ensemble folds (several)"])
    loaded = load_to_use(study, data, overrides, runs, allow_code=allow_code)
    export_network(loaded, pick, out, retrain or ensemble or "trial", contact=contact, force=force, quiet=quiet)


@verb(app, DEPLOY, example="voxnas test studies/acdc.yaml --data FOLDER --pick knee")
def test(
    study: StudyOrName,
    pick: Annotated[
        str,
        typer.Option(
            metavar="RULE",
            help="Network to score: knee, best, cheapest:dice>=0.85, under:memory=4GiB,latency=30ms, or a trial.",
        ),
    ],
    again: Annotated[
        bool, typer.Option("--again", help="Score a further network although the test cases were used before.")
    ] = False,
    data: DataRoot = None,
    overrides: Overrides = None,
    runs: Runs = Path("runs"),
    allow_code: AllowCode = False,
    quiet: Quiet = False,
    json: AsJson = False,
) -> None:
    """Score one network once on the cases that data.test keeps from the search, and record it."""
    announce(study, quiet=quiet, to_stderr=json)
    from search.cli.running import load_to_use, score_network

    loaded = load_to_use(study, data, overrides, runs, allow_code=allow_code)
    score_network(loaded, pick, again=again, quiet=quiet, json=json)


@verb(app, DEPLOY, name="import", example="voxnas import model --out start.safetensors")
def import_(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="EXPORT|CHECKPOINT", help="An export's folder, or a checkpoint file.", show_default=False
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="The .safetensors file to write.")],
    preset: Annotated[
        str | None,
        typer.Option(
            help="Paper's network that the checkpoint belongs to; voxnas show --all lists them.", show_default=False
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
) -> None:
    """Convert weights to start trainings from (key training.init): an export's, or the authors' released ones."""
    from search.api.terminal import print_text
    from search.cli.free_file import require_free

    require_free(out, force=force)
    from search.export.import_weights import import_weights

    print_text(import_weights(source, out, preset=preset))
