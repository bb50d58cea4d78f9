"""Run or resume an ablation: the trainings that are missing, through the store, driver and executors of studies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing

from search.ablation.plan import AblationPlan
from search.ablation.results import foreign_records, foreign_studies, open_requests, open_requests_by_plan
from search.runner.answers import Ask, Done, Train, Wait
from search.runner.devices import resolve_device, resolve_threads
from search.runner.driver import Executor, View, driver_lock, open_driver
from search.runner.plan import Plan
from search.runner.pricer import measured_device
from search.storage.price_cache import Device
from search.trials.records import Record


def run_ablation(plan: AblationPlan, *, view: View, make_executor: Callable[[Plan], Executor]) -> None:
    """Train what is missing of every arm; what was interrupted is resumed first, what failed is tried again.

    What fails every time stays missing: it doesn't end the rest, and the next run tries it again. Raises UserError
    where another driver runs the ablation, or where its data or training changed.
    """
    with driver_lock(plan.plans[0]):
        device = ablation_device(plan)
        for number, each in enumerate(plan.plans):
            executor = make_executor(each)
            driver = open_driver(each, view, executor)
            with closing(driver), driver.store.heartbeat:
                foreign = foreign_records(each, foreign_studies(plan), device)  # once, not at every ask
                executor.run(driver, _ask(plan, number, [record for _, record in foreign]))


def _ask(plan: AblationPlan, number: int, foreign: Sequence[Record]) -> Ask:
    """Return what asks for the missing trainings of a setting, those tried least often first.

    `foreign` are the records of other studies that count, as they were when the run began.
    """
    tries = Counter[tuple[str, int, int]]()

    def ask(records: Sequence[Record]) -> Train | Wait | Done:
        running = {record.identity for record in records if record.state == "running"}
        left = [
            each
            for each in open_requests(plan, number, [*records, *foreign])
            if each.identity not in running and tries[each.identity] <= plan.loaded.ablation.retries
        ]
        if not left:
            return Wait() if running else Done("all arms are trained")
        least = min(left, key=lambda each: tries[each.identity])
        tries[least.identity] += 1
        return Train(least)

    return ask


def missing_count(plan: AblationPlan) -> int:
    """Return how many trainings are still to be done."""
    return sum(map(len, open_requests_by_plan(plan, ablation_device(plan))))


def ablation_device(plan: AblationPlan) -> Device:
    """Return what the ablation's latencies belong to."""
    executor = plan.loaded.ablation.executor
    return measured_device(
        plan.plans[0], device=resolve_device(executor.device), threads=resolve_threads(executor.threads)
    )
