"""Trainings from the command line: live progress, and stopping with Ctrl-C."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from search.api.progress import RunView
from search.api.terminal import PlainConsole, open_console, print_json, print_text
from search.cli.stopping import stoppable

if TYPE_CHECKING:
    from search.ablation.plan import AblationPlan
    from search.api.study import Study
    from search.export.trained import Packing
    from search.runner.plan import Plan
    from search.trials.records import Record


def load_study(
    study: Path, data: Path | None, overrides: Sequence[str] | None, runs: Path, *, allow_code: bool = False
) -> Study:
    """Load a study, whose data must exist. Raises UserError."""
    from search.api.study import Study

    return Study.from_yaml(
        study, overrides=overrides or (), data=data, runs=runs, need_data=True, allow_code=allow_code
    )


def load_to_use(
    study: str, data: Path | None, overrides: Sequence[str] | None, runs: Path, *, allow_code: bool = False
) -> Study:
    """Load a study that has run and whose data must exist, by its file or by its name. Raises UserError."""
    from search.api.find import find_study
    from search.api.study import Study

    if Path(study).is_file():
        return load_study(Path(study), data, overrides, runs, allow_code=allow_code)
    loaded, found = find_study(study, overrides=overrides or (), data=data, runs=runs, allow_code=allow_code)
    return Study(loaded, runs=found)


def load_results(study: str, overrides: Sequence[str] | None, runs: Path) -> Study:
    """Load a study's results, named by its file, its folder or its name. Raises UserError."""
    from search.api.find import find_study
    from search.api.study import Study

    loaded, found = find_study(study, overrides=overrides or (), runs=runs)
    return Study(loaded, runs=found)


def load_plan(
    study: Path,
    data: Path | None,
    overrides: Sequence[str] | None,
    runs: Path,
    *,
    allow_code: bool = False,
    quiet: bool = False,
) -> Plan:
    """Load a study and check its data, with progress on standard error unless `quiet`. Raises UserError."""
    loaded = load_study(study, data, overrides, runs, allow_code=allow_code)
    with following(loaded.name, quiet=quiet, to_stderr=True) as view:
        return loaded.make_plan(view)


def load_arms(
    file: Path,
    data: Path | None,
    overrides: Sequence[str] | None,
    runs: Path,
    *,
    allow_code: bool = False,
    quiet: bool = False,
    to_stderr: bool = False,
) -> AblationPlan:
    """Load an ablation and check its data, with progress. Raises UserError."""
    from search.ablation.load import load_ablation
    from search.ablation.plan import make_ablation_plan

    loaded = load_ablation(file, runs=runs, overrides=overrides or (), data_root=data, allow_code=allow_code)
    with following(loaded.ablation.name, quiet=quiet, to_stderr=to_stderr) as view:
        return make_ablation_plan(loaded, runs=runs, progress=partial(view.on_stage, "checking volumes"))


@contextmanager
def following(
    name: str,
    *,
    trials: int = 0,
    counts: Callable[[Record], bool] = lambda record: True,
    quiet: bool = False,
    to_stderr: bool = False,
) -> Iterator[RunView]:
    """Show progress within the context, unless `quiet`; on standard error with `to_stderr`."""
    console = open_console(to_stderr=to_stderr)
    shown = PlainConsole(quiet=True) if quiet else console
    with stoppable(console), RunView(shown, name=name, trials=trials, counts=counts) as view:
        yield view


def run_trials(study: Study, trials: int | None, *, retime: bool = False, quiet: bool = False) -> None:
    """Run or resume a study with live progress. Raises RunError if all trials failed."""
    from search.analysis.status import repeats_among
    from search.config.errors import RunError
    from search.config.units import counted

    planned = trials or study.settings.search.trials
    with following(study.name, trials=planned, counts=study.is_searched, quiet=quiet) as view:
        outcome = study.run(trials=planned, retime=retime, view=view)
    states = [record.state for record in outcome.records if study.is_searched(record)]
    counts = [f"{states.count(state)} {state}" for state in dict.fromkeys(states)]
    repeats = sum(record.repeat for record in outcome.records)
    if repeats:
        counts.append(repeats_among(repeats))
    others = [record for record in outcome.records if not study.is_searched(record)]
    references = sum(record.is_outside for record in others)
    if references:
        counts.append(counted(references, "reference network"))
    if len(others) > references:
        counts.append(f"{len(others) - references} more that confirm the front")
    print_text(f"{outcome.why} ({', '.join(counts)})")
    if outcome.learned:
        print_text(outcome.learned)
    if "failed" in states and not {"trained", "stopped"} & set(states):
        raise RunError([f"no trial was trained; `voxnas status {study.name} --runs {study.runs}` shows the reasons"])


