"""The command line: one thin function a verb; each imports what it uses, so that looking is quick."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal, Optional

import typer

from search.cli import commands

app = typer.Typer(
    name="voxnas",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Architecture search and ablation for volumetric medical segmentation.",
)
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
Retrain = Literal["full"]
Ensemble = Literal["folds"]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


@app.command()
def check(
    study: StudyFile,
    data: DataRoot = None,
    overrides: Overrides = None,
    runs: Runs = Path("runs"),
    costs: Annotated[bool, typer.Option("--costs", help="Build and price random networks of the space too.")] = False,
) -> None:
    """Read the study and its data, say what would run and what is wrong; run nothing."""
    from search.cli.check import print_costs, print_plan

    plan = commands.load_plan(study, data, overrides, runs)
    print_plan(plan, commands.open_console())
    if costs:
        print_costs(plan, commands.open_console())


@app.command()
def space(
    study: StudyFile,
    data: DataRoot = None,
    overrides: Overrides = None,
    runs: Runs = Path("runs"),
    sample: Annotated[int, typer.Option(min=1, help="Random networks to price.")] = 16,
    timed: Annotated[int, typer.Option("--timed", min=0, help="So many of them with their latency measured.")] = 16,
    json: AsJson = False,
) -> None:
    """Show the study's search space: axes, conditions, size, what is refused, what networks cost."""
    plan = commands.load_plan(study, data, overrides, runs)
    commands.survey_space(plan, sample, timed, json)


@app.command()
def run(
    study: StudyFile,
    data: DataRoot = None,
    overrides: Overrides = None,
    runs: Runs = Path("runs"),
    trials: Annotated[int | None, typer.Option(min=1, help="Trainings in all [the file's search.trials].")] = None,
    executor: Kind = None,
    address: Address = None,
) -> None:
    """Run the study, or go on with it; Ctrl-C stops it, the same command goes on."""
    plan = commands.load_plan(study, data, commands.with_executor(overrides, executor, address), runs)
    commands.run_trials(plan, trials or plan.study.search.trials)


@app.command()
def submit(
    study: StudyFile,
    address: Annotated[str, typer.Option("--address", help="The head's dashboard, http://HEAD:8265.")],
    runs: Annotated[Path, typer.Option("--runs", help="Folder of the cluster for the studies' own folders.")],
    data: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--data", help="Folder of the cluster in which the study's data folder lies.", show_default=False),
    ] = None,
    overrides: Overrides = None,
    trials: Annotated[int | None, typer.Option(min=1, help="Trainings in all [the file's search.trials].")] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Print what the run prints until it ends.")] = False,
) -> None:
    """Send the study to a Ray cluster, which runs it as a job; sent again, it goes on."""
    commands.submit_study(study, address, runs, commands.run_options(data, overrides, trials), follow)


@app.command()
def status(
    study: StudyFile,
    overrides: Overrides = None,
    runs: Runs = Path("runs"),
    json: AsJson = False,
    watch: Annotated[bool, typer.Option("--watch", help="Show it anew every two seconds until it ends.")] = False,
) -> None:
    """Show who works on the study: machines, running trials, queue, failures with their reasons, time left."""
    commands.show_status(study, overrides, runs, json, watch)


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
) -> None:
    """List the studies of a database; rename, copy or delete one, free its disk."""
    from search.storage import admin

    change = admin.Change(rename, copy, delete, free, upgrade)
    if delete and not yes:
        typer.confirm(f"delete the study {delete}, with its records and its folder?", abort=True)
    for line in admin.change_studies(admin.find_databases(database, runs), change, runs=runs):
        print(line)
    rows = [row for url in admin.find_databases(database, runs) for row in admin.list_studies(url)]
    commands.open_console().print(admin.studies_table(rows))


@app.command()
def front(
    study: StudyFile,
    overrides: Overrides = None,
    runs: Runs = Path("runs"),
    json: AsJson = False,
    confirmed: Annotated[bool, typer.Option("--confirmed", help="As confirmation left it: means, intervals.")] = False,
) -> None:
    """Show the study's Pareto front."""
    from search.analysis.front import front_json, front_table

    looked = commands.load_look(study, overrides, runs)
    if confirmed:
        commands.show_confirmed(looked, json)
    elif json:
        print(front_json(looked))
    else:
        commands.open_console().print(front_table(looked))


@app.command()
def confirm(
    study: StudyFile,
    data: DataRoot = None,
    overrides: Overrides = None,
    runs: Runs = Path("runs"),
    top: Annotated[int | None, typer.Option(min=1, help="So many of the front [all of it].")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of each fold, from seeds of their own.")] = 1,
    folds: Annotated[int | None, typer.Option(min=1, help="Folds, the study's own first [all].")] = None,
    executor: Kind = None,
    address: Address = None,
) -> None:
    """Train the front again over seeds and folds; the same command goes on where it was stopped."""
    plan = commands.load_plan(study, data, commands.with_executor(overrides, executor, address), runs)
    commands.confirm_front(plan, top, seeds, folds or len(plan.folds))


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN RUN", help="Folders of runs, as runs/acdc.")],
    out: Annotated[Path | None, typer.Option("--out", help="Write the picture as HTML.", show_default=False)] = None,
    json: AsJson = False,
) -> None:
    """Compare runs of the same objectives: fronts side by side, hypervolume over hours from one reference."""
    from search.analysis.runs import compare_json, compare_runs, compare_table, look_at_run

    reference, sides = compare_runs([look_at_run(run) for run in runs])
    if json:
        print(compare_json(reference, sides))
    else:
        commands.open_console().print(compare_table(reference, sides))
    if out is not None:
        from search.visualization.figures.runs import draw_sides, write_figures

        write_figures([draw_sides(sides)], out, title="voxnas compare")


