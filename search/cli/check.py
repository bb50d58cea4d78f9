"""`voxnas check`: a study's data, folds, space and training, as plain values and as tables."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from typing import Any

from rich.table import Table

from search.api.terminal import open_console, print_json
from search.cli.space_report import costs_table, sample_costs
from search.config import Study, UserError
from search.config.objectives import OBJECTIVES, show
from search.config.units import counted
from search.costs.cpu import cpu_name
from search.runner.gpus import choose_gpus, visible_gpus
from search.runner.learned_from import Learned, describe_sources, learned_from
from search.runner.plan import Plan, require_unchanged
from search.runner.references import require_buildable_references
from search.runner.sampling import refusals
from search.storage import read_records
from search.storage.begun import require_complete_retiming
from search.tracking.registry import explain_missing
from search.trials.records import COUNTED, Record, search_records

REFUSALS_SAMPLED = 1000
PRICED = 16
AXES_SHOWN = 12


def check_study(plan: Plan, *, costs: bool, json: bool) -> None:
    """Print data, training, space and what would run; with `costs`, also the costs of random networks."""
    require_unchanged(plan)
    require_buildable_references(plan)
    _require_comparable_latencies(plan)
    learned = learned_from(plan)
    infeasible = refusals(plan.space, sample=REFUSALS_SAMPLED, seed=0)
    spreads = sample_costs(plan, networks=PRICED, timed=0, device="cpu", threads=1) if costs else None
    if json:
        values = outline(plan, infeasible, learned)
        if spreads:
            values["costs"] = {name: spread.summary() for name, spread in spreads.items()}
        print_json(values)
        return
    console = open_console()
    for table in (_data_table(plan), _training_table(plan), _space_table(plan, infeasible)):
        console.print(table)
    for note in (*plan.notes, *machine_notes(plan.study)):
        console.print(f"note: {note}")
    if sources := describe_sources(plan, learned):
        console.print(sources, highlight=False, markup=False)
    console.print(_would_run(plan))
    if spreads:
        console.print(costs_table(spreads, budgets=plan.budgets))


def _require_comparable_latencies(plan: Plan) -> None:
    """Raise UserError if a run here would measure latencies that can't be compared with those of the study.

    It imports torch, which takes seconds, only where the processor or the threads are not those of the study, or where
    a GPU may be meant.
    """
    require_complete_retiming(plan.url, plan.study.name)
    records, named = records_of(plan), plan.study.executor
    settings = {(each.device, each.threads) for record in records if (each := record.measurement.latency)}
    on_cpu = named.device == "cpu" or (named.device == "auto" and not visible_gpus())
    threads = named.threads or len(os.sched_getaffinity(0))
    if named.kind != "local" or not settings or (on_cpu and (cpu_name(), threads) in settings):
        return
    from search.runner.pricer import local_device
    from search.runner.retime import require_same_setting

    require_same_setting(plan, records, partial(local_device, plan))


def outline(plan: Plan, infeasible: dict[str, int], learned: Sequence[Learned] = ()) -> dict[str, Any]:
    """Return the outline as plain values, in mm, voxels, bytes, seconds and counts."""
    facts, training, search = plan.facts, plan.training, plan.study.search
    done, interrupted = progress_of(plan)
    return {
        "study": plan.study.name,
        "notes": machine_notes(plan.study),
        "data": {
            "name": plan.dataset.name,
            "cases": len(facts.cases),
            "groups": len(set(facts.groups.values())),
            "channels": plan.dataset.channels,
            "voxels_per_class": dict(zip(plan.dataset.labelling.value_names, facts.voxels_per_class, strict=True)),
            "median_shape_xyz": facts.shape_median,
            "median_spacing_xyz_mm": facts.spacing_median,
            "network_spacing_dhw_mm": plan.context.spacing,
            "folds": len(plan.folds),
            "fold": plan.study.data.fold,
            "train": len(plan.fold.train),
            "validate": len(plan.fold.validation),
            "test": plan.held_out.names if plan.held_out else (),
            "notes": plan.notes,
        },
        "training": {
            "patch_dhw": plan.context.patch,
            "batch": training.batch,
            "epochs": training.epochs,
            "steps_per_epoch": training.steps_per_epoch,
            "recipe": training.recipe,
        },
        "objectives": plan.directions,
        "budgets": plan.budgets,
        "space": {
            "size": plan.space.size if plan.space.size < 2**53 else str(plan.space.size),
            "open_axes": [axis.name for axis in plan.space.axes if len(axis.choices) > 1],
            "infeasible": {why: count / REFUSALS_SAMPLED for why, count in infeasible.items() if why},
        },
        "search": {
            "proposer": search.proposer,
            "trials": search.trials,
            "hours": search.hours,
            "done": done,
            "interrupted": interrupted,
            "learns_from": [
                {
                    "name": each.pinned.name,
                    "place": each.pinned.place,
                    "trainings": each.pinned.trainings,
                    "digest": each.pinned.digest,
                    "axes": each.axes,
                    "weight": each.weight,
                }
                for each in learned
            ],
        },
    }


def machine_notes(study: Study) -> tuple[str, ...]:
    """Return what the study asks for and this machine lacks: packages of trackers, GPUs."""
    found = [explain_missing(study.track)] if study.track else []
    if study.executor.gpus is not None:
        try:
            choose_gpus(study.executor.gpus, visible_gpus())
        except UserError as error:
            found.append(str(error))
    return tuple(note for note in found if note)


def records_of(plan: Plan) -> list[Record]:
    """Return the study's trials; none if nothing has run yet."""
    try:
        return read_records(plan.url, plan.study.name)
    except UserError:
        return []


