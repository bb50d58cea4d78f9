"""The command line: one thin function a verb; each imports what it uses, so that looking is quick."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from search.ablation.plan import AblationPlan
    from search.driver import Executor
    from search.front import Look
    from search.plan import Plan

app = typer.Typer(
    name="voxnas", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
    help="Architecture search and ablation for volumetric medical segmentation.",
)  # fmt: skip
StudyFile = Annotated[Path, typer.Argument(metavar="STUDY", help="The study's YAML file.", show_default=False)]
AblationFile = Annotated[Path, typer.Argument(metavar="FILE", help="The ablation's YAML file.", show_default=False)]
DataRoot = Annotated[
    Optional[Path],  # noqa: UP045 (typer reads it at run time)
    typer.Option("--data", help="Folder in which the study's data folder lies [also VOXNAS_DATA].", show_default=False),
]
Overrides = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override a key of the file, as training.epochs=3.",
        show_default=False,
    ),
]
Runs = Annotated[Path, typer.Option("--runs", help="Folder in which the studies' own folders lie.")]
Kind = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--executor", help="local, or ray [the file's executor.kind].", show_default=False),
]
Address = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--address", help="The Ray cluster, as auto or HOST:PORT [the file's].", show_default=False),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


@app.command()
def check(
    study: StudyFile, data: DataRoot = None, overrides: Overrides = None, runs: Runs = Path("runs"),
    costs: Annotated[bool, typer.Option("--costs", help="Build and price random networks of the space too.")] = False,
) -> None:  # fmt: skip
    """Read the study and its data, say what would run and what is wrong; run nothing."""
    from search.preview import print_costs, print_plan

    plan = _plan(study, data, overrides, runs)
    print_plan(plan, _console())
    if costs:
        print_costs(plan, _console())


@app.command()
def space(
    study: StudyFile, data: DataRoot = None, overrides: Overrides = None, runs: Runs = Path("runs"),
    sample: Annotated[int, typer.Option(min=1, help="Random networks to price.")] = 16,
    timed: Annotated[int, typer.Option("--timed", min=0, help="So many of them with their latency measured.")] = 16,
    json: AsJson = False,
) -> None:  # fmt: skip
    """Show the study's search space: axes, conditions, size, what is refused, what networks cost."""
    plan = _plan(study, data, overrides, runs)
    _survey(plan, sample, timed, json)


@app.command()
def run(
    study: StudyFile, data: DataRoot = None, overrides: Overrides = None, runs: Runs = Path("runs"),
    trials: Annotated[int | None, typer.Option(min=1, help="Trainings in all [the file's search.trials].")] = None,
    executor: Kind = None, address: Address = None,
) -> None:  # fmt: skip
    """Run the study, or go on with it; Ctrl-C stops it, the same command goes on."""
    plan = _plan(study, data, _executor(overrides, executor, address), runs)
    _run(plan, trials or plan.study.search.trials)


@app.command()
def submit(
    study: StudyFile, address: Annotated[str, typer.Option("--address", help="The head's dashboard, http://HEAD:8265.")],
    runs: Annotated[Path, typer.Option("--runs", help="Folder of the cluster for the studies' own folders.")],
    data: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--data", help="Folder of the cluster in which the study's data folder lies.", show_default=False),
    ] = None,
    overrides: Overrides = None,
    trials: Annotated[int | None, typer.Option(min=1, help="Trainings in all [the file's search.trials].")] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Print what the run prints until it ends.")] = False,
) -> None:  # fmt: skip
    """Send the study to a Ray cluster, which runs it as a job; sent again, it goes on."""
    _submit(study, address, runs, _options(data, overrides, trials), follow)


@app.command()
def status(
    study: StudyFile, overrides: Overrides = None, runs: Runs = Path("runs"), json: AsJson = False,
    watch: Annotated[bool, typer.Option("--watch", help="Show it anew every two seconds until it ends.")] = False,
) -> None:  # fmt: skip
    """Show who works on the study: machines, running trials, queue, failures with their reasons, time left."""
    _status(study, overrides, runs, json, watch)


