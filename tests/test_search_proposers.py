"""Optuna's samplers, local search, and the start of a study: reference point, prices, refusals."""

import json
from dataclasses import replace
from random import Random

import pytest
from conftest import STUDY, write_study

from search.config import UserError, load_study
from search.proposers.local_search import FIRST, LocalProposer
from search.proposers.optuna_samplers import FLAT, NAMES, OptunaProposer
from search.proposers.propose import ask_new
from search.runner.plan import make_plan
from search.runner.pricer import Pricer, price_table
from search.runner.reference_point import first_networks, reference_point
from search.simulate.clock import problem_of_table
from search.simulate.synthetic import synthetic_table
from search.trials.records import Measurement, Record

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
    records = some_records(14)
    ask_new(proposer, proposer.problem, records)
    axes = {axis.name for axis in proposer.axes}
    complete = [trial for trial in proposer.study.trials if trial.state.name == "COMPLETE"][:14]
    for trial, told in zip(complete, records, strict=True):
        decisions = dict(told.decisions)
        if name in FLAT:
            assert set(trial.params) == axes
        else:
            assert set(trial.params) == axes & set(decisions)
        for axis in proposer.axes:
            if axis.name in trial.params:
                assert trial.params[axis.name] == decisions.get(axis.name, axis.choices[0])


@pytest.mark.parametrize("name", FLAT)
def test_a_closed_axis_holds_its_first_choice_in_a_flat_space(name):
    proposer = OptunaProposer(problem_of_table(TABLE, seed=0), name=name)
    closed = 0
    for _ in range(12):
        decisions = proposer.propose([])
        trial = proposer.study.trials[-1]
        for axis in proposer.axes:
            closed += axis.name not in decisions
            assert trial.params[axis.name] == decisions.get(axis.name, axis.choices[0])
    assert closed


def test_known_architectures_are_answered_and_failed_or_stopped_ones_are_reported_as_such():
    proposer = OptunaProposer(problem_of_table(TABLE, seed=0), name="tpe")
    states = ("failed", "stopped", "over budget")
    records = some_records(5) + [replace(record(5 + place, place, state)) for place, state in enumerate(states)]
    proposer.propose(records)
    assert [trial.state.name for trial in proposer.study.trials[:8]] == ["COMPLETE"] * 5 + ["FAIL", "PRUNED", "PRUNED"]
    waiting = [trial for trials in proposer.pending.values() for trial in trials]
    running = [trial for trial in proposer.study.trials if trial.state.name == "RUNNING"]
    assert len(running) == len(waiting)  # every other ask was answered at once


def test_local_search_proposes_neighbours_of_the_front_and_none_twice():
    proposer, records = LocalProposer(problem_of_table(TABLE, seed=0)), some_records(FIRST + 4)
    asked = [proposer.propose(records) for _ in range(20)]
    assert len({tuple(each.items()) for each in asked}) == 20
    near = {tuple(each.items()) for told in records for each in TABLE.space.neighbours(dict(told.decisions))}
    assert all(tuple(each.items()) in near for each in asked)


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
    monkeypatch.setattr("search.proposers.first_networks.MAX_TIMING_S", float("inf"))  # whatever the machine's load
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