def progress_of(plan: Plan) -> tuple[int, int]:
    """Count the trials that are done, and those that were interrupted."""
    records = records_of(plan)
    own = search_records(records, seed=plan.study.search.seed, fold=plan.study.data.fold)
    own += [record for record in records if record.repeat]
    done = sum(record.state in COUNTED for record in own)
    return done, sum(record.state == "running" for record in own)


def _grid(title: str) -> Table:
    table = Table(title=title, title_justify="left", show_header=False, box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    return table


def _triple(values: tuple[float, ...]) -> str:
    return " x ".join(f"{value:g}" for value in values)


def _data_table(plan: Plan) -> Table:
    facts, fold, counts = plan.facts, plan.fold, plan.facts.voxels_per_class
    cases, groups = len(facts.cases), len(set(facts.groups.values()))
    table = _grid(f"Data: {plan.dataset.name}")
    table.add_row("cases", f"{cases} in {counted(groups, 'group')}" if groups < cases else str(cases))
    table.add_row("channels", ", ".join(plan.dataset.channels))
    shares = [
        f"{name} {count / sum(counts):.2%}"
        for name, count in zip(plan.dataset.labelling.value_names, counts, strict=True)
    ]
    table.add_row("classes", ", ".join(shares))
    table.add_row(
        "median volume", f"{_triple(facts.shape_median)} voxels (x, y, z), {_triple(facts.spacing_median)} mm"
    )
    table.add_row("network grid", f"{_triple(plan.context.spacing)} mm (D, H, W)")
    table.add_row(
        "folds",
        f"{len(plan.folds)}; this study uses fold {plan.study.data.fold} (numbered from 0): "
        f"{len(fold.train)} to train, {len(fold.validation)} to validate",
    )
    if plan.held_out:
        kept = counted(len(plan.held_out.names), "further case")
        table.add_row("test", f"{kept}, which no search sees; `voxnas test` scores them once")
    return table


def _training_table(plan: Plan) -> Table:
    training = plan.training
    table = _grid("Each training")
    table.add_row("patch", f"{_triple(plan.context.patch)} voxels (D, H, W), batch {training.batch}")
    table.add_row("steps", f"{counted(training.epochs, 'epoch')} of {training.steps_per_epoch}")
    table.add_row("recipe", training.recipe)
    table.add_row(
        "optimiser", f"{training.optimiser}, learning rate {training.learning_rate:g}, {training.schedule} schedule"
    )
    for name, direction in plan.directions.items():
        budget = f", at most {show(name, plan.budgets[name])}" if name in plan.budgets else ""
        table.add_row(f"{direction}", f"{OBJECTIVES[name].heading}{budget}")
    for name in plan.budgets:
        if name not in plan.directions:
            table.add_row("limit", f"{OBJECTIVES[name].heading}, at most {show(name, plan.budgets[name])}")
    return table


def _space_table(plan: Plan, infeasible: dict[str, int]) -> Table:
    table = _grid("Space")
    size = plan.space.size
    table.add_row("choices", f"{size:,}" if size < 10**12 else f"{size:.2e}")
    names = [axis.name for axis in plan.space.axes if len(axis.choices) > 1]
    more = f" and {len(names) - AXES_SHOWN} more" if len(names) > AXES_SHOWN else ""
    table.add_row("open axes", ", ".join(names[:AXES_SHOWN]) + more)
    for reason, count in infeasible.items():
        share = f"{count / REFUSALS_SAMPLED:.1%}"
        table.add_row("infeasible" if reason else "can be built", f"{share}, e.g. {reason}" if reason else share)
    return table


def _would_run(plan: Plan) -> str:
    search = plan.study.search
    done, interrupted = progress_of(plan)
    resumed = f", {interrupted} interrupted and resumed first" if interrupted else ""
    left = max(0, search.trials - done)
    hours = f", for at most {counted(search.hours, 'hour')}" if search.hours else ""
    trials = counted(search.trials, "trial")
    return f"Would run: {left} of {trials} ({done} done{resumed}){hours}, proposer {search.proposer}."