@app.command()
def studies(
    database: Annotated[str | None, typer.Argument(help="A URL or a file [all of the runs folder].")] = None,
    rename: Annotated[tuple[str, str] | None, typer.Option("--rename", metavar="NAME NEW")] = None,
    copy: Annotated[tuple[str, str] | None, typer.Option("--copy", metavar="NAME DATABASE")] = None,
    delete: Annotated[str | None, typer.Option("--delete", metavar="NAME", help="Its records and its folder.")] = None,
    free: Annotated[str | None, typer.Option("--free", metavar="NAME", help="Its files that nothing needs.")] = None,
    upgrade: Annotated[bool, typer.Option("--upgrade", help="Bring an older database up to date.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask before deleting.")] = False,
    runs: Runs = Path("runs"),
) -> None:  # fmt: skip
    """List the studies of a database; rename, copy or delete one, free its disk."""
    from search.store import studies as kept

    change = kept.Change(rename, copy, delete, free, upgrade)
    if delete and not yes:
        typer.confirm(f"delete the study {delete}, with its records and its folder?", abort=True)
    for line in kept.change_studies(kept.find_databases(database, runs), change, runs=runs):
        print(line)
    rows = [row for url in kept.find_databases(database, runs) for row in kept.list_studies(url)]
    _console().print(kept.studies_table(rows))


@app.command()
def front(
    study: StudyFile, overrides: Overrides = None, runs: Runs = Path("runs"), json: AsJson = False,
    confirmed: Annotated[bool, typer.Option("--confirmed", help="As confirmation left it: means, intervals.")] = False,
) -> None:  # fmt: skip
    """Show the study's Pareto front."""
    from search.front import front_json, front_table

    looked = _look(study, overrides, runs)
    if confirmed:
        _confirmed(looked, json)
    elif json:
        print(front_json(looked))
    else:
        _console().print(front_table(looked))


