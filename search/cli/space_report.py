"""A space seen from above: its axes and conditions, its size, what is refused, and what random networks cost."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np
from rich.table import Table

from search.config.objectives import COSTS, OBJECTIVES, show
from search.config.units import show_count, show_seconds
from search.runner.plan import Plan, refusals, sample_buildable
from space.axes import Axis
from space.canonical import Decisions
from space.encoding import Coded
from space.place import AxisName, Place, attention_at
from space.space import Space

REFUSALS_SAMPLED = 1000
SHOWN_CHOICES = 8
MODELLED = 8  # networks from which the cost model's error says something


@dataclass(frozen=True)
class Spread:
    """A cost over the sampled networks, the seconds that it took each, and how well the others foretell one's.

    `model_error` is the median relative error of the proposer's cost model where one network at a time is left out.
    """

    values: tuple[float, ...]
    seconds_each: float
    model_error: float

    def summary(self) -> dict[str, float]:
        """Return the least, the median and the most."""
        return {"least": min(self.values), "median": statistics.median(self.values), "most": max(self.values)}


def sample_costs(plan: Plan, *, networks: int, timed: int, device: str, threads: int) -> dict[str, Spread]:
    """Price random networks of the space that can be built, the latency of the first `timed` of them."""
    import torch

    from search.costs.latency import measure_latency
    from search.costs.macs import params_and_macs
    from search.costs.memory import inference_memory_bytes, training_memory_bytes
    from space.build import build

    rng, context, training = Random(plan.study.search.seed), plan.context, plan.training
    torch.set_num_threads(threads)
    found: dict[str, list[float]] = {name: [] for name in COSTS}
    took: dict[str, float] = dict.fromkeys(COSTS, 0.0)

    def clocked(name: str, value: float, began: float) -> None:
        found[name].append(value)
        took[name] += time.perf_counter() - began

    sampled = [sample_buildable(plan.space, rng) for _ in range(networks)]
    for number, decisions in enumerate(sampled):
        architecture = plan.space.architecture(decisions)
        began = time.perf_counter()
        params, macs = params_and_macs(architecture, context)
        found["params"].append(params)  # counted together
        clocked("macs", macs, began)
        began = time.perf_counter()
        clocked("memory", training_memory_bytes(architecture, context, training), began)
        began = time.perf_counter()
        clocked("inference_memory", inference_memory_bytes(architecture, context, training), began)
        if number < timed:
            began = time.perf_counter()
            network = build(architecture, context)
            measured = measure_latency(network, context, training, device=torch.device(device))
            clocked("latency", measured.median_s, began)
    errors = _model_errors(plan.space, sampled, found)
    return {
        name: Spread(tuple(values), took[name] / len(values), errors[name]) for name, values in found.items() if values
    }


def _model_errors(space: Space, sampled: Sequence[Decisions], found: Mapping[str, Sequence[float]]) -> dict[str, float]:
    from search.proposers.cost_model import learn_costs

    coded, costs = Coded(space), np.full((len(sampled), len(COSTS)), np.nan)
    for column, name in enumerate(COSTS):
        costs[: len(found[name]), column] = found[name]
    model = learn_costs(coded.similarities, coded.encode(sampled)[:, coded.free], costs)
    return dict(zip(COSTS, model.errors.tolist(), strict=True))


@dataclass(frozen=True)
class AxisRow:
    """An axis as it is shown, or the like axes of several places in one: `attention` at `skip0, skip1`."""

    name: str
    places: tuple[Place, ...]
    choices: str
    condition: str
    meaning: str


def axis_rows(space: Space) -> list[AxisRow]:
    """Return the axes that have something to choose, with the condition under which each exists.

    Axes that differ in their place alone are one row; that a place's level must be there goes without saying.
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
    """Draw the axes."""
    fixed = [axis for axis in space.axes if len(axis.choices) == 1]
    table = Table(title=f"Axes: {len(space.axes) - len(fixed)} open, {len(fixed)} fixed", title_justify="left")
    for heading in ("axis", "at", "choices", "exists where", "meaning"):
        table.add_column(heading, overflow="fold")
    for row in axis_rows(space):
        table.add_row(row.name, _ranges(row.places), row.choices, row.condition, row.meaning)
    return table


