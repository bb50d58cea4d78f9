"""The hypervolume's reference, fixed when a study starts, and whether anything meets its budgets."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from search.config.errors import UserError
from search.config.objectives import COSTS, OBJECTIVES, costs_among, per_device, show
from search.proposers.cost_model import FIRST_PRICED, CostModel, first_rows, learn_costs
from search.runner.plan import Plan
from search.runner.pricer import Pricer
from search.trials.records import Costs
from space.encoding import Coded, Codes
from space.feasible import why_not

RANDOM = 1000  # points from which a reference is taken where there is no budget
MARGIN = 1.2  # over the costliest: a busy machine times a network a tenth slower, and the costliest should count too
NEAREST = 3  # networks priced exactly before a study is refused for its budgets
TIMED = 8  # of the priced ones timed, where a latency is needed: spread over the MACs
Matrix = NDArray[np.float64]


def reference_point(plan: Plan, pricer: Pricer) -> dict[str, float]:
    """Fix the reference: Dice 0, budgets, and for other costs the most expensive of 1,000 random networks.

    Pricing a thousand networks would take minutes. So 24 are priced exactly (8 of them timed if latency is among the
    objectives), and a cost model learned from these finds the most expensive of the thousand in each cost. That
    network is priced exactly; the reference is 1.2 times its cost, or that of a more expensive one among the 24.
    """
    point = {name: plan.budgets.get(name, 0.0) for name in plan.directions}
    unknown = [name for name in costs_among(point) if not point[name]]
    if not unknown:
        return point
    coded, rows = _random_rows(plan)
    price = pricer.timed if per_device(unknown) else pricer
    model, exact = _learn(plan, pricer, coded, rows, timed=per_device(unknown))
    predicted = model.predict(rows[:, coded.free])
    for name in unknown:
        column = COSTS.index(name)
        costliest = price(plan.space.architecture(coded.decode(rows[int(np.nanargmax(predicted[:, column]))])))
        seen = [costs.of(name) for costs in (*exact, costliest) if costs is not None]
        point[name] = MARGIN * max(value for value in seen if value is not None)
    return point


def require_feasible_budgets(plan: Plan, pricer: Pricer) -> None:
    """Raise UserError where none of 1,000 random networks meets a budget, or all budgets together, as predicted.

    Costs are learned as in `reference_point`, a latency from the few that are timed on the study's device; the
    networks that come nearest are priced exactly before the study is refused.
    """
    budgets = plan.budgets
    if not budgets:
        return
    coded, rows = _random_rows(plan)
    timed = per_device(budgets)
    model, _ = _learn(plan, pricer, coded, rows, timed=timed)
    shares = model.predict(rows[:, coded.free])[:, [COSTS.index(name) for name in budgets]] / np.array(
        [*budgets.values()]
    )
    if (shares <= 1.0).all(axis=1).any():
        return
    for row in rows[np.argsort(shares.max(axis=1))[:NEAREST]]:
        architecture = plan.space.architecture(coded.decode(row))
        exact = pricer.timed(architecture) if timed else pricer(architecture)
        if exact is not None and all((exact.of(name) or 0.0) <= limit for name, limit in budgets.items()):
            return
    said = [
        f"objectives.{name}: {(shares[:, number] <= 1.0).mean():.1%} of {len(rows)} random networks meet the budget of "
        f"{show(name, limit)} (the least {OBJECTIVES[name].heading} among them is about "
        f"{show(name, float(shares[:, number].min() * limit))})"
        for number, (name, limit) in enumerate(budgets.items())
    ]
    raise UserError([*said, "no network meets the budgets, so nothing would be trained: raise them or open the space"])


def _random_rows(plan: Plan) -> tuple[Coded, Codes]:
    """Return random networks that can be built, each once; a small space gives all that it has."""
    coded = Coded(plan.space)
    rows = first_rows(coded, plan.study.search.seed)
    able = [why_not(plan.space.architecture(coded.decode(row)), plan.context) is None for row in rows]
    if not any(able):
        raise UserError(["no network of this space can be built; `voxnas check` says why"])
    return coded, rows[able][:RANDOM]


def _learn(plan: Plan, pricer: Pricer, coded: Coded, rows: Codes, *, timed: bool) -> tuple[CostModel, list[Costs]]:
    """Price the first of the rows and learn from them."""
    rows = rows[:FIRST_PRICED]
    architectures = [plan.space.architecture(coded.decode(row)) for row in rows]
    exact = [costs for architecture in architectures if (costs := pricer(architecture)) is not None]
    if len(exact) < len(rows):
        raise ValueError(f"{len(rows)} networks can be built, but only {len(exact)} were priced")
    if timed:
        order = np.argsort([costs.macs for costs in exact])
        for index in order[np.linspace(0, len(order) - 1, min(TIMED, len(order))).round().astype(int)]:
            exact[index] = pricer.timed(architectures[index]) or exact[index]
    values = np.array(
        [[np.nan if (value := costs.of(name)) is None else value for name in COSTS] for costs in exact], dtype=float
    )
    return learn_costs(coded.similarities, rows[:, coded.free], values), exact
