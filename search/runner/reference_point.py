"""The hypervolume's reference point, and the check that some network meets the budgets, when a study starts."""

from __future__ import annotations

import numpy as np

from search.config.errors import UserError
from search.config.objectives import COSTS, OBJECTIVES, costs_among, per_device, show
from search.proposers.first_networks import FirstNetworks, Progress, price_first_networks
from search.runner.plan import Plan
from search.runner.pricer import Pricer
from space.feasible import why_not

MARGIN = 1.2  # over the most expensive network, since a busy machine may measure a latency a tenth higher
NEAREST = 3  # networks priced exactly before a study is refused for its budgets


def first_networks(
    plan: Plan, pricer: Pricer, *, progress: Progress = lambda done, total: None
) -> FirstNetworks | None:
    """Sample and price a study's first networks; None if neither budgets nor the reference point need them.

    Latency is measured if it is an objective or has a budget. Raises UserError if no network can be built.
    """
    if not plan.budgets and not _unbudgeted(plan):
        return None
    timed = per_device((*plan.budgets, *plan.directions))
    found = price_first_networks(
        plan.space,
        refuse=lambda architecture: why_not(architecture, plan.context),
        price=pricer,
        time=pricer.timed if timed else None,
        seed=plan.study.search.seed,
        progress=progress,
    )
    if found is None:
        raise UserError(["no network of this space can be built; `voxnas check` gives the reasons"])
    return found


def reference_point(plan: Plan, pricer: Pricer, first: FirstNetworks | None) -> dict[str, float]:
    """Return the reference: Dice 0, the budgets, and for other costs 1.2 times the most expensive network's.

    The cost model of the first networks finds the most expensive of the sample in each cost; that network is then
    priced exactly, because pricing the whole sample would take minutes.
    """
    point = {name: plan.budgets.get(name, 0.0) for name in plan.directions}
    unknown = _unbudgeted(plan)
    if first is None or not unknown:
        return point
    price = pricer.timed if per_device(unknown) else pricer
    predicted = first.predicted_costs()
    for name in unknown:
        most = price(first.architecture(int(np.nanargmax(predicted[:, COSTS.index(name)]))))
        seen = [costs.of(name) for costs in (*first.costs, most) if costs is not None]
        point[name] = MARGIN * max(value for value in seen if value is not None)
    return point


def require_feasible_budgets(plan: Plan, pricer: Pricer, first: FirstNetworks | None) -> None:
    """Raise UserError if no network of the sample is predicted to meet all budgets, nor the nearest ones do."""
    budgets = plan.budgets
    if first is None or not budgets:
        return
    shares = first.predicted_costs()[:, [COSTS.index(name) for name in budgets]] / np.array([*budgets.values()])
    if (shares <= 1.0).all(axis=1).any():
        return
    price = pricer.timed if per_device(budgets) else pricer
    for number in np.argsort(shares.max(axis=1))[:NEAREST]:
        exact = price(first.architecture(int(number)))
        if exact is not None and all((exact.of(name) or 0.0) <= limit for name, limit in budgets.items()):
            return
    lines = [
        f"objectives.{name}: {(shares[:, number] <= 1.0).mean():.1%} of {len(shares)} random networks meet the budget "
        f"of {show(name, limit)} (the lowest {OBJECTIVES[name].heading} among them is about "
        f"{show(name, float(shares[:, number].min() * limit))})"
        for number, (name, limit) in enumerate(budgets.items())
    ]
    raise UserError([*lines, "no network meets the budgets, so nothing would be trained: raise them or open the space"])


def _unbudgeted(plan: Plan) -> list[str]:
    """Return the costs among the objectives that have no budget."""
    return [name for name in costs_among(plan.directions) if not plan.budgets.get(name)]
