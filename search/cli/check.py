"""What a study would do, as tables: data, folds, space, training; and the prices of random networks."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from search.config import UserError
from search.config.objectives import OBJECTIVES, show
from search.runner.plan import Plan, refusals
from search.storage import read_records
from search.trials.records import COUNTED

REFUSALS_SAMPLED = 1000
PRICED = 16


def print_plan(plan: Plan, console: Console) -> None:
    """Print data, training and space, and how much of the space can't be built."""
    for table in (_data_table(plan), _training_table(plan), _space_table(plan)):
        console.print(table)
    for note in plan.facts.notes:
        console.print(f"note: {note}", highlight=False)
    console.print(_what_would_run(plan), highlight=False)


def _grid(title: str) -> Table:
    table = Table(title=title, title_justify="left", show_header=False, box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    return table


def _triple(values: tuple[float, ...]) -> str:
    return " x ".join(f"{value:g}" for value in values)


def _data_table(plan: Plan) -> Table:
    facts, fold, counts = plan.facts, plan.fold, plan.facts.voxels_per_class
    groups = len(set(facts.groups.values()))
    table = _grid(f"Data: {plan.dataset.name}")
    table.add_row(
        "cases",
        f"{len(facts.cases)} in {groups} groups" if groups < len(facts.cases) else str(len(facts.cases)),
    )
    table.add_row("channels", ", ".join(plan.dataset.channels))
    shares = [f"{name} {count / sum(counts):.2%}" for name, count in zip(plan.dataset.labels, counts, strict=True)]
    table.add_row("classes", ", ".join(shares))
    table.add_row(
        "median volume", f"{_triple(facts.shape_median)} voxels (x, y, z), {_triple(facts.spacing_median)} mm"
    )
    table.add_row("network grid", f"{_triple(plan.context.spacing)} mm (D, H, W)")
    table.add_row(
        "folds",
        f"{len(plan.folds)}; fold {plan.study.data.fold}: {len(fold.train)} to train, "
        f"{len(fold.validation)} to validate",
    )
    return table


def _training_table(plan: Plan) -> Table:
    training = plan.training
    table = _grid("Each training")
    table.add_row("patch", f"{_triple(plan.context.patch)} voxels (D, H, W), batch {training.batch}")
    table.add_row("steps", f"{training.epochs} epochs of {training.steps_per_epoch}")
    table.add_row("recipe", training.recipe)
    table.add_row("optimiser", f"{training.optimiser}, rate {training.learning_rate:g}, {training.schedule}")
    for name, direction in plan.directions.items():
        budget = f", at most {show(name, plan.budgets[name])}" if name in plan.budgets else ""
        table.add_row(f"{direction}", f"{OBJECTIVES[name].heading}{budget}")
    for name in plan.budgets:
        if name not in plan.directions:
            table.add_row("limit", f"{OBJECTIVES[name].heading}, at most {show(name, plan.budgets[name])}")
    return table


def _space_table(plan: Plan) -> Table:
    table = _grid("Space")
    size = plan.space.size
    table.add_row("choices", f"{size:,}" if size < 10**12 else f"{size:.2e}")
    open_axes = [axis for axis in plan.space.axes if len(axis.choices) > 1]
    table.add_row(
        "open axes",
        ", ".join(axis.name for axis in open_axes[:12])
        + (f" and {len(open_axes) - 12} more" if len(open_axes) > 12 else ""),
    )
    for reason, count in refusals(plan.space, sample=REFUSALS_SAMPLED, seed=0).items():
        label = "can be built" if not reason else "refused"
        table.add_row(label, f"{count / REFUSALS_SAMPLED:.1%}" + (f", as: {reason}" if reason else ""))
    return table


def _what_would_run(plan: Plan) -> str:
    search = plan.study.search
    try:
        records = read_records(plan.url, plan.study.name)
    except UserError:
        records = []
    done = sum(record.state in COUNTED for record in records)
    running = sum(record.state == "running" for record in records)
    interrupted = f", {running} interrupted to go on" if running else ""
    left = max(0, search.trials - done)
    hours = f", for {search.hours:g} hours at most" if search.hours else ""
    return f"Would run: {left} of {search.trials} trials ({done} done{interrupted}){hours}, proposer {search.proposer}."


def print_costs(plan: Plan, console: Console) -> None:
    """Build and price random networks of the space, and print the spread of each cost that needs no device."""
    from search.cli.space_report import costs_table, sample_costs

    spreads = sample_costs(plan, networks=PRICED, timed=0, device="cpu", threads=1)
    console.print(costs_table(spreads, budgets=plan.budgets))
