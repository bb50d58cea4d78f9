"""`voxnas space`: axes and conditions, size, infeasible share, and the costs of random networks."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from random import Random
from typing import Any

import numpy as np
from rich.table import Table

from search.api.terminal import open_console, print_json, print_text
from search.cli.tables import counting
from search.config.objectives import COSTS, OBJECTIVES, show
from search.config.units import counted, show_count, show_seconds
from search.runner.plan import Plan
from search.runner.sampling import refusals, sample_buildable
from space.axes import Axis
from space.canonical import Decisions
from space.encoding import Coded
from space.place import AxisName, Place, attention_at
from space.space import Space

REFUSALS_SAMPLED = 1000
SHOWN_CHOICES = 8
MODELLED = 8  # minimum number of networks for a meaningful error of the cost model


@dataclass(frozen=True)
class Spread:
    """A cost over the sampled networks, and the seconds per network that computing it took.

    The predicted costs are computed together, so their seconds are the same. `model_error` is the proposer's cost
    model's median relative error, leaving one network out at a time.
    """

    values: tuple[float, ...]
    seconds_each: float
    model_error: float

    def summary(self) -> dict[str, float]:
        """Return minimum, median and maximum."""
        return {"min": min(self.values), "median": statistics.median(self.values), "max": max(self.values)}


def survey_space(plan: Plan, *, networks: int, timed: int | None, json: bool, quiet: bool = False) -> None:
    """Print a study's space, and the costs of random networks, with progress unless `quiet`.

    `timed` of them have their latency measured; by default none on a CPU, where a measurement takes seconds.
    """
    from search.runner.devices import resolve_device, resolve_threads

    executor, infeasible = plan.study.executor, infeasible_shares(plan)
    device, threads = resolve_device(executor.device), resolve_threads(executor.threads)
    if timed is None:
        timed = 0 if device == "cpu" else networks
    console = open_console()
    if not json:
        console.print(axes_table(plan.space))
        for line in size_lines(plan, infeasible):
            print_text(line)
    with counting("networks", quiet=quiet) as progress:
        spreads = sample_costs(
            plan, networks=networks, timed=timed, device=device, threads=threads, progress=partial(progress, "pricing")
        )
    if json:
        print_json(survey_values(plan, infeasible, spreads))
        return
    console.print(costs_table(spreads, budgets=plan.budgets))
    if not timed:
        print_text("no latency was measured; --timed N measures that of N networks")


def sample_costs(
    plan: Plan,
    *,
    networks: int,
    timed: int,
    device: str,
    threads: int,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> dict[str, Spread]:
    """Price random feasible networks of the space; measure the latency of the first `timed` of them."""
    import torch

    from search.costs.latency import measure_latency
    from search.costs.price import predict_costs
    from space.build import build

    rng, context, training = Random(plan.study.search.seed), plan.context, plan.training
    torch.set_num_threads(threads)
    where = torch.device(device)
    found: dict[str, list[float]] = {name: [] for name in COSTS}
    predicting_s = timing_s = 0.0
    sampled = [sample_buildable(plan.space, rng) for _ in range(networks)]
    for number, decisions in enumerate(sampled):
        architecture = plan.space.architecture(decisions)
        began = time.perf_counter()
        costs = predict_costs(architecture, context, training, labelling=plan.dataset.labelling, device=where)
        predicting_s += time.perf_counter() - began
        if number < timed:
            began = time.perf_counter()
            measured = measure_latency(build(architecture, context), context, training, device=where)
            timing_s += time.perf_counter() - began
            costs = replace(costs, latency=measured)
        for name in COSTS:
            if (value := costs.of(name)) is not None:
                found[name].append(value)
        progress(number + 1, networks)
    errors, seconds = _model_errors(plan.space, sampled, found), dict.fromkeys(COSTS, predicting_s / networks)
    seconds["latency"] = timing_s / max(1, timed)
    return {name: Spread(tuple(values), seconds[name], errors[name]) for name, values in found.items() if values}


def _model_errors(space: Space, sampled: Sequence[Decisions], found: Mapping[str, Sequence[float]]) -> dict[str, float]:
    from search.proposers.cost_model import learn_costs

    coded, costs = Coded(space), np.full((len(sampled), len(COSTS)), np.nan)
    for column, name in enumerate(COSTS):
        costs[: len(found[name]), column] = found[name]
    model = learn_costs(coded.similarities, coded.encode(sampled)[:, coded.free], costs)
    return dict(zip(COSTS, model.errors.tolist(), strict=True))


@dataclass(frozen=True)
class AxisRow:
    """An axis, or one row for equal axes of several places: `attention` at `skip0, skip1`."""

    name: str
    places: tuple[Place, ...]
    choices: str
    condition: str
    meaning: str


def axis_rows(space: Space) -> list[AxisRow]:
    """Return the open axes, each with the condition under which it exists.

    Axes that differ only in their place share a row; the condition that a place's level exists is left out.
    """
    rows: dict[tuple[str, str, str], AxisRow] = {}
    for axis in space.axes:
        if len(axis.choices) == 1:
            continue
        name = AxisName.parse(axis.name)
        condition = _condition(axis, space, name.place)
        key = (name.head, _choices(axis), condition)
        before = rows[key].places if key in rows else ()
        meaning = axis.meaning.removesuffix(f" at {name.place}")
        rows[key] = AxisRow(name.head, (*before, name.place) if name.place else (), _choices(axis), condition, meaning)
    return list(rows.values())


def axes_table(space: Space) -> Table:
    """Return the axes as a table."""
    fixed = [axis for axis in space.axes if len(axis.choices) == 1]
    table = Table(title=f"Axes: {len(space.axes) - len(fixed)} open, {len(fixed)} fixed", title_justify="left")
    for heading in ("axis", "at", "choices", "exists if", "meaning"):
        table.add_column(heading, overflow="fold")
    for row in axis_rows(space):
        table.add_row(row.name, _ranges(row.places), row.choices, row.condition, row.meaning)
    return table


def _ranges(places: Sequence[Place]) -> str:
    """Format places as ranges: `encoder0 to 4, bottleneck`."""
    groups: dict[Place, list[Place]] = {}
    for place in places:
        groups.setdefault(place.group, []).append(place)
    return ", ".join(
        str(inside[0]) if len(inside) == 1 else f"{inside[0]} to {inside[-1].level}" for inside in groups.values()
    )


def costs_table(spreads: dict[str, Spread], *, budgets: dict[str, float]) -> Table:
    """Return the spread of each cost, and the share within its budget, as a table."""
    table = Table(title=f"Costs of {counted(len(spreads['params'].values), 'random network')}", title_justify="left")
    for heading in ("cost", "min", "median", "max", "within budget", "cost model's error", "time per network"):
        table.add_column(heading, justify="left" if heading == "cost" else "right", no_wrap=True)
    for name, spread in spreads.items():
        values = [show(name, value) for value in spread.summary().values()]
        within = f"{_share_within(spread, budgets[name]):.0%}" if name in budgets else ""
        error = f"{spread.model_error:.1%}" if len(spread.values) >= MODELLED else ""
        table.add_row(OBJECTIVES[name].heading, *values, within, error, show_seconds(spread.seconds_each))
    return table


def _share_within(spread: Spread, limit: float) -> float:
    return sum(value <= limit for value in spread.values) / len(spread.values)


def size_lines(plan: Plan, infeasible: dict[str, int]) -> list[str]:
    """Return lines on the size, the study's rules, and the infeasible share by reason."""
    size = plan.space.size
    written = f"{size:,}" if size < 10**12 else f"{size:.2e}".replace("e+", " x 10^")
    rules = f", with {counted(len(plan.space.rules), 'rule')} applied" if plan.space.rules else ""
    lines = [f"{written} combinations of choices{rules}"]
    lines += [f"  forbidden: {rule.why}" for rule in plan.space.rules]
    total = sum(infeasible.values())
    for reason, count in infeasible.items():
        lines.append(f"  {count / total:.1%} " + (f"infeasible, e.g. {reason}" if reason else "can be built"))
    return lines


