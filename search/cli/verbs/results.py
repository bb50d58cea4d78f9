"""Verbs that read results: front, trials, comparison, dashboard, report, the list of studies."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from search.cli.options import AsJson, Overrides, Runs, StudyOrName, complete_study
from search.cli.verbs.register import RESULTS, verb

app = typer.Typer()
Database = Annotated[
    str | None,
    typer.Argument(
        metavar="DATABASE", help="URL of a database, or an SQLite file.", show_default="every study of the runs folder"
    ),
]
CsvFile = Annotated[
    Path | None,
    typer.Option(
        "--csv",
        metavar="FILE",
        help="Also write the table as CSV, with a column per open axis; units are in the column names.",
        show_default=False,
    ),
]


@verb(app, RESULTS, example="voxnas front acdc --json")
def front(
    study: StudyOrName,
    overrides: Overrides = None,
    runs: Runs = Path("runs"),
    confirmed: Annotated[
        bool, typer.Option("--confirmed", help="Show the confirmed front: means, intervals, significance.")
    ] = False,
    csv: CsvFile = None,
    json: AsJson = False,
) -> None:
    """Show a study's Pareto front."""
    from search.cli.fronts import show_confirmed, show_front
    from search.cli.running import load_results

    found = load_results(study, overrides, runs)
    if confirmed:
        show_confirmed(found, json=json)
    else:
        show_front(found, json=json, csv=csv)


@verb(app, RESULTS, example="voxnas trials acdc --csv trials.csv")
def trials(
    study: StudyOrName,
    overrides: Overrides = None,
    runs: Runs = Path("runs"),
    csv: CsvFile = None,
    json: AsJson = False,
) -> None:
    """List all trials of a study with their state, objectives, network, and reason if they failed."""
    from search.cli.fronts import show_trials
    from search.cli.running import load_results

    show_trials(load_results(study, overrides, runs), json=json, csv=csv)


@verb(app, RESULTS, example="voxnas compare acdc acdc-random --out both.html")
def compare(
    studies: Annotated[
        list[str],
        typer.Argument(
            metavar="STUDY STUDY...",
            help="Folders of runs such as runs/acdc, or names of studies in the runs folder.",
            show_default=False,
            autocompletion=complete_study,
        ),
    ],
    runs: Runs = Path("runs"),
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="Also write table and figures as an HTML file.", show_default=False),
    ] = None,
    json: AsJson = False,
) -> None:
    """Compare runs with the same objectives: their fronts, and hypervolume over hours from one reference point."""
    from search.analysis.runs import compare_json, compare_runs, compare_table, compared_rows
    from search.api.terminal import open_console, print_text
    from search.cli.running import load_results

    reference, compared = compare_runs([load_results(each, None, runs).snapshot() for each in studies])
    if json:
        print_text(compare_json(reference, compared))
    else:
        open_console().print(compare_table(reference, compared))
    if out is not None:
        from search.visualization.components import Figures, Table
        from search.visualization.figures.runs import draw_runs
        from search.visualization.figures.style import sentence
        from search.visualization.html import write_components

        title, headings, rows = compared_rows(reference, compared)
        table = Table("runs", sentence(title), headings, rows)
        named = " and ".join(run.snapshot.study.name for run in compared)
        write_components([table, Figures(tuple(draw_runs(compared)))], out, title=f"{named} compared")


@verb(app, RESULTS, example="voxnas dashboard")
def dashboard(
    database: Database = None,
    runs: Runs = Path("runs"),
    host: Annotated[
        str, typer.Option(help="Address to listen on; one that other machines can reach needs --token.")
    ] = ("127.0.0.1"),
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 picks a free one.")] = 8050,
    token: Annotated[
        str | None,
        typer.Option("--token", envvar="VOXNAS_TOKEN", help="Token that browsers must send.", show_default=False),
    ] = None,
    prefix: Annotated[
        str,
        typer.Option(metavar="/PATH", help="Path below which a proxy shows the dashboard.", show_default=False),
    ] = "",
    trusted_proxy: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="IP address of a proxy with TLS in front, whose X-Forwarded-Proto is believed.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Show studies live in the browser: fronts, progress, importance of axes, every trial."""
    from search.dashboard.serve import serve

    serve(database, runs=runs, host=host, port=port, token=token, prefix=prefix, proxy=trusted_proxy)


@verb(app, RESULTS, example="voxnas report acdc --slices")
def report(
    study: StudyOrName,
    overrides: Overrides = None,
    runs: Runs = Path("runs"),
    slices: Annotated[
        bool, typer.Option("--slices", help="Include patients' slices with their segmentations.")
    ] = False,
) -> None:
    """Write report.html, the dashboard's figures and tables in one offline file."""
    from search.cli.fronts import write_study_report
    from search.cli.running import load_results

    write_study_report(load_results(study, overrides, runs), slices=slices)


@verb(app, RESULTS, example="voxnas studies --free acdc")
def studies(
    database: Database = None,
    rename: Annotated[
        tuple[str, str] | None,
        typer.Option("--rename", metavar="NAME NEW", help="Rename a study and its folder.", show_default=False),
    ] = None,
    copy: Annotated[
        tuple[str, str] | None,
        typer.Option("--copy", metavar="NAME DATABASE", help="Copy its records to a database.", show_default=False),
    ] = None,
    delete: Annotated[
        str | None,
        typer.Option("--delete", metavar="NAME", help="Delete its records and its folder.", show_default=False),
    ] = None,
    free: Annotated[
        str | None,
        typer.Option("--free", metavar="NAME", help="Delete files that are no longer needed.", show_default=False),
    ] = None,
    discard: Annotated[
        tuple[str, int] | None,
        typer.Option("--discard", metavar="NAME NUMBER", help="Leave a damaged trial out.", show_default=False),
    ] = None,
    upgrade: Annotated[bool, typer.Option("--upgrade", help="Migrate an older database.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Delete without confirmation.")] = False,
    runs: Runs = Path("runs"),
    json: AsJson = False,
) -> None:
    """List studies, or rename, copy, delete, repair or clean up one."""
    from search.cli.studies import manage_studies
    from search.storage.admin import Change

    if delete and not yes:
        typer.confirm(f"Delete study {delete}, its records and its folder?", abort=True)
    manage_studies(database, Change(rename, copy, delete, free, discard, upgrade), runs=runs, json=json)
