"""Trainings from the command line: plans, the executor, the live view, and how Ctrl-C ends them."""

from __future__ import annotations

import shlex
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from search.cli.progress import RunView
from search.cli.terminal import open_console, say

if TYPE_CHECKING:
    from rich.console import Console

    from search.ablation.plan import AblationPlan
    from search.analysis.front import Look
    from search.export.trained import Packing
    from search.runner.driver import Executor
    from search.runner.plan import Plan


def load_plan(study: Path, data: Path | None, overrides: Sequence[str] | None, runs: Path) -> Plan:
    """Load a study with its data. Raises UserError."""
    from search.config import load_study
    from search.runner.plan import make_plan

    return make_plan(load_study(study, overrides=overrides or (), data_root=data), runs=runs)


def load_look(study: str, overrides: Sequence[str] | None, runs: Path) -> Look:
    """Load the records of a study, named by its file, its folder or its name. Raises UserError."""
    from search.analysis.front import look_at
    from search.cli.find import find_study

    found = find_study(study, overrides=overrides or (), runs=runs)
    return look_at(found.study, found.folder)


def load_arms(file: Path, data: Path | None, overrides: Sequence[str] | None, runs: Path) -> AblationPlan:
    """Load an ablation with its data. Raises UserError."""
    from search.ablation.load import load_ablation
    from search.ablation.plan import make_ablation_plan

    return make_ablation_plan(load_ablation(file, runs=runs, overrides=overrides or (), data_root=data), runs=runs)


def make_executor(plan: Plan) -> Executor:
    """Return the executor that a study's file names."""
    if plan.study.executor.kind == "ray":
        from search.runner.cluster.executor import RayExecutor

        return RayExecutor(plan, address=plan.study.executor.address)
    from search.runner.local import LocalExecutor

    return LocalExecutor(plan)


@contextmanager
def stoppable(console: Console) -> Iterator[None]:
    """Let Ctrl-C and SIGTERM stop the work inside, and print the command that resumes it."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except KeyboardInterrupt:
        command = shlex.join(["voxnas", *sys.argv[1:]])
        console.print(f"Stopped. To resume, run: {command}", soft_wrap=True)
        raise SystemExit(130) from None


def run_trials(plan: Plan, trials: int) -> None:
    """Run or resume a study under the live view."""
    from search.runner.driver import run_study

    console = open_console()
    with stoppable(console), RunView(console, name=plan.study.name, trials=trials) as view:
        outcome = run_study(plan, trials=trials, view=view, executor=make_executor(plan))
    states = [record.state for record in outcome.records]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    console.print(f"{outcome.why} ({counts})")


def confirm_front(plan: Plan, top: int | None, seeds: int, folds: int, *, json: bool) -> None:
    """Retrain the front under the live view, and show what came of it."""
    from search.analysis.front import look
    from search.cli.fronts import show_confirmed
    from search.config.units import counted
    from search.runner.confirm import confirm_study

    console = open_console(to_stderr=json)
    with stoppable(console), RunView(console, name=f"confirm {plan.study.name}", trials=0) as view:
        done = confirm_study(plan, top=top, seeds=seeds, folds=folds, view=view, executor=make_executor(plan))
    console.print(f"{counted(done, 'training')} done")
    show_confirmed(look(plan.loaded, runs=plan.runs), json=json)


def export_network(plan: Plan, pick: str, out: Path, packing: Packing) -> None:
    """Write one network as a folder, and print the reason for this choice."""
    from search.export import export

    console = open_console()
    with stoppable(console), RunView(console, name=f"export {plan.study.name}", trials=0) as view:
        exported = export(plan, pick, out, packing=packing, view=view)
    console.print(str(exported), soft_wrap=True)


def submit_study(study: Path, address: str, runs: Path, options: list[str], follow: bool) -> None:
    """Submit a study to a cluster, and follow the job if asked."""
    from search.config import UserError, load_study
    from search.runner.cluster import submit as sending

    overrides = [value for option, value in zip(options[:-1], options[1:], strict=True) if option == "--set"]
    loaded = load_study(study, overrides=overrides, need_data=False)
    sent = sending.submit(loaded, address=address, runs=runs, options=options)
    say(f"{loaded.study.name} runs as {sent.job}. To see its output: ray job logs --address {address} {sent.job}")
    if follow:
        ended = sending.follow(sent)
        if ended != "SUCCEEDED":
            raise UserError([f"submit: job {sent.job} ended as {ended}"])