def survey_values(plan: Plan, infeasible: dict[str, int], spreads: dict[str, Spread]) -> dict[str, Any]:
    """Return the report as plain values, in bytes, seconds and counts; a size over 2**53 as a string."""
    axes: list[dict[str, Any]] = [
        {
            "name": axis.name,
            "choices": list(axis.choices),
            "when": {name: list(allowed) for name, allowed in axis.when},
            "meaning": axis.meaning,
        }
        for axis in plan.space.axes
    ]
    total = sum(infeasible.values())
    return {
        "study": plan.study.name,
        "size": plan.space.size if plan.space.size < 2**53 else str(plan.space.size),
        "axes": axes,
        "forbidden": [rule.why for rule in plan.space.rules],
        "infeasible": {reason: count / total for reason, count in infeasible.items() if reason},
        "costs": {
            name: {
                **spread.summary(),
                "networks": len(spread.values),
                "seconds_each": spread.seconds_each,
                "model_error": spread.model_error if len(spread.values) >= MODELLED else None,
            }
            for name, spread in spreads.items()
        },
    }


def infeasible_shares(plan: Plan) -> dict[str, int]:
    """Count why random points of the space can't be built."""
    return refusals(plan.space, sample=REFUSALS_SAMPLED, seed=0)


def _choices(axis: Axis) -> str:
    shown = ", ".join(_value(choice) for choice in axis.choices[:SHOWN_CHOICES])
    more = len(axis.choices) - SHOWN_CHOICES
    return shown + (f" and {more} more" if more > 0 else "")


def _condition(axis: Axis, space: Space, place: Place | None) -> str:
    """Format a condition, without parts that are always true or that a block's place implies."""
    block = space.by_name.get(attention_at(place), axis) if place else axis
    implied = {name for name, _ in block.when} if block is not axis else {"levels"} if place else set()
    parts = []
    for name, allowed in axis.when:
        choices = space.by_name[name].choices
        if name in implied or (set(choices) <= set(allowed) and not space.by_name[name].when):
            continue
        met, unmet = ([value for value in choices if (value in allowed) == wanted] for wanted in (True, False))
        short = name.removesuffix(f"@{place}")
        parts.append(f"{short} is not {_any_of(unmet)}" if 0 < len(unmet) < len(met) else f"{short} is {_any_of(met)}")
    return " and ".join(parts)


def _any_of(values: Sequence[Any]) -> str:
    return " or ".join(_value(value) for value in values)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return "[" + ", ".join(_value(each) for each in value) + "]"
    return show_count(value) if isinstance(value, int) and value >= 10_000 else str(value)
