"""Verbs that compare: ablations, and proposers on tables of known results."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from search.cli.announce import announce
from search.cli.options import (
    AblationFile,
    Address,
    AllowCode,
    AsJson,
    DataRoot,
    ExecutorKind,
    Overrides,
    Quiet,
    Runs,
    StudyFile,
    with_executor,
)
from search.cli.verbs.register import COMPARE, verb

app = typer.Typer()


@verb(app, COMPARE, example="voxnas ablate studies/ablations/csam_parts.yaml --data FOLDER --dry-run")
def ablate(
    file: AblationFile,
    data: DataRoot = None,
    overrides: Overrides = None,
    runs: Runs = Path("runs"),
    executor: ExecutorKind = None,
    address: Address = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the arms, their costs and the expected time; train nothing.")
    ] = False,
    quiet: Quiet = False,
    json: AsJson = False,
    allow_code: AllowCode = False,
) -> None:
    """Run or resume an ablation, and write its tables, figures and methods paragraph."""
    announce(file, quiet=quiet, to_stderr=json or dry_run)
    from search.cli.running import load_arms

    given = with_executor(overrides, executor, address)
    plan = load_arms(file, data, given, runs, allow_code=allow_code, quiet=quiet, to_stderr=json or dry_run)
    from search.cli.ablations import preview_ablation, run_arms

    if dry_run:
        preview_ablation(plan, json=json)
    else:
        run_arms(plan, quiet=quiet, json=json)


@verb(app, COMPARE, example="voxnas tabulate studies/tables/hippocampus.yaml --data FOLDER --networks 300 --seeds 3")
def tabulate(
    study: StudyFile,
    data: DataRoot = None,
    overrides: Overrides = None,
    runs: Runs = Path("runs"),
    networks: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Size of the random sample of networks.", show_default="all of the space"
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, metavar="S", help="Trainings of each network.")] = 3,
    processes: Annotated[
        int | None,
        typer.Option(min=1, help="Trainings at a time.", show_default="executor.workers in the file, or 1"),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Parquet file to write, or to extend; its data card lies beside it, with the ending .md.",
            show_default="table.parquet in the study's folder",
        ),
    ] = None,
    train: Annotated[
        bool, typer.Option("--train/--no-train", help="Train what is missing, or write what is there.")
    ] = True,
    executor: ExecutorKind = None,
    address: Address = None,
    quiet: Quiet = False,
    allow_code: AllowCode = False,
) -> None:
    """Train or resume a random sample of a study's networks with several seeds; write them as a table."""
    from search.cli.running import load_study
    from search.cli.tables import write_tabulated

    named = with_executor(overrides, executor, address, processes)
    loaded = load_study(study, data, named, runs, allow_code=allow_code)
    write_tabulated(loaded, networks=networks, seeds=seeds, train=train, out=out, quiet=quiet)


@verb(app, COMPARE, example="voxnas simulate --synthetic --only noisy --seeds 5 --trainings 50")
def simulate(
    synthetic: Annotated[
        bool, typer.Option("--synthetic", help="Search the synthetic tables, all of them or those of --only.")
    ] = False,
    only: Annotated[
        str | None,
        typer.Option(metavar="NAMES", help="Synthetic tables, separated by commas.", show_default="all"),
    ] = None,
    table: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Parquet file of known results.", show_default=False),
    ] = None,
    objectives: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="Objectives, separated by commas: dice and any costs of the table.",
            show_default="dice,memory,latency, as far as the table has them",
        ),
    ] = None,
    proposers: Annotated[
        str,
        typer.Option(
            metavar="NAMES", help="Proposers to compare, separated by commas.", show_default="all that a study can name"
        ),
    ] = "known-cost,random,tpe,nsga2,nsga3,gp,local",
    seeds: Annotated[int, typer.Option(min=1, help="Number of runs per proposer.")] = 20,
    workers: Annotated[int, typer.Option(min=1, max=1024, help="Asynchronous trainings at a time.")] = 1,
    trainings: Annotated[int, typer.Option(min=1, help="Trainings after which a run is cut off.")] = 200,
    enough: Annotated[float, typer.Option(min=0.0, max=1.0, help="Share of the hypervolume that ends a run.")] = 0.99,
    halving: Annotated[
        str,
        typer.Option(
            metavar="RULE",
            help="Successive halving: off, or epochs before the first decision, reduction and brackets, as in 1,3,2; "
            "the number of brackets may be left out.",
        ),
    ] = "off",
    noise: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=0.2,
            help="Standard deviation of a training's Dice, in place of the table's; each run then uses all trainings.",
            show_default=False,
        ),
    ] = None,
    learn_from: Annotated[
        str | None,
        typer.Option(
            metavar="FILES",
            help="Tables that known-cost learns from, separated by commas, as with search.learn_from.",
            show_default=False,
        ),
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Number of processes.")] = 1,
    figure: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also write the anytime curves as an HTML file.", show_default=False),
    ] = None,
    quiet: Quiet = False,
    json: AsJson = False,
) -> None:
    """Compare proposers on tables of known results. Trains nothing."""
    from search.api.terminal import open_console
    from search.cli.tables import counting
    from search.simulate.call import Call, run_call

    call = Call(
        tables=only.split(",") if only else None,
        synthetic=synthetic,
        file=table,
        objectives=tuple(objectives.split(",")) if objectives else None,
        proposers=proposers.split(","),
        seeds=seeds,
        workers=workers,
        trainings=trainings,
        enough=enough,
        halving=halving,
        jobs=jobs,
        noise=noise,
        learn_from=tuple(Path(file) for file in learn_from.split(",")) if learn_from else (),
    )
    with counting("runs", quiet=quiet) as progress:
        run_call(call, console=open_console(), progress=progress, figure=figure, as_json=json)
