"""Run or resume an ablation: the trainings that are missing, through the store and the driver of studies."""

from __future__ import annotations

from search.ablation.plan import AblationPlan
from search.ablation.results import still_wanted
from search.devices import resolve_device, resolve_threads
from search.local import View, finish_interrupted, open_driver, run_wanted
from search.lock import driver_lock
from search.prices import Device
from search.pricing import measured_device


def run_ablation(plan: AblationPlan, *, view: View) -> None:
    """Train what is missing of every arm; what was interrupted goes on first, what failed is tried again.

    What fails every time stays missing: it doesn't end the rest, and the next run tries it again. Raises UserError
    where another driver runs the ablation, or where its data or training changed.
    """
    with driver_lock(plan.folder):
        for number, each in enumerate(plan.plans):
            driver = open_driver(each, view)
            finish_interrupted(driver)
            for _ in range(1 + plan.loaded.ablation.retries):
                run_wanted(driver, still_wanted(plan, number, ablation_device(plan)))


def missing_count(plan: AblationPlan) -> int:
    """Return how many trainings are still to be done."""
    return sum(len(still_wanted(plan, number, ablation_device(plan))) for number in range(len(plan.plans)))


def ablation_device(plan: AblationPlan) -> Device:
    """Return what the ablation's latencies belong to."""
    executor = plan.loaded.ablation.executor
    return measured_device(
        plan.plans[0], device=resolve_device(executor.device), threads=resolve_threads(executor.threads)
    )
