"""Verbs before a search: demo, check, space, blocks, the papers' networks, help on keys."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from search.cli.announce import announce
from search.cli.options import AllowCode, AsJson, DataRoot, Overrides, Quiet, Runs, StudyFile, StudyOrName
from search.cli.verbs.register import START, verb

app = typer.Typer()


@verb(app, START, example="voxnas demo")
def demo(runs: Runs = Path("runs")) -> None:
    """Run a small study on synthetic volumes, from data to exported network, in a few minutes."""
    from search.cli.demo import run_demo

    run_demo(runs)


@verb(app, START, example="voxnas init volumes/Task27_ACDC --hours 8")
def init(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER",
            help="Data folder: Decathlon layout, nnU-Net raw data set, or MONAI list.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="Study file to write.", show_default="NAME.yaml"),
    ] = None,
    hours: Annotated[
        float, typer.Option(min=0.01, max=10_000, help="How long the study may take on this machine.")
    ] = 8.0,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
    runs: Runs = Path("runs"),
    quiet: Quiet = False,
) -> None:
    """Write a study file for your data and this machine, with comments, ready to check and run."""
    announce(folder, quiet=quiet)
    from search.cli.init import write_study

    write_study(folder, out, hours=hours, force=force, runs=runs, quiet=quiet)


@verb(app, START, example="voxnas clone studies/acdc.yaml longer.yaml --set training.epochs=50")
def clone(
    study: StudyOrName,
    new: Annotated[Path, typer.Argument(metavar="NEW.yaml", help="File to write; its name names the study.")],
    overrides: Overrides = None,
    runs: Runs = Path("runs"),
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
) -> None:
    """Write a study file like another one under a new name, with other values of some keys. Comments stay."""
    from search.cli.clone import clone_study

    clone_study(study, new, overrides or (), runs=runs, force=force)


@verb(app, START, example="voxnas doctor --json")
def doctor(runs: Runs = Path("runs"), json: AsJson = False, quiet: Quiet = False) -> None:
    """Test the environment: packages, GPU, precision, memory, disk, Ray, browser. Exit code 1 if something is wrong."""
    from search.cli.doctor import examine

    if not examine(runs, json=json, quiet=quiet):
        raise typer.Exit(1)


@verb(app, START, example="voxnas check studies/acdc.yaml --data FOLDER")
def check(
    study: StudyFile,
    data: DataRoot = None,
    overrides: Overrides = None,
    runs: Runs = Path("runs"),
    costs: Annotated[bool, typer.Option("--costs", help="Also predict the costs of 16 random networks.")] = False,
    json: AsJson = False,
    quiet: Quiet = False,
    allow_code: AllowCode = False,
) -> None:
    """Check a study and its data, and show what would run. Trains nothing."""
    announce(study, quiet=quiet, to_stderr=True)
    from search.cli.check import check_study
    from search.cli.running import load_plan

    check_study(load_plan(study, data, overrides, runs, allow_code=allow_code, quiet=quiet), costs=costs, json=json)


@verb(app, START, example="voxnas space studies/acdc.yaml --data FOLDER --sample 100 --timed 0")
def space(
    study: StudyFile,
    data: DataRoot = None,
    overrides: Overrides = None,
    runs: Runs = Path("runs"),
    sample: Annotated[int, typer.Option(min=1, help="Number of random networks to price.")] = 16,
    timed: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Number of these networks whose latency is measured. By default all on a GPU, none on a CPU.",
            show_default=False,
        ),
    ] = None,
    json: AsJson = False,
    quiet: Quiet = False,
    allow_code: AllowCode = False,
) -> None:
    """Show a study's search space: axes, conditions, size, infeasible share, and the costs of random networks."""
    announce(study, quiet=quiet, to_stderr=True)
    from search.cli.running import load_plan
    from search.cli.space_report import survey_space

    plan = load_plan(study, data, overrides, runs, allow_code=allow_code, quiet=quiet)
    survey_space(plan, networks=sample, timed=timed, json=json, quiet=quiet)


@verb(app, START, name="check-block", example="voxnas check-block my_block.py")
def check_block(
    block: Annotated[
        str,
        typer.Argument(
            metavar="FILE|NAME",
            help="Python file with a BlockSpec, an installed package's entry point, or one of the papers' blocks.",
            show_default=False,
        ),
    ],
    json: AsJson = False,
) -> None:
    """Check that an attention block trains, exports and is priced like the papers' blocks. Runs the file's code."""
    from search.cli.block_report import report_block

    report_block(block, json=json)


@verb(app, START, example="voxnas show unetrpp_acdc")
def show(
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="Name of a network, e.g. unetrpp_acdc.", show_default=False),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="List all networks, one per line.")] = False,
    data: Annotated[
        Path | None,
        typer.Option("--data", help="Data folder for which to plan nnunet or nnunet_resenc_m.", show_default=False),
    ] = None,
    json: AsJson = False,
) -> None:
    """Show the papers' networks: shapes, parameters, MACs, and the places of attention blocks."""
    from search.cli.networks import show_networks

    show_networks(name, every=every, json=json, data=data)


@verb(app, START, name="help", example="voxnas help training.epochs")
def help_on_keys(
    key: Annotated[
        str | None,
        typer.Argument(
            metavar="KEY",
            help="Key or group, e.g. training.epochs, epochs or training. Without it, all keys.",
            show_default=False,
        ),
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the whole reference as Markdown.")] = False,
    json: AsJson = False,
) -> None:
    """Explain the keys of study and ablation files: type, unit, default, meaning, example."""
    from search.cli.reference import show_help

    show_help(key, markdown=markdown, json=json)


@verb(app, START, example="voxnas schema study")
def schema(
    kind: Annotated[str, typer.Argument(metavar="study|ablation", help="Kind of file.", show_default=False)],
) -> None:
    """Print the JSON schema of study or ablation files, with which editors complete and check them."""
    from search.api.reference import schema_of
    from search.api.terminal import print_json

    print_json(schema_of(kind))


@verb(app, START, example="voxnas phantom volumes/phantom --cases 16")
def phantom(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Folder to write, in Decathlon layout.", show_default=False)
    ],
    cases: Annotated[int, typer.Option(min=1, help="Number of cases.")] = 12,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the random shapes, noise and bias fields.")] = 0,
) -> None:
    """Write synthetic volumes: thick slices, several classes, noise, a bias field."""
    from search.api.terminal import print_text
    from search.config.errors import UserError
    from search.config.units import counted
    from search.data.phantom import holds_other_volumes, write_phantom

    if holds_other_volumes(folder):
        raise UserError([f"{folder} holds another data set, which this would overwrite; choose another folder"])
    write_phantom(folder, cases=cases, seed=seed)
    print_text(f"Wrote {counted(cases, 'case')} to {folder}")
