"""The command line: one thin function a verb; each imports what it uses, so that looking is quick."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Optional

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from search.front import Look
    from search.plan import Plan

app = typer.Typer(
    name="voxnas", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
    help="Architecture search and ablation for volumetric medical segmentation.",
)  # fmt: skip
StudyFile = Annotated[Path, typer.Argument(metavar="STUDY", help="The study's YAML file.", show_default=False)]
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
Retrain = Literal["full"]
Ensemble = Literal["folds"]
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
) -> None:  # fmt: skip
    """Run the study, or go on with it; Ctrl-C stops it, the same command goes on."""
    plan = _plan(study, data, overrides, runs)
    _run(plan, trials or plan.study.search.trials)


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
) -> None:  # fmt: skip
    """Train the front again over seeds and folds; the same command goes on where it was stopped."""
    plan = _plan(study, data, overrides, runs)
    _confirm(plan, top, seeds, folds or len(plan.folds))


@app.command()
def report(study: StudyFile, overrides: Overrides = None, runs: Runs = Path("runs")) -> None:
    """Write the study's report.html: one file that needs no network."""
    from search.report import write_report

    path = write_report(_look(study, overrides, runs))
    print(f"{path} ({path.stat().st_size / 2**20:.1f} MiB)")


@app.command()
def export(
    study: StudyFile, out: Annotated[Path, typer.Option("--out", help="Folder to write the model to.")],
    pick: Annotated[
        str, typer.Option(help="knee, best, cheapest:dice>=0.85, under:memory=4GiB,latency=30ms, or a trial's number.")
    ] = "knee",
    retrain: Annotated[Retrain | None, typer.Option(help="Train it again on all cases.", show_default=False)] = None,
    ensemble: Annotated[
        Ensemble | None, typer.Option(help="Pack one of each fold; missing ones are trained.", show_default=False)
    ] = None,
    data: DataRoot = None, overrides: Overrides = None, runs: Runs = Path("runs"),
) -> None:  # fmt: skip
    """Write one network as a folder that runs without voxnas, and prove that it does."""
    from search.study.mistakes import UserError

    if retrain and ensemble:
        raise UserError(["export: --retrain full trains one network and --ensemble folds packs several; choose one"])
    plan = _plan(study, data, overrides, runs)
    _export(plan, pick, out, retrain or ensemble or "trial")


@app.command(name="import")
def import_(
    source: Annotated[Path, typer.Argument(help="An export's folder, or a checkpoint's file.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", help="The .safetensors file to write.")],
    preset: Annotated[str | None, typer.Option(help="The paper's network that it is of.", show_default=False)] = None,
) -> None:
    """Take over weights to start trainings from (`training.init`): an export's, or the authors' released ones."""
    from search.importing import import_weights

    print(import_weights(source, out, preset=preset))


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
    _export(plan, "knee", plan.folder / "export", "trial")


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


def _run(plan: Plan, trials: int) -> None:
    from search.local import run_study
    from search.view import RunView

    console = _console()
    with _stoppable(console), RunView(console, name=plan.study.name, trials=trials) as view:
        outcome = run_study(plan, trials=trials, view=view)
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
        done = confirm_study(plan, top=top, seeds=seeds, folds=folds, view=view)
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


def _export(plan: Plan, pick: str, out: Path, packing: Literal["trial", "full", "folds"]) -> None:
    from search.export import export as export_model
    from search.view import RunView

    console = _console()
    with _stoppable(console), RunView(console, name=f"export {plan.study.name}", trials=0) as view:
        exported = export_model(plan, pick, out, packing=packing, view=view)
    console.print(str(exported), highlight=False, soft_wrap=True)


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
