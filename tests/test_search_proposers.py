"""Optuna's samplers, local search, and the start of a study: reference point, prices, refusals."""

import json
from dataclasses import replace
from itertools import islice
from random import Random

import numpy as np
import pytest
from conftest import STUDY, write_study

from search.config import UserError, load_study
from search.config.objectives import COSTS
from search.proposers.local_search import FIRST, LocalProposer
from search.proposers.optuna_samplers import FLAT, NAMES, POPULATION, OptunaProposer
from search.proposers.prices import Prices
from search.proposers.propose import PROPOSERS, ask_new, make_proposer
from search.runner.plan import make_plan
from search.runner.pricer import Pricer, price_table
from search.runner.reference_point import first_networks, reference_point
from search.simulate.clock import problem_of_table
from search.simulate.synthetic import synthetic_table
from search.trials.records import Measurement, Record
from space.encoding import Coded


@pytest.fixture(scope="module", autouse=True)
def created_table():
    """Create the table for the first test, not when the tests are collected."""
    global TABLE
    TABLE = synthetic_table("places")  # levels open and close places


def record(number, row, state="trained"):
    dice = float(TABLE.truth[row]) if state == "trained" else None
    measurement = Measurement(state, costs=TABLE.costs[row], dice=dice)
    return Record(number, TABLE.architectures[row], tuple(TABLE.decisions[row].items()), 0, 0, measurement, "")


def some_records(count, state="trained"):
    return [record(number, row, state) for number, row in enumerate(Random(1).sample(range(TABLE.size), count))]


@pytest.mark.parametrize("name", NAMES)
def test_samplers_see_every_record_as_a_trial_of_one_search_space(name):
    proposer = OptunaProposer(problem_of_table(TABLE, seed=0), name=name)
    records, axes = some_records(14), {axis.name for axis in proposer.axes}
    trials = proposer.study_of(records).trials
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * 14
    for trial, told in zip(trials, records, strict=True):
        decisions = dict(told.decisions)
        if name in FLAT:
            assert set(trial.params) == axes
        else:
            assert set(trial.params) == axes & set(decisions)
        for axis in proposer.axes:
            if axis.name in trial.params:
                assert trial.params[axis.name] == decisions.get(axis.name, axis.choices[0])


@pytest.mark.parametrize("name", FLAT)
def test_a_closed_axis_holds_its_first_choice_in_a_flat_space(name, monkeypatch):
    proposer, studies = OptunaProposer(problem_of_table(TABLE, seed=0), name=name), []
    study_of = proposer.study_of
    monkeypatch.setattr(proposer, "study_of", lambda records: studies.append(study_of(records)) or studies[-1])
    closed = 0
    for decisions in (each.decisions for each in islice(proposer.proposals([]), 12)):
        trial = studies[0].trials[-1]
        for axis in proposer.axes:
            closed += axis.name not in decisions
            assert trial.params[axis.name] == decisions.get(axis.name, axis.choices[0])
    assert closed


def test_known_architectures_are_answered_and_failed_or_stopped_ones_are_reported_as_such():
    proposer = OptunaProposer(problem_of_table(TABLE, seed=0), name="tpe")
    states = ("failed", "stopped", "over budget", "running")
    records = some_records(5) + [replace(record(5 + place, place, state)) for place, state in enumerate(states)]
    found = [trial.state.name for trial in proposer.study_of(records).trials]
    assert found == ["COMPLETE"] * 5 + ["FAIL", "PRUNED", "PRUNED", "RUNNING"]


@pytest.mark.parametrize("name", ["nsga2", "nsga3"])
def test_generations_survive_a_restart(name):
    records = some_records(2 * POPULATION + 3)
    study = OptunaProposer(problem_of_table(TABLE, seed=0), name=name).study_of(records)
    trial = study.ask()
    assert study.sampler.get_trial_generation(study, study.trials[trial.number]) == 2
    assert len(study.sampler.get_population(study, 1)) == POPULATION


def test_local_search_proposes_neighbours_of_the_front_and_none_twice():
    proposer, records = LocalProposer(problem_of_table(TABLE, seed=0)), some_records(FIRST + 4)
    asked = [each.decisions for each in islice(proposer.proposals(records), 20)]
    assert len({tuple(each.items()) for each in asked}) == 20
    near = {tuple(each.items()) for told in records for each in TABLE.space.neighbours(dict(told.decisions))}
    assert all(tuple(each.items()) in near for each in asked)


RESTARTED = {"gp": 12, "known-cost": 16}  # trials; these two are slow
RESTARTS = [
    pytest.param(table, name, marks=pytest.mark.long if (table, name) == ("noisy", "gp") else ())
    for table in ("places", "noisy")
    for name in PROPOSERS
]


