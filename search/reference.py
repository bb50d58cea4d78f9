"""The hypervolume's reference, fixed when a study starts, and whether anything meets its budgets."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from search.objectives import HEADINGS, show
from search.plan import Plan
from search.pricing import Pricer
from search.proposers.cost_model import CostModel, learn_costs
from search.records import Costs
from search.study.mistakes import UserError
from space.coded import Coded, Codes
from space.feasible import why_not

COSTS = ("params", "macs", "memory", "inference_memory", "latency")
RANDOM = 1000  # points from which a reference is taken where there is no budget
PRICED = 24  # of them priced exactly; the others' costs are learned from those
TIMED = 8  # of those timed, where a latency is needed: spread over the MACs
Matrix = NDArray[np.float64]


def reference_point(plan: Plan, pricer: Pricer) -> dict[str, float]:
    """Fix the reference: Dice 0, budgets, and for other costs the dearest of 1,000 random networks.

    Pricing a thousand networks would take minutes: 24 are priced exactly (8 of them timed where latency is among
    the objectives), a cost model learned from these finds the dearest of the thousand in each cost, and that network
    is priced exactly; its cost, or a dearer one's among the 24, is the reference.
    """
    point = {name: 0.0 if name == "dice" else plan.budgets.get(name, 0.0) for name in plan.directions}
    unknown = [name for name, value in point.items() if name != "dice" and not value]
    if not unknown:
        return point
    coded, rows = _random_rows(plan)
    price = pricer.timed if "latency" in unknown else pricer
    model, exact = _learn(plan, pricer, coded, rows, timed="latency" in unknown)
    predicted = model.predict(rows[:, coded.free])
    for name in unknown:
        column = COSTS.index(name)
        dearest = price(plan.space.architecture(coded.decode(rows[int(np.nanargmax(predicted[:, column]))])))
        seen = [costs.of(name) for costs in (*exact, dearest) if costs is not None]
        point[name] = max(value for value in seen if value is not None)
    return point


def require_a_share(plan: Plan, pricer: Pricer) -> None:
    """Raise UserError where none of 1,000 random networks meets a budget, or all budgets together, as predicted.

    Costs are learned as in `reference_point`; the network that comes nearest is priced exactly before the study is
    refused. A latency budget is not looked at: latency is measured trial by trial.
    """
    budgets = {name: limit for name, limit in plan.budgets.items() if name != "latency"}
    if not budgets:
        return
    coded, rows = _random_rows(plan)
    model, _ = _learn(plan, pricer, coded, rows, timed=False)
    shares = model.predict(rows[:, coded.free])[:, [COSTS.index(name) for name in budgets]] / np.array(
        [*budgets.values()]
    )
    if (shares <= 1.0).all(axis=1).any():
        return
    nearest = pricer(plan.space.architecture(coded.decode(rows[int(np.argmin(shares.max(axis=1)))])))
    if nearest is not None and all((nearest.of(name) or 0.0) <= limit for name, limit in budgets.items()):
        return
    said = [
        f"objectives.{name}: {(shares[:, number] <= 1.0).mean():.1%} of {len(rows)} random networks meet the budget of "
        f"{show(name, limit)} (the least {HEADINGS[name]} among them is about "
        f"{show(name, float(shares[:, number].min() * limit))})"
        for number, (name, limit) in enumerate(budgets.items())
    ]
    raise UserError([*said, "no network meets the budgets, so nothing would be trained: raise them or open the space"])


def _random_rows(plan: Plan) -> tuple[Coded, Codes]:
    """Sample networks that can be built; a space of few gives those."""
    coded, rng = Coded(plan.space), np.random.default_rng(plan.study.search.seed)
    rows = coded.sample(rng, 2 * RANDOM)
    able = [why_not(plan.space.architecture(coded.decode(row)), plan.context) is None for row in rows]
    if not any(able):
        raise UserError(["no network of this space can be built; `voxnas check` says why"])
    return coded, rows[able][:RANDOM]


def _learn(plan: Plan, pricer: Pricer, coded: Coded, rows: Codes, *, timed: bool) -> tuple[CostModel, list[Costs]]:
    """Price the first of the rows and learn from them."""
    chosen = np.unique(rows, axis=0, return_index=True)[1]
    chosen = np.sort(chosen)[:PRICED]
    found = [(row, plan.space.architecture(coded.decode(row))) for row in rows[chosen]]
    exact = [costs for _, architecture in found if (costs := pricer(architecture)) is not None]
    if timed:
        order = np.argsort([costs.macs for costs in exact])
        for index in order[np.linspace(0, len(order) - 1, min(TIMED, len(order))).round().astype(int)]:
            exact[index] = pricer.timed(found[index][1]) or exact[index]
    values = np.array(
        [[np.nan if (value := costs.of(name)) is None else value for name in COSTS] for costs in exact], dtype=float
    )
    return learn_costs(coded.similarities, rows[chosen][:, coded.free], values), exact
