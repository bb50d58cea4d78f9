"""`voxnas tabulate`: train a random sample of a study's networks, each with several seeds, all to their last epoch."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import closing
from dataclasses import dataclass
from random import Random

from search.config.errors import UserError
from search.proposers.propose import LISTABLE
from search.runner.answers import Ask, Done, Train
from search.runner.driver import Driver, Executor
from search.runner.opening import driver_lock, open_driver
from search.runner.plan import Plan
from search.runner.sampling import refusals
from search.runner.view import View
from search.storage import read_records
from search.trials.records import Record, TrainingRequest
from space.canonical import Decisions
from space.feasible import why_not

TRIES = 10_000  # random networks in a row that are known or can't be built, before the sample ends


Training = tuple[str, int]  # a network's fingerprint and the seed of its training


@dataclass(frozen=True)
class Tabulated:
    """A table's requested trainings, network by network, and the records of those that this study has begun."""

    records: tuple[Record, ...]
    requests: tuple[TrainingRequest, ...]
    seeds: int

    @property
    def networks(self) -> int:
        """The number of requested networks."""
        return len(self.requests) // self.seeds


def sample_networks(plan: Plan, count: int | None) -> list[Decisions]:
    """Return `count` different networks of the study's space that can be built, in random order; None returns all.

    A larger sample begins with the smaller one. Raises UserError if no network can be built, or if all are asked for
    in a space too large to list.
    """
    space, rng = plan.space, Random(f"table:{plan.study.search.seed}")
    if space.size <= LISTABLE:
        candidates = list(space.enumerate())
        rng.shuffle(candidates)
        drawn = iter(candidates)
    elif count is None:
        raise UserError([f"tabulate: the space has {space.size:,} combinations; sample it with --networks N"])
    else:
        drawn = (space.sample(rng) for _ in iter(int, 1))
    found: dict[str, Decisions] = {}
    in_vain = 0
    for decisions in drawn:
        architecture = space.architecture(decisions)
        fingerprint = architecture.fingerprint
        if fingerprint in found or why_not(architecture, plan.context) is not None:
            in_vain += 1
            if in_vain == TRIES and space.size > LISTABLE:
                break
            continue
        found[fingerprint], in_vain = decisions, 0
        if len(found) == count:
            break
    if not found:
        reason = next(iter(refusals(space, sample=100, seed=0)))
        raise UserError([f"tabulate: no network of this space can be built: {reason}"])
    return list(found.values())


def table_requests(plan: Plan, networks: Sequence[Decisions], *, seeds: int) -> list[TrainingRequest]:
    """List the trainings of a table, all seeds of a network one after another.

    A table that is not complete thus holds fewer networks, a random sample of the complete table's.
    """
    search, fold = plan.study.search, plan.study.data.fold
    return [
        TrainingRequest(plan.space.architecture(decisions), search.seed + seed, fold, tuple(decisions.items()))
        for decisions in networks
        for seed in range(seeds)
    ]


def training_of(item: TrainingRequest | Record) -> Training:
    """Return what identifies a training within a table, whose trainings share their fold."""
    return (item.architecture.fingerprint, item.seed)


def tabulate_study(
    plan: Plan,
    *,
    networks: int | None,
    seeds: int,
    known: Collection[Training] = (),
    view: View,
    executor: Executor,
) -> Tabulated:
    """Train what is missing of a table, interrupted trainings first, and return the requested trainings.

    Trainings that the study already has, and those that are `known` from a table written earlier, are not repeated;
    weights are deleted unless `keep` is `all`. Raises UserError if another driver runs the study, or if halving would
    stop trainings early.
    """
    if plan.study.search.halving is not None:
        hint = "set search.halving=off, in a study of its own name"
        raise UserError([f"search.halving: stops trainings early, and a table needs complete ones; {hint}"])
    requests = tuple(table_requests(plan, sample_networks(plan, networks), seeds=seeds))
    missing = [each for each in requests if training_of(each) not in known]
    if not missing:
        return Tabulated((), requests, seeds)
    with driver_lock(plan):
        driver = open_driver(plan, view, executor)
        with closing(driver), driver.store.heartbeat:
            view.on_resume([each for each in driver.store.records() if training_of(each) not in known])
            executor.run(driver, _ask(driver, missing))
            return Tabulated(table_records(driver.store.records(), requests), requests, seeds)


def read_tabulated(plan: Plan, *, networks: int | None, seeds: int) -> Tabulated:
    """Return a table's records as they are now, also while another process trains. Raises UserError if none exist."""
    requests = tuple(table_requests(plan, sample_networks(plan, networks), seeds=seeds))
    return Tabulated(table_records(read_records(plan.url, plan.study.name), requests), requests, seeds)


def _ask(driver: Driver, requests: Sequence[TrainingRequest]) -> Ask:
    """Return an ask for each training that has no record yet, in order."""
    left = iter(requests)

    def ask(records: Sequence[Record]) -> Train | Done:
        known = {record.identity for record in records}
        if driver.plan.study.keep == "front":
            on_front = {record.number for record in driver.front}
            driver.prune_weights([each for each in records if each.number not in on_front])
        missing = next((each for each in left if each.identity not in known), None)
        return Train(missing) if missing else Done("the table is complete")

    return ask


def table_records(records: Sequence[Record], requests: Sequence[TrainingRequest]) -> tuple[Record, ...]:
    """Return the records of the requested trainings, in their order; a search's other records are left out."""
    found = {record.identity: record for record in records}
    return tuple(found[each.identity] for each in requests if each.identity in found)
