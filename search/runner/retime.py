"""Latencies of one study belong to one device: compared before the first step, or all measured again."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace

from search.config.errors import UserError
from search.config.objectives import per_device
from search.runner.evaluate import over_budget, versions
from search.runner.plan import Plan
from search.runner.pricer import Pricer
from search.storage import Store
from search.storage.price_cache import Device
from search.trials.records import Latency, Record
from space.architecture import Architecture

LOGGER = logging.getLogger("voxnas.latency")


def require_same_setting(plan: Plan, records: Sequence[Record], find_device: Callable[[], Device]) -> None:
    """Raise UserError if latencies measured now could not be compared with those of the study's trained trials.

    `find_device` returns where they would be measured; it is called if trials have latencies.
    Another precision or version of torch is only noted in a warning; readers compare the largest group of one setting.
    """
    timed = [record for record in records if record.state == "trained"]
    latencies = [each for record in timed if (each := record.measurement.latency) is not None]
    if not latencies or not per_device((*plan.directions, *plan.budgets)):
        return
    here = find_device()
    known = "; ".join(sorted({each.setting for each in latencies}))
    if (here.name, here.threads) not in {(each.device, each.threads) for each in latencies}:
        measured = f"latency was measured on {known}; this run would measure it on {here.setting}"
        choice = (
            "run on the same device with the same `executor.threads`, give the study another name, or measure all of "
            "its latencies again, here, with --retime"
        )
        raise UserError([f"{measured}: the two can't be compared on one front; {choice}"])
    if here.setting not in {each.setting for each in latencies}:
        LOGGER.warning(
            "latency was measured on %s; this run measures it on %s: fronts show the larger group of the two, or "
            "--retime measures all again",
            known,
            here.setting,
        )
    torch_here = dict(versions())["torch"]
    others = {_torch_of(record) or torch_here for record in timed if record.measurement.latency} - {torch_here}
    if others:
        LOGGER.warning(
            "latency was measured with torch %s; this run measures it with torch %s, whose kernels may differ in "
            "speed; --retime measures all again",
            " and ".join(sorted(others)),
            torch_here,
        )


def retime(plan: Plan, store: Store, pricer: Pricer, *, progress: Callable[[int, int], object]) -> int:
    """Measure the latency of every finished trial that has one again, here; return the number of trials.

    The study notes that it is being measured again; whoever calls this ends the note with `write_retimed_by`.
    Equal networks are measured once. A trial that is over the latency's budget here keeps its state, with a warning.
    """
    records = [record for record in store.records() if record.state != "running" and record.measurement.latency]
    measured: dict[Architecture, Latency] = {}
    store.write_retimed_by(store.me)
    for done, record in enumerate(records, start=1):
        costs = record.measurement.costs
        if costs is None:
            continue
        if record.architecture not in measured:
            measured[record.architecture] = pricer.measure(record.architecture)
            pricer.keep(record.architecture, replace(costs, latency=measured[record.architecture]))
        costs = replace(costs, latency=measured[record.architecture])
        store.write_costs(
            replace(record, measurement=replace(record.measurement, costs=costs)), objectives=list(plan.directions)
        )
        over = over_budget(costs, tuple(plan.budgets.items()))
        if over and record.state == "trained":
            LOGGER.warning("trial %d: %s here; it stays in the study", record.number, over)
        progress(done, len(records))
    return len(records)


def _torch_of(record: Record) -> str:
    """Return the version of torch that measured a trial's latency; in older records, that of its training."""
    latency = record.measurement.latency
    return latency.torch if latency and latency.torch else dict(record.measurement.versions).get("torch", "")