@app.command()
def confirm(
    study: StudyFile, data: DataRoot = None, overrides: Overrides = None, runs: Runs = Path("runs"),
    top: Annotated[int | None, typer.Option(min=1, help="So many of the front [all of it].")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of each fold, from seeds of their own.")] = 1,
    folds: Annotated[int | None, typer.Option(min=1, help="Folds, the study's own first [all].")] = None,
    executor: Kind = None, address: Address = None,
) -> None:  # fmt: skip
    """Train the front again over seeds and folds; the same command goes on where it was stopped."""
    plan = _plan(study, data, _executor(overrides, executor, address), runs)
    _confirm(plan, top, seeds, folds or len(plan.folds))


@app.command()
def ablate(
    file: AblationFile, data: DataRoot = None, overrides: Overrides = None, runs: Runs = Path("runs"),
    executor: Kind = None, address: Address = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print arms, costs, expected time; run nothing.")] = False,
) -> None:  # fmt: skip
    """Run or resume an ablation, and write its tables, figures and methods paragraph."""
    from search.ablation.load import load_ablation
    from search.ablation.plan import make_ablation_plan

    loaded = load_ablation(file, runs=runs, overrides=_executor(overrides, executor, address), data_root=data)
    plan = make_ablation_plan(loaded, runs=runs)
    if dry_run:
        from search.ablation.preview import outlooks, print_outlook

        print_outlook(plan, outlooks(plan), _console())
    else:
        _ablate(plan)


@app.command()
def report(study: StudyFile, overrides: Overrides = None, runs: Runs = Path("runs")) -> None:
    """Write the study's report.html: one file that needs no network."""
    from search.report import write_report

    path = write_report(_look(study, overrides, runs))
    print(f"{path} ({path.stat().st_size / 2**20:.1f} MiB)")


@app.command()
def export(
    study: StudyFile, out: Annotated[Path, typer.Option("--out", help="Folder to write the model to.")],
    pick: Annotated[str, typer.Option("--pick", help="knee, best, or a trial's number.")] = "knee",
    data: DataRoot = None, overrides: Overrides = None, runs: Runs = Path("runs"),
) -> None:  # fmt: skip
    """Write one network as a folder that runs without voxnas, and prove that it does."""
    plan = _plan(study, data, overrides, runs)
    _export(plan, pick, out)


@app.command()
def show(
    name: Annotated[str | None, typer.Argument(help="A paper's network, as unetrpp_acdc.", show_default=False)] = None,
    every: Annotated[bool, typer.Option("--all", help="All of them, one line each.")] = False,
) -> None:
    """Show the papers' networks: shapes, parameters, MACs, and where attention sits."""
    _show(name, every)


@app.command()
def phantom(
    folder: Annotated[Path, typer.Argument(help="Folder to write, in Decathlon layout.", show_default=False)],
    cases: Annotated[int, typer.Option(min=1)] = 12,
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Write made volumes: thick slices, several classes, noise, a bias field."""
    from search.data.phantom import write_phantom

    write_phantom(folder, cases=cases, seed=seed)
    print(f"{cases} cases in {folder}")


@app.command()
def simulate(
    synthetic: Annotated[bool, typer.Option("--synthetic", help="Search made tables, all or --only some.")] = False,
    only: Annotated[str | None, typer.Option(help="Names of made tables, with commas.", show_default=False)] = None,
    table: Annotated[Path | None, typer.Option(help="A Parquet file of known results.", show_default=False)] = None,
    proposers: Annotated[str, typer.Option(help="Names with commas.")] = "known-cost,random,tpe,nsga2,nsga3,gp,local",
    seeds: Annotated[int, typer.Option(min=1)] = 20,
    workers: Annotated[int, typer.Option(min=1, max=1024, help="Trainings at a time, asynchronous.")] = 1,
    trainings: Annotated[int, typer.Option(min=1, help="Trainings at which a run is cut off.")] = 200,
    enough: Annotated[float, typer.Option(min=0.0, max=1.0, help="Share of the hypervolume at which it ends.")] = 0.99,
    halving: Annotated[str, typer.Option(help="off, or MIN_EPOCHS,REDUCTION[,BRACKETS].")] = "off",
    jobs: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
    figure: Annotated[Path | None, typer.Option(help="Write anytime curves as HTML.", show_default=False)] = None,
    json: AsJson = False,
) -> None:  # fmt: skip
    """Compare proposers on tables of known results, without training."""
    from search.simulate.call import Call, run_call

    call = Call(
        tables=only.split(",") if only else None, synthetic=synthetic, file=table, proposers=proposers.split(","),
        seeds=seeds, workers=workers, trainings=trainings, enough=enough, halving=halving, jobs=jobs,
    )  # fmt: skip
    run_call(call, console=_console(), figure=figure, as_json=json)


@app.command()
def demo(runs: Runs = Path("runs")) -> None:
    """Run a small study on made volumes, from phantom to exported model, in a few minutes."""
    from search.demo import demo_study

    file, root = demo_study(runs)
    plan = _plan(file, root, None, runs)
    _run(plan, plan.study.search.trials)
    front(file, None, runs, json=False)
    report(file, None, runs)
    _export(plan, "knee", plan.folder / "export")


def _console() -> Console:
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 160)


def _plan(study: Path, data: Path | None, overrides: list[str] | None, runs: Path) -> Plan:
    from search.plan import make_plan
    from search.study import load_study

    return make_plan(load_study(study, overrides=overrides or (), data_root=data), runs=runs)


def _look(study: Path, overrides: list[str] | None, runs: Path) -> Look:
    from search.front import look
    from search.study import load_study

    return look(load_study(study, overrides=overrides or (), need_data=False), runs=runs)


def _executor(overrides: list[str] | None, kind: str | None, address: str | None) -> list[str]:
    """Say what the options of an executor say as overrides of the study's file."""
    named = {"executor.kind": kind, "executor.address": address}
    return [*(overrides or ()), *(f"{key}={value}" for key, value in named.items() if value is not None)]


def _options(data: Path | None, overrides: list[str] | None, trials: int | None) -> list[str]:
    """Write options of `voxnas run` as they are written on its command line."""
    named = {"--data": data, "--trials": trials}
    given = [part for name, value in named.items() if value is not None for part in (name, str(value))]
    return [*given, *(part for override in overrides or () for part in ("--set", override))]


def _submit(study: Path, address: str, runs: Path, options: list[str], follow: bool) -> None:
    from search.cluster import submit as sending
    from search.study import UserError, load_study

    overrides = [value for option, value in zip(options[:-1], options[1:], strict=True) if option == "--set"]
    loaded = load_study(study, overrides=overrides, need_data=False)
    sent = sending.submit(loaded, address=address, runs=runs, options=options)
    print(f"{loaded.study.name} runs as {sent.job}; `ray job logs --address {address} {sent.job}` shows what it prints")
    if follow:
        ended = sending.follow(sent)
        if ended != "SUCCEEDED":
            raise UserError([f"submit: {sent.job} ended as {ended}"])


def _status(study: Path, overrides: list[str] | None, runs: Path, json: bool, watch: bool) -> None:
    from search.status import status_json, status_view, study_status
    from search.study import load_study

    loaded = load_study(study, overrides=overrides or (), need_data=False)
    if json:
        print(status_json(study_status(loaded, runs=runs)))
    elif not watch:
        _console().print(status_view(study_status(loaded, runs=runs)))
    else:
        import time

        from rich.live import Live

        with Live(console=_console(), auto_refresh=False) as live:
            while True:
                now = study_status(loaded, runs=runs)
                live.update(status_view(now), refresh=True)
                if now.is_over:
                    break
                time.sleep(2)


def _make_executor(plan: Plan) -> Executor:
    if plan.study.executor.kind == "ray":
        from search.cluster.executor import RayExecutor

        return RayExecutor(plan, address=plan.study.executor.address)
    from search.local import LocalExecutor

    return LocalExecutor(plan)


def _run(plan: Plan, trials: int) -> None:
    from search.driver import run_study
    from search.view import RunView

    console = _console()
    with _stoppable(console), RunView(console, name=plan.study.name, trials=trials) as view:
        outcome = run_study(plan, trials=trials, view=view, executor=_make_executor(plan))
    states = [record.state for record in outcome.records]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    console.print(f"{outcome.why} ({counts})", highlight=False)


@contextmanager
def _stoppable(console: Console) -> Iterator[None]:
    """Let Ctrl-C and SIGTERM stop what runs inside, and say how to go on."""
    import shlex
    import signal

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except KeyboardInterrupt:
        again = shlex.join(["voxnas", *sys.argv[1:]])
        console.print(f"stopped; go on with: {again}", highlight=False, soft_wrap=True)
        raise typer.Exit(130) from None


def _confirm(plan: Plan, top: int | None, seeds: int, folds: int) -> None:
    from search.confirm import confirm_study
    from search.front import look
    from search.view import RunView

    console = _console()
    with _stoppable(console), RunView(console, name=f"confirm {plan.study.name}", trials=0) as view:
        done = confirm_study(plan, top=top, seeds=seeds, folds=folds, view=view, executor=_make_executor(plan))
    console.print(f"{done} trainings done", highlight=False)
    _confirmed(look(plan.loaded, runs=plan.runs), json=False)


def _confirmed(looked: Look, json: bool) -> None:
    from search.confirmed import confirmed_json, confirmed_table
    from search.front import confirmed

    points = confirmed(looked)
    if json:
        print(confirmed_json(looked.study.name, points))
    else:
        _console().print(confirmed_table(looked.study.name, points, looked.study.directions))


def _ablate(plan: AblationPlan) -> None:
    from search.ablation.run import missing_count, run_ablation
    from search.view import RunView

    console, name = _console(), plan.loaded.ablation.name
    with _stoppable(console), RunView(console, name=name, trials=missing_count(plan)) as view:
        run_ablation(plan, view=view, make_executor=_make_executor)
    _findings(plan)


def _findings(plan: AblationPlan) -> None:
    from search.ablation.findings import find, write_findings
    from search.ablation.run import ablation_device
    from search.ablation.tables import to_rich

    console, found = _console(), find(plan, ablation_device(plan))
    for table in found.tables:
        console.print(to_rich(table))
    console.print(found.methods, highlight=False)
    for path in write_findings(plan, found):
        print(path)


def _survey(plan: Plan, sample: int, timed: int, json: bool) -> None:
    from search.devices import resolve_device, resolve_threads
    from search.survey import axes_table, costs_table, refused_shares, sample_costs, size_lines, survey_json

    executor, refused = plan.study.executor, refused_shares(plan)
    device, threads = resolve_device(executor.device), resolve_threads(executor.threads)
    if not json:
        _console().print(axes_table(plan.space))
        print("\n".join(size_lines(plan, refused)))
    spreads = sample_costs(plan, networks=sample, timed=timed, device=device, threads=threads)
    if json:
        print(survey_json(plan, refused, spreads))
    else:
        _console().print(costs_table(spreads, budgets=plan.budgets))


def _export(plan: Plan, pick: str, out: Path) -> None:
    from search.export import export as export_model

    exported = export_model(plan, pick, out)
    _console().print(str(exported), highlight=False, soft_wrap=True)


def _show(name: str | None, every: bool) -> None:
    from search.study.mistakes import UserError

    if every == (name is not None):
        raise UserError(["show: name one network, or give --all alone"])
    from search.show import find_preset, layer_table, layers, summaries, summary_table

    if name is None:
        _console().print(summary_table(summaries()))
    else:
        preset = find_preset(name)
        _console().print(layer_table(preset, layers(preset.architecture, preset.context)))


def main() -> None:
    """Run a verb; a user's mistakes are printed one a line, with exit code 2 and no traceback."""
    try:
        app()
    except Exception as error:
        from search.study.mistakes import UserError  # not before: it takes longer than the rest of `--help`

        if not isinstance(error, UserError):
            raise
        for mistake in error.mistakes:
            print(f"voxnas: {mistake}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
