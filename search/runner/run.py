"""Run a study: ask its proposer for trainings until the trials or the hours are used up."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from itertools import count

from search.config.units import show_seconds
from search.proposers.problem import Price, Problem, Proposal
from search.proposers.propose import make_proposer, propose_new
from search.proposers.sources import Source
from search.runner.answers import Ask, Done, Train, Wait
from search.runner.driver import Driver, Executor
from search.runner.learned_from import Learned, describe_sources, learned_from, pinned_values
from search.runner.opening import driver_lock, open_driver
from search.runner.plan import Plan
from search.runner.reference_point import first_networks, reference_point, require_feasible_budgets
from search.runner.references import (
    AUTO,
    default_references,
    next_reference,
    reference_requests,
    require_buildable_references,
)
from search.runner.retime import retime
from search.runner.view import View
from search.training.pretrained import require_pretrained
from search.trials.records import COUNTED, Costs, Record, TrainingRequest, search_records
from space.architecture import Architecture
from space.feasible import why_not

LOGGER = logging.getLogger("voxnas.run")
OVER_BUDGET_PER_TRIAL = 20  # at this ratio a study ends, because nearly all of its space is over budget


@dataclass(frozen=True)
class Outcome:
    """All records after a run, why it started no more trials, and a line about what it learned from, if anything."""

    records: tuple[Record, ...]
    why: str
    learned: str = ""


def run_study(plan: Plan, *, trials: int, view: View, executor: Executor, measure_again: bool = False) -> Outcome:
    """Run or resume a study until `trials` trainings have ended, or its hours are used up.

    Interrupted trials resume first, from their last whole epoch. With `measure_again`, latencies of finished trials are
    measured again before, on this machine, and so is the hypervolume's reference point. Raises UserError if another
    driver runs the study or its file has changed.
    """
    if plan.group_warning:
        LOGGER.warning("%s", plan.group_warning)
    with driver_lock(plan):
        learned = learned_from(plan)
        driver = open_driver(plan, view, executor, any_setting=measure_again)
        with closing(driver), driver.store.heartbeat:
            require_buildable_references(plan)
            if measure_again:
                retime(plan, driver.store, driver.pricer, progress=partial(view.on_stage, "measuring latency again"))
                driver.rank_again()
            write_reference(driver, learned, again=measure_again)
            if measure_again:
                driver.store.write_retimed_by("")
            if learned:
                view.on_stage(describe_sources(plan, learned))
            repeats = [record for record in driver.store.records() if record.repeat]
            view.on_resume([*driver.search_records(), *repeats])
            driver.store.write_goal(trials)
            why = executor.run(driver, search_ask(driver, trials, learned=learned))
            driver.store.write_goal(trials, ended=why)
            learned = _weighed(driver, learned)
            return Outcome(tuple(driver.store.records()), why, describe_sources(plan, learned) if learned else "")


def write_reference(driver: Driver, learned: Sequence[Learned] = (), *, again: bool = False) -> None:
    """Write what a study keeps from its start: its sources, its references, and last the reference point.

    The latencies that were measured for the hypervolume's reference point are kept, too. With `again`, the point and
    the latencies of a study that has started are determined again.

    Raises UserError if pretrained weights are missing or no network meets the budgets.
    """
    started = driver.store.reference is not None
    if started and not again:
        return
    plan, pricer = driver.plan, driver.pricer
    require_pretrained(plan.space)
    first = first_networks(plan, pricer, progress=partial(driver.view.on_stage, "pricing the first networks"))
    require_feasible_budgets(plan, pricer, first)
    if not started:
        driver.store.write_sources(pinned_values(learned))
        driver.store.write_default_references(default_references(plan, pricer, first))
    driver.store.write_reference(
        reference_point(plan, pricer, first), timed=first.latencies() if first is not None else {}
    )


def _problem(driver: Driver, learned: Sequence[Learned]) -> Problem:
    store, sources = driver.store, tuple(each.source for each in learned)
    reference = store.reference or {}
    return problem_of(driver.plan, reference=reference, price=driver.pricer, timed=store.timed, sources=sources)


def _weighed(driver: Driver, learned: Sequence[Learned]) -> tuple[Learned, ...]:
    """Return the sources with their weights after the trainings so far, which are also written to the study."""
    if not learned:
        return ()
    from search.proposers.known_cost import source_weights

    weights = source_weights(_problem(driver, learned), _own_fold(driver.plan, driver.store.records()))
    if weights:
        driver.store.write_source_weights(weights)
        return tuple(replace(each, weight=weight) for each, weight in zip(learned, weights, strict=True))
    return tuple(learned)


def _own_fold(plan: Plan, records: Sequence[Record]) -> list[Record]:
    """Return the records that a proposer sees."""
    return [each for each in records if not each.is_outside and each.fold == plan.study.data.fold]


def search_ask(driver: Driver, trials: int, *, learned: Sequence[Learned] = ()) -> Ask:
    """Return an ask that queries the study's proposer until `trials` trainings have ended or are running.

    References come first; they don't count as trials, and the proposer doesn't see those outside the space.
    """
    plan = driver.plan
    named = plan.study.search.references
    references = reference_requests(plan, driver.store.default_references if named == AUTO else named)
    problem = _problem(driver, learned)
    proposer = make_proposer(plan.study.search.proposer, problem)

    def ask(records: Sequence[Record]) -> Train | Wait | Done:
        reference = next_reference(references, records)
        if reference is not None:
            return Train(reference)
        own = search_records(records, seed=plan.study.search.seed, fold=plan.study.data.fold)
        own += [record for record in records if record.repeat]
        why = _why_stop(own, trials, plan.study.search.hours)
        if why:
            return Done(why)
        states = Counter(record.state for record in own)
        running = states["running"]
        if running + sum(states[state] for state in COUNTED) >= trials:
            return Wait()
        proposal = propose_new(proposer, problem, _own_fold(plan, records))
        if proposal is None:
            return Wait() if running else Done("every network of the space has been tried")
        return Train(_request(plan, proposal, records))

    return ask


def _request(plan: Plan, proposal: Proposal, records: Sequence[Record]) -> TrainingRequest:
    """Return the training of a proposal; a repeat has the first free seed."""
    architecture, seed, fold = plan.space.architecture(proposal.decisions), plan.study.search.seed, plan.study.data.fold
    if proposal.repeat:
        used = {each.seed for each in records if each.architecture == architecture and each.fold == fold}
        seed = next(each for each in count(seed, plan.study.search.seeds) if each not in used)
    return TrainingRequest(architecture, seed, fold, tuple(proposal.decisions.items()), repeat=proposal.repeat)


def _why_stop(records: Sequence[Record], trials: int, hours: float | None) -> str:
    """Return why the search starts no more trials, or an empty string."""
    states = Counter(record.state for record in records)
    counted, refused = sum(states[state] for state in COUNTED), states["over budget"]
    if counted >= trials:
        return f"{trials} {'trial is' if trials == 1 else 'trials are'} done"
    spent_s = 0.0 if hours is None else sum(record.measurement.spent_s for record in records)
    if hours is not None and spent_s >= hours * 3600:
        return f"the trials took {show_seconds(spent_s)} of the {show_seconds(hours * 3600)} allowed"
    if refused >= OVER_BUDGET_PER_TRIAL * trials:
        return f"{refused} networks were over budget and {counted} trained: the budgets leave too little of the space"
    return ""


def problem_of(
    plan: Plan,
    *,
    reference: Mapping[str, float],
    price: Price,
    timed: Mapping[str, float] | None = None,
    sources: tuple[Source, ...] = (),
) -> Problem:
    """Return a study's search problem, without the latencies that only this process or another study measured."""

    def untimed(architecture: Architecture) -> Costs | None:
        costs = price(architecture)
        return replace(costs, latency=None) if costs is not None else None

    return Problem(
        plan.space,
        plan.directions,
        plan.budgets,
        reference,
        plan.study.search.seed,
        plan.space.architecture,
        lambda architecture: why_not(architecture, plan.context),
        untimed,
        timed=timed or {},
        sources=sources,
    )
