"""Reference networks of a study: published networks that are trained first, for comparison with its front.

They need not be part of the study's space. The search doesn't count, propose, stop or rank them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from search.config.errors import UserError
from search.config.objectives import per_device
from search.runner.plan import Plan
from search.trials.records import Record, TrainingRequest
from space.architecture import Architecture
from space.axes import DecisionError
from space.canonical import Decisions
from space.feasible import why_not
from space.presets import PRESETS

if TYPE_CHECKING:
    from search.proposers.first_networks import FirstNetworks
    from search.runner.pricer import Pricer

DEFAULT = "nnunet"
AUTO = "auto"
MOST_COSTLY = 4.0  # times the MACs of the study's largest priced network, for a reference nobody asked for


def require_buildable_references(plan: Plan) -> None:
    """Raise UserError for each reference of the study's file that can't be built for its patch."""
    named = plan.study.search.references
    reasons = {} if named == AUTO else {name: why_not(_architecture(plan, name), plan.context) for name in named}
    problems = [f"search.references: {name}: {reason}" for name, reason in reasons.items() if reason]
    if problems:
        raise UserError(problems)


def default_references(plan: Plan, pricer: Pricer, first: FirstNetworks | None) -> tuple[str, ...]:
    """Return the references of a study that begins and names none: nnU-Net, if it is affordable.

    It must meet all budgets and cost at most `MOST_COSTLY` times the MACs of the largest network that the study
    priced: a small study shall not wait for a large reference. Empty for a study that named its references, too.
    """
    if plan.study.search.references != AUTO or first is None:
        return ()
    architecture = _architecture(plan, DEFAULT)
    if why_not(architecture, plan.context):
        return ()
    costs = pricer(architecture)
    if costs is None or costs.macs > MOST_COSTLY * max(each.macs for each in first.costs):
        return ()
    if per_device(plan.budgets):
        costs = pricer.timed(architecture) or costs
    fits = all((costs.of(name) or 0.0) <= limit for name, limit in plan.budgets.items())
    return (DEFAULT,) if fits else ()


def reference_requests(plan: Plan, names: Sequence[str]) -> list[TrainingRequest]:
    """Return the trainings of the study's references, by the seed and fold of its search."""
    seed, fold = plan.study.search.seed, plan.study.data.fold
    architectures = {name: _architecture(plan, name) for name in names}
    return [
        TrainingRequest(each, seed, fold, tuple(_decisions(plan, each).items()), reference=name)
        for name, each in architectures.items()
    ]


def next_reference(requests: Sequence[TrainingRequest], records: Sequence[Record]) -> TrainingRequest | None:
    """Return the first reference without a record; None if all have one."""
    known = {record.identity for record in records}
    return next((each for each in requests if each.identity not in known), None)


def _architecture(plan: Plan, name: str) -> Architecture:
    return PRESETS[name].at(plan.context)


def _decisions(plan: Plan, architecture: Architecture) -> Decisions:
    """Return the decisions of a reference that is the base of the study's space; empty for all others."""
    if architecture != plan.space.base:
        return {}
    try:
        decisions = plan.space.complete({})
    except DecisionError:
        return {}
    return decisions if plan.space.architecture(decisions) == architecture else {}
