"""What the verbs of the command line do; imports are inside the functions, so that looking is quick."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from rich.console import Console

    from search.ablation.plan import AblationPlan
    from search.analysis.front import Look
    from search.runner.driver import Executor
    from search.runner.plan import Plan


def open_console() -> Console:
    """Return the console that verbs print to: as wide as the terminal, or wide enough for a table."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 160)


def load_plan(study: Path, data: Path | None, overrides: list[str] | None, runs: Path) -> Plan:
    """Load a study with its data. Raises UserError."""
    from search.config import load_study
    from search.runner.plan import make_plan

    return make_plan(load_study(study, overrides=overrides or (), data_root=data), runs=runs)


def load_look(study: Path, overrides: list[str] | None, runs: Path) -> Look:
    """Load what a study left. Raises UserError."""
    from search.analysis.front import look
    from search.config import load_study

    return look(load_study(study, overrides=overrides or (), need_data=False), runs=runs)


def with_executor(overrides: list[str] | None, kind: str | None, address: str | None) -> list[str]:
    """Say what the options of an executor say as overrides of the study's file."""
    named = {"executor.kind": kind, "executor.address": address}
    return [*(overrides or ()), *(f"{key}={value}" for key, value in named.items() if value is not None)]


def run_options(data: Path | None, overrides: list[str] | None, trials: int | None) -> list[str]:
    """Write options of `voxnas run` as they are written on its command line."""
    named = {"--data": data, "--trials": trials}
    given = [part for name, value in named.items() if value is not None for part in (name, str(value))]
    return [*given, *(part for override in overrides or () for part in ("--set", override))]


def submit_study(study: Path, address: str, runs: Path, options: list[str], follow: bool) -> None:
    """Send a study to a cluster, and follow it if asked."""
    from search.config import UserError, load_study
    from search.runner.cluster import submit as sending

    overrides = [value for option, value in zip(options[:-1], options[1:], strict=True) if option == "--set"]
    loaded = load_study(study, overrides=overrides, need_data=False)
    sent = sending.submit(loaded, address=address, runs=runs, options=options)
    print(f"{loaded.study.name} runs as {sent.job}; `ray job logs --address {address} {sent.job}` shows what it prints")
    if follow:
        ended = sending.follow(sent)
        if ended != "SUCCEEDED":
            raise UserError([f"submit: {sent.job} ended as {ended}"])


def show_status(study: Path, overrides: list[str] | None, runs: Path, json: bool, watch: bool) -> None:
    """Print how a study stands, once or until it ends."""
    from search.analysis.status import status_json, status_view, study_status
    from search.config import load_study

    loaded = load_study(study, overrides=overrides or (), need_data=False)
    if json:
        print(status_json(study_status(loaded, runs=runs)))
    elif not watch:
        open_console().print(status_view(study_status(loaded, runs=runs)))
    else:
        import time

        from rich.live import Live

        with Live(console=open_console(), auto_refresh=False) as live:
            while True:
                now = study_status(loaded, runs=runs)
                live.update(status_view(now), refresh=True)
                if now.is_over:
                    break
                time.sleep(2)


def make_executor(plan: Plan) -> Executor:
    """Return the executor that a study's file names."""
    if plan.study.executor.kind == "ray":
        from search.runner.cluster.executor import RayExecutor

        return RayExecutor(plan, address=plan.study.executor.address)
    from search.runner.local import LocalExecutor

    return LocalExecutor(plan)


def run_trials(plan: Plan, trials: int) -> None:
    """Run or resume a study under the live view."""
    from search.cli.progress import RunView
    from search.runner.driver import run_study

    console = open_console()
    with stoppable(console), RunView(console, name=plan.study.name, trials=trials) as view:
        outcome = run_study(plan, trials=trials, view=view, executor=make_executor(plan))
    states = [record.state for record in outcome.records]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    console.print(f"{outcome.why} ({counts})", highlight=False)


@contextmanager
def stoppable(console: Console) -> Iterator[None]:
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
        raise SystemExit(130) from None


def confirm_front(plan: Plan, top: int | None, seeds: int, folds: int) -> None:
    """Train the front again under the live view."""
    from search.analysis.front import look
    from search.cli.progress import RunView
    from search.runner.confirm import confirm_study

    console = open_console()
    with stoppable(console), RunView(console, name=f"confirm {plan.study.name}", trials=0) as view:
        done = confirm_study(plan, top=top, seeds=seeds, folds=folds, view=view, executor=make_executor(plan))
    console.print(f"{done} trainings done", highlight=False)
    show_confirmed(look(plan.loaded, runs=plan.runs), json=False)


def show_confirmed(looked: Look, json: bool) -> None:
    """Print the front as confirmation left it."""
    from search.analysis.confirmation import confirmed_json, confirmed_table
    from search.analysis.front import confirmed

    points = confirmed(looked)
    if json:
        print(confirmed_json(looked.study.name, points))
    else:
        open_console().print(confirmed_table(looked.study.name, points, looked.study.directions))


def run_arms(plan: AblationPlan) -> None:
    """Run or resume an ablation under the live view, and print what it found."""
    from search.ablation.run import missing_count, run_ablation
    from search.cli.progress import RunView

    console, name = open_console(), plan.loaded.ablation.name
    with stoppable(console), RunView(console, name=name, trials=missing_count(plan)) as view:
        run_ablation(plan, view=view, make_executor=make_executor)
    show_findings(plan)


def show_findings(plan: AblationPlan) -> None:
    """Print an ablation's tables and write its files."""
    from search.ablation.findings import find
    from search.ablation.report import write_findings
    from search.ablation.run import ablation_device
    from search.ablation.tables import to_rich

    console, found = open_console(), find(plan, ablation_device(plan))
    for table in found.tables:
        console.print(to_rich(table))
    console.print(found.methods, highlight=False)
    for path in write_findings(plan, found):
        print(path)


def survey_space(plan: Plan, sample: int, timed: int, json: bool) -> None:
    """Print a space from above, and what random networks of it cost."""
    from search.cli.space_report import axes_table, costs_table, refused_shares, sample_costs, size_lines, survey_json
    from search.runner.devices import resolve_device, resolve_threads

    executor, refused = plan.study.executor, refused_shares(plan)
    device, threads = resolve_device(executor.device), resolve_threads(executor.threads)
    if not json:
        open_console().print(axes_table(plan.space))
        print("\n".join(size_lines(plan, refused)))
    spreads = sample_costs(plan, networks=sample, timed=timed, device=device, threads=threads)
    if json:
        print(survey_json(plan, refused, spreads))
    else:
        open_console().print(costs_table(spreads, budgets=plan.budgets))


def export_network(plan: Plan, pick: str, out: Path, packing: Literal["trial", "full", "folds"]) -> None:
    """Write one network as a folder, and say why this one."""
    from search.cli.progress import RunView
    from search.export import export as export_model

    console = open_console()
    with stoppable(console), RunView(console, name=f"export {plan.study.name}", trials=0) as view:
        exported = export_model(plan, pick, out, packing=packing, view=view)
    console.print(str(exported), highlight=False, soft_wrap=True)


def show_networks(name: str | None, every: bool) -> None:
    """Print the papers' networks, or one of them level by level."""
    from search.config.errors import UserError

    if every == (name is not None):
        raise UserError(["show: name one network, or give --all alone"])
    from search.cli.networks import find_preset, layer_table, summaries, summary_table
    from search.costs.layers import layers

    if name is None:
        open_console().print(summary_table(summaries()))
    else:
        preset = find_preset(name)
        open_console().print(layer_table(preset, layers(preset.architecture, preset.context)))
