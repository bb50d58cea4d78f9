"""Run or resume an ablation: do its missing trainings with the store, driver and executors of studies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing

from search.ablation.plan import AblationPlan
from search.ablation.results import foreign_records, foreign_studies, open_requests, open_requests_by_plan
from search.runner.answers import Ask, Done, Train, Wait
from search.runner.devices import resolve_device, resolve_threads
from search.runner.driver import Executor
from search.runner.opening import driver_lock, open_driver
from search.runner.plan import Plan
from search.runner.pricer import measured_device
from search.runner.view import View
from search.storage.price_cache import Device
from search.trials.records import Record


def run_ablation(plan: AblationPlan, *, view: View, make_executor: Callable[[Plan], Executor]) -> None:
    """Do the missing trainings of all arms: resume interrupted ones first, retry failed ones.

    A training that fails at every try stays missing; the others continue, and the next run tries it again. Raises
    UserError if another driver runs the ablation, or if its data or training changed.
    """
    with driver_lock(plan.plans[0]):
        device, studies = ablation_device(plan), foreign_studies(plan)
        for number, each in enumerate(plan.plans):
            executor = make_executor(each)
            driver = open_driver(each, view, executor)
            with closing(driver), driver.store.heartbeat:
                foreign = foreign_records(each, studies, device)  # once, not at every ask
                known = [*driver.store.records(), *(record for _, record in foreign)]
                left = len(open_requests(plan, number, known))
                driver.store.write_goal(len(driver.search_records()) + left)
                why = executor.run(driver, _ask(plan, number, [record for _, record in foreign]))
                driver.store.write_goal(len(driver.search_records()), ended=why)


def _ask(plan: AblationPlan, number: int, foreign: Sequence[Record]) -> Ask:
    """Return the function that requests a setting's missing trainings, those with the fewest tries first.

    `foreign` are the reusable records of other studies, read when the run began.
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
        request = min(left, key=lambda each: tries[each.identity])
        tries[request.identity] += 1
        return Train(request)

    return ask


def missing_count(plan: AblationPlan) -> int:
    """Return the number of trainings left to do."""
    return sum(map(len, open_requests_by_plan(plan, ablation_device(plan))))


def ablation_device(plan: AblationPlan) -> Device:
    """Return the device, threads and precision of the ablation's latencies."""
    executor = plan.loaded.ablation.executor
    return measured_device(
        plan.plans[0], device=resolve_device(executor.device), threads=resolve_threads(executor.threads)
    )