def extend_front(study: Study, more: int, *, quiet: bool = False) -> Study:
    """Train the networks on and near a study's front longer, with live progress; return the study that holds them."""
    from search.runner.extend import longer_name, why_from_start

    name = longer_name(study.settings, more)
    with following(name, quiet=quiet) as view:
        if not quiet:
            why = why_from_start(study.settings)
            view.console.print(f"{why}." if why else "The networks continue from their checkpoints.", soft_wrap=True)
        longer, outcome = study.extend(more, view=view)
    print_text(f"{outcome.why}, in study {name}")
    return longer


def print_next_commands(study: Study) -> None:
    """Print the commands that show and use a study's results; nothing if no trial was trained."""
    if not any(record.state == "trained" for record in study.snapshot().records()):
        return
    name, runs = study.name, ["--runs", str(study.runs)]
    code = ["--allow-code"] if study.settings.blocks else []
    export = ["export", name, *_data_option(study), *runs, *code]  # by name: with the overrides of the run
    print_text("Next:")
    for words in (
        ["front", name, *runs],
        ["dashboard", *runs],
        ["report", name, *runs],
        [*export, "--pick", "knee", "--out", f"{name}-model"],
    ):
        print_text(f"  {shlex.join(['voxnas', *words])}")


def _data_option(study: Study) -> list[str]:
    """Return `--data` with the folder in which `data.path` was found; nothing for an absolute path."""
    found, named = study.loaded.data_folder, Path(study.settings.data.path)
    if found is None or named.is_absolute():
        return []
    return ["--data", str([found, *found.parents][len(named.parts)])]


def confirm_front(study: Study, top: int | None, seeds: int, folds: int | None, *, quiet: bool, json: bool) -> None:
    """Retrain the front with live progress, and show the confirmed front."""
    from search.cli.fronts import show_confirmed
    from search.config.units import counted

    with following(f"confirm {study.name}", quiet=quiet, to_stderr=json) as view:
        done = study.confirm(top=top, seeds=seeds, folds=folds, view=view)
    open_console(to_stderr=json).print(f"{counted(done, 'training')} done")
    show_confirmed(study, json=json)


def export_network(
    study: Study, pick: str, out: Path, packing: Packing, *, contact: str = "", force: bool = False, quiet: bool = False
) -> None:
    """Write one network as a folder, and print the reason for this choice."""
    with following(f"export {study.name}", quiet=quiet) as view:
        exported = study.export(pick, out, packing=packing, contact=contact, force=force, view=view)
    print_text(exported)


def score_network(study: Study, pick: str, *, again: bool, quiet: bool, json: bool) -> None:
    """Score one network on the test cases, and print the scores."""
    from rich.table import Table

    from search.analysis.class_dice import HEADINGS, dice_by_class

    with following(f"test {study.name}", quiet=quiet, to_stderr=json) as view:
        result = study.test(pick, again=again, view=view)
    if json:
        values = {"validation_dice": result.validation_dice, "uses": result.uses, "fresh": result.fresh}
        print_json({**result.score.to_values(), **values})
        return
    print_text(result)
    table = Table(*HEADINGS)
    for row in dice_by_class(result.score.cases, result.classes):
        table.add_row(*row.cells)
    open_console().print(table)


def submit_study(study: Path, address: str, runs: Path, options: list[str], follow: bool) -> None:
    """Submit a study to a cluster; with `follow`, print the job's output until it ends."""
    from search.config import load_study as load
    from search.config.errors import RunError
    from search.runner.cluster import submit as sending

    overrides = [value for option, value in zip(options[:-1], options[1:], strict=True) if option == "--set"]
    loaded = load(study, overrides=overrides, need_data=False)
    sent = sending.submit(loaded, address=address, runs=runs, options=options)
    print_text(
        f"{loaded.study.name} runs as {sent.job}. To see its output: ray job logs --address {address} {sent.job}"
    )
    if follow:
        ended = sending.follow(sent)
        if ended != "SUCCEEDED":
            raise RunError([f"submit: job {sent.job} ended as {ended}"])