@pytest.mark.parametrize(("table", "name"), RESTARTS)
def test_a_study_that_restarts_before_every_trial_equals_an_undisturbed_one(table, name):
    table = synthetic_table(table)
    problem = problem_of_table(table, seed=3)
    proposer, records = make_proposer(name, problem), []
    for number in range(RESTARTED.get(name, POPULATION + 6)):
        proposal, _ = ask_new(proposer, problem, records)
        again, _ = ask_new(make_proposer(name, problem), problem, records)
        assert proposal == again, number
        decisions = proposal.decisions
        row = table.row_of[problem.architecture(decisions)]
        seed = 3 + sum(each.architecture == table.architectures[row] for each in records)
        measurement = Measurement("trained", costs=table.costs[row], dice=float(table.curve(row, seed)[-1]))
        records.append(Record(number, table.architectures[row], tuple(decisions.items()), seed, 0, measurement, ""))


def test_known_cost_does_not_read_latencies_that_no_record_holds():
    def untimed(architecture):
        return replace(TABLE.costs[TABLE.row_of[architecture]], latency=None)

    problem = replace(problem_of_table(TABLE, seed=0), price=untimed, timed={})
    prices = Prices(problem, Coded(TABLE.space))
    records = some_records(3)
    rows = dict(enumerate(prices.coded.encode([dict(each.decisions) for each in records])))
    prices.take_in(records[:2], rows)
    known = [prices.of(each.architecture)[COSTS.index("latency")] for each in records]
    assert known[:2] == [each.measurement.costs.latency.median_s for each in records[:2]] and np.isnan(known[2])


def plan_of(made, *overrides):
    return make_plan(load_study(made.file, overrides=overrides), runs=made.runs)


def pricer_of(plan):
    plan.folder.mkdir(parents=True, exist_ok=True)
    return Pricer(plan, "cpu", price_table(plan, device="cpu", threads=1))


def test_the_reference_point_is_the_budget_or_the_most_expensive_random_network(tmp_path):
    made = write_study(tmp_path, STUDY.replace("latency: {budget: 60 s}", "latency: {budget: 60 s}, macs: minimize"))
    plan = plan_of(made)
    pricer = pricer_of(plan)
    point = reference_point(plan, pricer, first_networks(plan, pricer))
    everything = [pricer(plan.space.architecture(decisions)) for decisions in plan.space.enumerate()]
    assert point["dice"] == 0.0 and point["latency"] == 60.0
    for name in ("memory", "macs"):
        assert point[name] == 1.2 * max(costs.of(name) for costs in everything if costs)
    again = pricer_of(plan)
    assert reference_point(plan, again, first_networks(plan, again)) == point


def test_a_latency_reference_is_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "search.proposers.first_networks.MAX_TIMING_S", float("inf")
    )  # independent of the machine's load
    plan = plan_of(write_study(tmp_path, STUDY.replace("latency: {budget: 60 s}", "latency: minimize")))
    pricer = pricer_of(plan)
    point = reference_point(plan, pricer, first_networks(plan, pricer))
    measured = [costs.latency.median_s for costs in pricer.known.values() if costs and costs.latency]
    assert point["latency"] == 1.2 * max(measured) and len(measured) >= 8


def test_on_a_slow_machine_only_the_ends_and_the_middle_are_timed_before_the_first_trial(tmp_path, monkeypatch):
    monkeypatch.setattr("search.proposers.first_networks.MAX_TIMING_S", 0.0)
    plan = plan_of(write_study(tmp_path, STUDY.replace("latency: {budget: 60 s}", "latency: minimize")))
    pricer, seen = pricer_of(plan), []
    first = first_networks(plan, pricer, progress=lambda done, total: seen.append((done, total)))
    timed = sorted(costs.macs for costs in first.costs if costs.latency)
    macs = sorted(costs.macs for costs in first.costs)
    assert len(timed) == 3 and timed[0] == macs[0] and timed[-1] == macs[-1]
    assert [done for done, _ in seen] == [*range(1, len(macs) + 4), len(macs) + 8] and seen[-1] == (len(macs) + 8,) * 2
    assert reference_point(plan, pricer, first)["latency"] >= 1.2 * max(
        costs.latency.median_s for costs in first.costs if costs.latency
    )


def test_a_space_with_nothing_to_choose_is_refused(tmp_path):
    made = write_study(tmp_path)
    axes = [axis for axis in plan_of(made).space.axes if len(axis.choices) > 1]
    fixed = ", ".join(f"{json.dumps(axis.name)}: {json.dumps(axis.choices[0])}" for axis in axes)
    only = STUDY.replace("  choices: {width: [2, 4], repeats: [1, 2], attention@bottleneck: [none, isa]}\n", "")
    made.file.write_text(only.replace("attention: none", f"attention: none, {fixed}"))
    with pytest.raises(UserError, match="space: `fix` leaves nothing to choose, so no objective can differ"):
        plan_of(made)
