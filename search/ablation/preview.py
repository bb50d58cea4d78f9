"""`voxnas ablate --dry-run`: the arms with their changes and costs, and the expected time."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from rich import box
from rich.console import Console
from rich.table import Table

from search.ablation.plan import AblationPlan, Arm
from search.ablation.results import open_requests_by_plan, results_of
from search.ablation.run import ablation_device
from search.config.objectives import COSTS, OBJECTIVES, show
from search.config.units import counted, show_seconds
from search.costs.memory import run_training_steps
from search.costs.price import predict_costs
from search.data.geometry import choose_axes
from search.runner.devices import resolve_device
from search.runner.plan import Plan
from search.training.step import to_memory_format
from search.trials.epochs import Epochs
from search.trials.records import Costs, Record
from space.build import Network, build

SHOWN = tuple(name for name in COSTS if not OBJECTIVES[name].per_device)


@dataclass(frozen=True)
class ArmEstimate:
    """A distinct arm's costs, its number of trainings left, and the seconds of one training, measured or expected."""

    arm: Arm
    costs: Costs
    left: int
    each_s: float
    measured: bool


def estimate_arms(plan: AblationPlan) -> list[ArmEstimate]:
    """Price every distinct arm; its training time comes from finished trainings, or else from timing one step."""
    here = ablation_device(plan)
    results, _ = results_of(plan, here)
    left = [
        (number, each.architecture)
        for number, requests in enumerate(open_requests_by_plan(plan, here))
        for each in requests
    ]
    found = []
    for arm in plan.distinct:
        records = [each.record for each in results if each.arm == arm.name]
        own = plan.plans[arm.plan]
        device = resolve_device(own.study.executor.device)
        costs = _known_costs(records) or predict_costs(
            arm.architecture,
            own.context,
            own.training,
            labelling=own.dataset.labelling,
            device=torch.device(device),
        )
        seconds = _recorded_s(records) or _expected_s(arm, own, device=device)
        found.append(ArmEstimate(arm, costs, left.count((arm.plan, arm.architecture)), seconds, bool(records)))
    return found


def _known_costs(records: Sequence[Record]) -> Costs | None:
    return next((record.measurement.costs for record in records if record.measurement.costs), None)


def _recorded_s(records: Sequence[Record]) -> float:
    """Return the mean seconds of finished trainings; 0 if there are none."""
    seconds = [Epochs.of(record.measurement.epochs).seconds for record in records]
    return sum(seconds) / len(seconds) if seconds else 0.0


def _expected_s(arm: Arm, plan: Plan, *, device: str) -> float:
    """Time one step of each phase and one patch; multiply by a training's numbers of steps and windows."""
    training, where = plan.training, torch.device(device)
    network = to_memory_format(build(arm.architecture, plan.context)).to(where)
    labelling = plan.dataset.labelling
    run_training_steps(network, plan.context, training, labelling=labelling, device=where)  # warm-up
    begun = time.perf_counter()
    run_training_steps(network, plan.context, training, labelling=labelling, device=where)
    step_s = time.perf_counter() - begun
    patch_s = _patch_s(network, plan, where)
    validations = max(1, training.epochs // training.validate_every)
    cases = len(plan.fold.validation)
    return training.epochs * training.steps_per_epoch * step_s + validations * cases * _windows(plan) * patch_s


def _patch_s(network: Network, plan: Plan, device: torch.device) -> float:
    """Time one patch, after a warm-up."""
    patch = torch.zeros(1, plan.context.in_channels, *plan.context.patch, device=device)
    with torch.inference_mode():
        for _ in range(2):
            begun = time.perf_counter()
            network.eval()(patch)
    return time.perf_counter() - begun


def _windows(plan: Plan) -> int:
    """Count the overlapping windows of a median volume."""
    count, facts = 1, plan.facts
    for axis, window, target in zip(
        choose_axes(facts.spacing_median), plan.context.patch, plan.context.spacing, strict=True
    ):
        size = facts.shape_median[axis] * facts.spacing_median[axis] / target
        count *= 1 + math.ceil(max(0.0, size - window) / max(1.0, window * (1 - plan.training.overlap)))
    return count


def print_estimates(plan: AblationPlan, found: Sequence[ArmEstimate], console: Console) -> None:
    """Print the arms with their changes and costs, and the expected time."""
    ablation = plan.loaded.ablation
    table = Table(
        title=f"{ablation.name}: {counted(len(plan.arms), 'arm')}, {len(plan.distinct)} distinct",
        title_justify="left",
        box=box.SIMPLE_HEAD,
    )
    for heading in (
        "arm",
        "changes",
        *(OBJECTIVES[name].heading for name in SHOWN),
        "to train",
        "time each",
        "network",
    ):
        table.add_column(heading, justify="left" if heading in ("arm", "changes", "network") else "right")
    for arm in plan.arms:
        changes = ", ".join(f"{key}: {value}" for key, value in arm.changes) or "none"
        estimate = next((each for each in found if each.arm is arm), None)
        if estimate is None:
            table.add_row(arm.name, changes, *[""] * (len(SHOWN) + 2), f"same as {arm.same_as}")
            continue
        costs = [show(name, estimate.costs.of(name)) for name in SHOWN]
        table.add_row(
            arm.name, changes, *costs, str(estimate.left), show_seconds(estimate.each_s), arm.architecture.describe()
        )
    console.print(table)
    left, total = sum(each.left for each in found), sum(each.left * each.each_s for each in found)
    source = "" if all(each.measured for each in found) else " (arms that have not run yet: estimated from one step)"
    seeds, folds = counted(len(ablation.seeds), "seed"), counted(len(ablation.trained_folds), "fold")
    console.print(
        f"{seeds} x {folds}, baseline {plan.baseline.name}. {counted(left, 'training')} to do, expected time "
        f"{show_seconds(total)}{source}.",
        highlight=False,
    )
