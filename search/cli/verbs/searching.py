"""Verbs that train: run or submit a study, watch it, confirm its front."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from search.cli.announce import announce
from search.cli.options import (
    Address,
    AllowCode,
    AsJson,
    DataRoot,
    ExecutorKind,
    Overrides,
    Quiet,
    Runs,
    StudyFile,
    StudyOrName,
    Trials,
    run_options,
    with_executor,
)
from search.cli.verbs.register import SEARCH, verb

app = typer.Typer()


@verb(app, SEARCH, example="voxnas run studies/acdc.yaml --data FOLDER")
def run(
    study: StudyFile,
    data: DataRoot = None,
    overrides: Overrides = None,
    runs: Runs = Path("runs"),
    trials: Trials = None,
    executor: ExecutorKind = None,
    address: Address = None,
    retime: Annotated[
        bool, typer.Option("--retime", help="First measure the latency of all finished trials again, on this machine.")
    ] = False,
    extend_epochs: Annotated[
        int | None,
        typer.Option(
            "--extend-epochs",
            min=1,
            metavar="N",
            help="Train the networks on and near the front N epochs longer, in a study of its own.",
            show_default=False,
        ),
    ] = None,
    allow_code: AllowCode = False,
    quiet: Quiet = False,
) -> None:
    """Run or resume a study. Ctrl-C stops it; the same command resumes it."""
    announce(study, quiet=quiet)
    from search.cli.running import extend_front, load_study, print_next_commands, run_trials
    from search.config.errors import UserError

    if extend_epochs and (trials or retime):
        raise UserError(["run: --extend-epochs starts no new trials; leave out --trials and --retime"])
    loaded = load_study(study, data, with_executor(overrides, executor, address), runs, allow_code=allow_code)
    if extend_epochs:
        loaded = extend_front(loaded, extend_epochs, quiet=quiet)
    else:
        run_trials(loaded, trials, retime=retime, quiet=quiet)
    if not quiet:
        print_next_commands(loaded)


@verb(app, SEARCH, example="voxnas submit studies/acdc.yaml --address http://HEAD:8265 --runs /shared/runs")
def submit(
    study: StudyFile,
    address: Annotated[str, typer.Option("--address", help="Dashboard of the cluster's head, http://HEAD:8265.")],
    runs: Annotated[Path, typer.Option("--runs", help="Runs folder on the cluster, as an absolute path.")],
    data: Annotated[
        Path | None,
        typer.Option("--data", help="Folder on the cluster that contains the data folder.", show_default=False),
    ] = None,
    overrides: Overrides = None,
    trials: Trials = None,
    follow: Annotated[bool, typer.Option("--follow", help="Print the job's output until it ends.")] = False,
    allow_code: AllowCode = False,
) -> None:
    """Submit a study to a Ray cluster as a job. Submit it again to resume it."""
    from search.cli.running import submit_study

    submit_study(study, address, runs, run_options(data, overrides, trials, allow_code=allow_code), follow)


@verb(app, SEARCH, example="voxnas status acdc --watch")
def status(
    study: StudyOrName,
    overrides: Overrides = None,
    runs: Runs = Path("runs"),
    json: AsJson = False,
    watch: Annotated[bool, typer.Option("--watch", help="Refresh every two seconds until the study ends.")] = False,
) -> None:
    """Show a study's progress: drivers, machines, running trials, queue, failures with their reasons, time left."""
    from search.cli.status import show_status

    show_status(study, overrides, runs, json, watch)


@verb(app, SEARCH, example="voxnas confirm studies/acdc.yaml --data FOLDER --top 5 --seeds 2")
def confirm(
    study: StudyFile,
    data: DataRoot = None,
    overrides: Overrides = None,
    runs: Runs = Path("runs"),
    top: Annotated[
        int | None,
        typer.Option(min=1, help="Confirm only the best N of the front.", metavar="N", show_default="the whole front"),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Trainings per fold, each with its own seed.")] = 1,
    folds: Annotated[
        int | None,
        typer.Option(min=1, help="Number of folds, starting with the study's own.", show_default="all"),
    ] = None,
    executor: ExecutorKind = None,
    address: Address = None,
    quiet: Quiet = False,
    json: AsJson = False,
    allow_code: AllowCode = False,
) -> None:
    """Retrain the Pareto front over seeds and folds. The same command resumes it."""
    announce(study, quiet=quiet, to_stderr=json)
    from search.cli.running import confirm_front, load_study

    loaded = load_study(study, data, with_executor(overrides, executor, address), runs, allow_code=allow_code)
    confirm_front(loaded, top, seeds, folds, quiet=quiet, json=json)