def _ranges(places: Sequence[Place]) -> str:
    """Write places for people: `encoder0 to 4, bottleneck`."""
    groups: dict[Place, list[Place]] = {}
    for place in places:
        groups.setdefault(place.group, []).append(place)
    return ", ".join(
        str(inside[0]) if len(inside) == 1 else f"{inside[0]} to {inside[-1].level}" for inside in groups.values()
    )


def costs_table(spreads: dict[str, Spread], *, budgets: dict[str, float]) -> Table:
    """Draw the spread of each cost, and the share within its budget."""
    table = Table(title=f"Costs of {len(spreads['params'].values)} random networks", title_justify="left")
    for heading in ("cost", "least", "median", "most", "within budget", "model errs by", "time a network"):
        table.add_column(heading, justify="left" if heading == "cost" else "right", no_wrap=True)
    for name, spread in spreads.items():
        seconds = show_seconds(spread.seconds_each) if spread.seconds_each else "with MACs"
        values = [show(name, value) for value in spread.summary().values()]
        within = f"{_share_within(spread, budgets[name]):.0%}" if name in budgets else ""
        error = f"{spread.model_error:.1%}" if len(spread.values) >= MODELLED else ""
        table.add_row(OBJECTIVES[name].heading, *values, within, error, seconds)
    return table


def _share_within(spread: Spread, limit: float) -> float:
    return sum(value <= limit for value in spread.values) / len(spread.values)


def size_lines(plan: Plan, refused: dict[str, int]) -> list[str]:
    """Say the size, what the study forbids, and which share can't be built, by reason."""
    size = plan.space.size
    written = f"{size:,}" if size < 10**12 else f"{size:.2e}".replace("e+", " x 10^")
    lines = [f"{written} ways to decide" + (f", {len(plan.space.rules)} rules kept" if plan.space.rules else "")]
    lines += [f"  forbidden: {rule.why}" for rule in plan.space.rules]
    total = sum(refused.values())
    for reason, count in refused.items():
        lines.append(f"  {count / total:.1%} " + (f"refused, as: {reason}" if reason else "can be built"))
    return lines


def survey_json(plan: Plan, refused: dict[str, int], spreads: dict[str, Spread]) -> str:
    """Return all of it as JSON: bytes, seconds and counts; the exact size as a string where it fits no double."""
    axes: list[dict[str, Any]] = [
        {
            "name": axis.name,
            "choices": list(axis.choices),
            "when": {name: list(allowed) for name, allowed in axis.when},
            "meaning": axis.meaning,
        }
        for axis in plan.space.axes
    ]
    total = sum(refused.values())
    values = {
        "study": plan.study.name,
        "size": plan.space.size if plan.space.size < 2**53 else str(plan.space.size),
        "axes": axes,
        "forbidden": [rule.why for rule in plan.space.rules],
        "refused": {reason: count / total for reason, count in refused.items() if reason},
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
    return json.dumps(values, indent=2)


def refused_shares(plan: Plan) -> dict[str, int]:
    """Count the reasons for which random points of the space can't be built."""
    return refusals(plan.space, sample=REFUSALS_SAMPLED, seed=0)


def _choices(axis: Axis) -> str:
    shown = ", ".join(_value(choice) for choice in axis.choices[:SHOWN_CHOICES])
    more = len(axis.choices) - SHOWN_CHOICES
    return shown + (f" and {more} more" if more > 0 else "")


def _condition(axis: Axis, space: Space, place: Place | None) -> str:
    """Say a condition in words; what always holds is left out, and of a block's options what its place asks for."""
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