@app.command()
def ablate(
    file: AblationFile,
    data: DataRoot = None,
    overrides: Overrides = None,
    runs: Runs = Path("runs"),
    executor: Kind = None,
    address: Address = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print arms, costs, expected time; run nothing.")] = False,
) -> None:
    """Run or resume an ablation, and write its tables, figures and methods paragraph."""
    from search.ablation.load import load_ablation
    from search.ablation.plan import make_ablation_plan

    overrides = commands.with_executor(overrides, executor, address)
    loaded = load_ablation(file, runs=runs, overrides=overrides, data_root=data)
    plan = make_ablation_plan(loaded, runs=runs)
    if dry_run:
        from search.ablation.preview import outlooks, print_outlook

        print_outlook(plan, outlooks(plan), commands.open_console())
    else:
        commands.run_arms(plan)


@app.command()
def dashboard(
    database: Annotated[str | None, typer.Argument(help="A URL or a file [all of the runs folder].")] = None,
    runs: Runs = Path("runs"),
    host: Annotated[str, typer.Option(help="Another than this machine's own needs a token.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8050,
    token: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--token", envvar="VOXNAS_TOKEN", help="What who looks must know.", show_default=False),
    ] = None,
) -> None:
    """Show studies in the browser, live: fronts, progress, what matters, each trial."""
    from search.dashboard.serve import serve

    serve(database, runs=runs, host=host, port=port, token=token)


@app.command()
def report(
    study: StudyFile,
    overrides: Overrides = None,
    runs: Runs = Path("runs"),
    slices: Annotated[bool, typer.Option("--slices", help="With slices of patients, masks drawn.")] = False,
) -> None:
    """Write the study's report.html: one file that needs no network."""
    from search.visualization.report import write_report

    path = write_report(commands.load_look(study, overrides, runs), slices=slices)
    print(f"{path} ({path.stat().st_size / 2**20:.1f} MiB)")


@app.command()
def export(
    study: StudyFile,
    out: Annotated[Path, typer.Option("--out", help="Folder to write the model to.")],
    pick: Annotated[
        str, typer.Option(help="knee, best, cheapest:dice>=0.85, under:memory=4GiB,latency=30ms, or a trial's number.")
    ] = "knee",
    retrain: Annotated[Retrain | None, typer.Option(help="Train it again on all cases.", show_default=False)] = None,
    ensemble: Annotated[
        Ensemble | None, typer.Option(help="Pack one of each fold; missing ones are trained.", show_default=False)
    ] = None,
    data: DataRoot = None,
    overrides: Overrides = None,
    runs: Runs = Path("runs"),
) -> None:
    """Write one network as a folder that runs without voxnas, and prove that it does."""
    from search.config.errors import UserError

    if retrain and ensemble:
        raise UserError(["export: --retrain full trains one network and --ensemble folds packs several; choose one"])
    plan = commands.load_plan(study, data, overrides, runs)
    commands.export_network(plan, pick, out, retrain or ensemble or "trial")


@app.command(name="import")
def import_(
    source: Annotated[Path, typer.Argument(help="An export's folder, or a checkpoint's file.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", help="The .safetensors file to write.")],
    preset: Annotated[str | None, typer.Option(help="The paper's network that it is of.", show_default=False)] = None,
) -> None:
    """Take over weights to start trainings from (`training.init`): an export's, or the authors' released ones."""
    from search.export.import_weights import import_weights

    print(import_weights(source, out, preset=preset))


@app.command()
def show(
    name: Annotated[str | None, typer.Argument(help="A paper's network, as unetrpp_acdc.", show_default=False)] = None,
    every: Annotated[bool, typer.Option("--all", help="All of them, one line each.")] = False,
) -> None:
    """Show the papers' networks: shapes, parameters, MACs, and where attention sits."""
    commands.show_networks(name, every)


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
) -> None:
    """Compare proposers on tables of known results, without training."""
    from search.simulate.call import Call, run_call

    call = Call(
        tables=only.split(",") if only else None,
        synthetic=synthetic,
        file=table,
        proposers=proposers.split(","),
        seeds=seeds,
        workers=workers,
        trainings=trainings,
        enough=enough,
        halving=halving,
        jobs=jobs,
    )
    run_call(call, console=commands.open_console(), figure=figure, as_json=json)


@app.command()
def demo(runs: Runs = Path("runs")) -> None:
    """Run a small study on made volumes, from phantom to exported model, in a few minutes."""
    from search.cli.demo import demo_study

    file, root = demo_study(runs)
    plan = commands.load_plan(file, root, None, runs)
    commands.run_trials(plan, plan.study.search.trials)
    front(file, None, runs, json=False)
    report(file, None, runs)
    commands.export_network(plan, "knee", plan.folder / "export", "trial")


def main() -> None:
    """Run a verb; a user's mistakes are printed one a line, with exit code 2 and no traceback."""
    try:
        app()
    except Exception as error:
        from search.config.errors import UserError  # not before: it takes longer than the rest of `--help`

        if not isinstance(error, UserError):
            raise
        for mistake in error.mistakes:
            print(f"voxnas: {mistake}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
