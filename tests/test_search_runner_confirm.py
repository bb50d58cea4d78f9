"""Confirmation: the trainings it needs, its conclusions about the front, and the command on a real study."""

import json
from dataclasses import replace

import pytest
from conftest import quiet_view, write_study
from forked import call_forked, kill_when, started
from test_search_cli import call

from search.analysis.confirmation import confirmed_front, interval
from search.analysis.confirmed_front import confirmed_table
from search.analysis.snapshot_reader import snapshot_of
from search.analysis.statistics.pairs import compare_pairs
from search.analysis.statistics.scores import case_differences, case_means
from search.config import UserError, load_study
from search.runner.confirm import confirm_study, confirmation_requests, to_confirm
from search.runner.local import LocalExecutor, run_study
from search.runner.plan import make_plan
from search.storage import read_records
from search.trials.records import CaseDice, Costs, Measurement, Record, search_records
from space.architecture import Architecture

DIRECTIONS = {"dice": "maximize", "memory": "minimize"}


def trial(number, width, dices, *, memory=1, seed=0, fold=0):
    cases = tuple(CaseDice(f"case{place}", (dice, None)) for place, dice in enumerate(dices))
    mean = sum(dices) / len(dices)
    measurement = Measurement("trained", costs=Costs(1, 1, memory, 1), dice=mean, cases=cases)
    architecture = Architecture.of({"channels": (width,), "encoder": "plain"})
    return Record(number, architecture, (("width", width),), seed, fold, measurement, "")


LOW = [0.60 + 0.01 * place for place in range(12)]
HIGH = [dice + 0.05 + 0.001 * place for place, dice in enumerate(LOW)]
CHANCE = [dice + (0.03 if place % 2 else -0.028) for place, dice in enumerate(LOW)]


def test_a_front_point_is_marked_unless_the_cases_show_a_significant_difference():
    front = [trial(0, 8, LOW, memory=1), trial(1, 16, HIGH, memory=2), trial(2, 24, CHANCE, memory=1)]
    again = [replace(each, number=10 + each.number + 3 * seed, seed=seed) for seed in (1, 2) for each in front]
    points = {each.record.number: each for each in confirmed_front(front, again, DIRECTIONS)}
    assert points[1].rival == 2 and points[1].significant and points[1].against.p < 0.05
    assert points[2].rival == 0 and not points[2].significant and points[2].against.p > 0.05
    assert points[1].against == compare_pairs([high - chance for high, chance in zip(HIGH, CHANCE, strict=True)])
    assert points[1].trainings == 2 and points[1].mean == pytest.approx(sum(HIGH) / 12)
    assert [each.record.number for each in confirmed_front(front, again, DIRECTIONS)][0] == 1
    table = confirmed_table("s", list(points.values()), DIRECTIONS)
    said = list(table.columns[-2].cells)
    assert said[0].startswith("above trial 2") and said[1].startswith("not significantly above trial 0")


def test_the_cheapest_point_needs_no_comparison_and_unconfirmed_points_are_skipped():
    front = [trial(0, 8, LOW, memory=1), trial(1, 16, HIGH, memory=2)]
    points = confirmed_front(front, [replace(front[0], number=5, seed=1)], DIRECTIONS)
    assert [each.record.number for each in points] == [0]
    assert points[0].rival is None and points[0].significant and points[0].low is None


def test_the_searchs_own_training_does_not_count_in_a_confirmation():
    lucky = trial(0, 8, [0.9] * 12)
    (point,) = confirmed_front([lucky], [replace(trial(7, 8, LOW), seed=1)], DIRECTIONS)
    assert point.mean == pytest.approx(sum(LOW) / 12) and point.record.measurement.dice == pytest.approx(0.9)


def test_intervals_and_paired_tests_equal_the_textbooks():
    low, high = interval([0.7, 0.8, 0.9])
    assert (low, high) == (pytest.approx(0.8 - 0.2484, abs=1e-3), 1.0)
    assert interval([0.5]) == (None, None)
    ones = [trial(0, 8, [0.5, 0.7]), trial(1, 8, [0.7, 0.7])]
    assert case_means(ones) == {"case0": pytest.approx(0.6), "case1": pytest.approx(0.7)}
    assert set(case_differences([trial(0, 8, LOW)], [trial(1, 8, LOW[:5])]).values()) == {0.0}


def test_a_point_significantly_below_its_rival_is_not_significant():
    front = [trial(0, 8, HIGH, memory=1), trial(1, 16, LOW, memory=2)]
    again = [replace(each, number=10 + each.number, seed=1) for each in front]
    below = confirmed_front(front, again, DIRECTIONS)[1]
    assert below.rival == 0 and below.against.p < 0.05 and below.against.high < 0 and not below.significant
    apart = replace(again[1], measurement=replace(again[1].measurement, cases=(CaseDice("other", (0.5, None)),)))
    (point,) = [each for each in confirmed_front(front, [again[0], apart], DIRECTIONS) if each.record.number == 1]
    assert point.against is None and not point.significant
    (cell,) = list(confirmed_table("s", [point], DIRECTIONS).columns[-2].cells)
    assert cell == "shares no case with trial 0"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    made = write_study(tmp_path_factory.mktemp("confirm"))
    plan = make_plan(load_study(made.file, overrides=["training.epochs=1"]), runs=made.runs)
    run_study(plan, trials=3, view=quiet_view())
    return made, plan


def test_confirming_trains_missing_combinations_once_and_does_not_change_the_search(finished):
    made, plan = finished
    before = snapshot_of(plan.loaded, runs=made.runs)
    with pytest.raises(UserError, match="no trial of tiny is confirmed yet; run `voxnas confirm`"):
        before.require_confirmed()
    assert confirm_study(plan, top=1, seeds=1, folds=2, view=quiet_view(), executor=LocalExecutor(plan)) == 2
    assert confirm_study(plan, top=1, seeds=1, folds=2, view=quiet_view(), executor=LocalExecutor(plan)) == 0
    assert confirm_study(plan, top=1, seeds=2, folds=2, view=quiet_view(), executor=LocalExecutor(plan)) == 2
    after = snapshot_of(plan.loaded, runs=made.runs)
    assert (after.trials, after.front()) == (before.trials, before.front())
    assert {(each.seed, each.fold) for each in after.confirmations} == {(1, 0), (1, 1), (2, 0), (2, 1)}
    for each in after.confirmations:
        assert {case.case for case in each.measurement.cases} == set(plan.folds[each.fold].validation)
    (point,) = after.confirmed
    assert point.trainings == 4 and point.low is not None and point.low <= point.mean <= point.high
    outcome = run_study(plan, trials=3, view=quiet_view())  # confirmations are no trials of the search
    assert outcome.why == "3 trials are done"


def test_the_commands_show_the_confirmed_front(finished, monkeypatch, capsys):
    made, plan = finished
    confirm_study(plan, top=1, seeds=1, folds=2, view=quiet_view(), executor=LocalExecutor(plan))
    monkeypatch.setenv("COLUMNS", "160")
    asked = ("front", made.file, "--confirmed", "--runs", made.runs, "--set", "training.epochs=1")
    shown = call(monkeypatch, capsys, *asked).out
    assert "1 point of the front, confirmed" in shown and "cheapest" in shown
    rows = json.loads(call(monkeypatch, capsys, *asked, "--json").out)["confirmed"]
    assert len(rows) == 1 and rows[0]["low"] <= rows[0]["dice"] <= rows[0]["high"] and rows[0]["significant"]


def test_top_selects_the_largest_contributions_and_too_many_folds_are_refused(finished):
    made, plan = finished
    records = read_records(plan.url, "tiny")
    everything = to_confirm(plan, records, top=None)
    assert len(to_confirm(plan, records, top=1)) == 1 and to_confirm(plan, records, top=99) == everything
    with pytest.raises(UserError, match="confirm: --folds 4: the study has only 3 folds"):
        confirmation_requests(plan, everything, records, seeds=1, folds=4)
    late = replace(plan, loaded=load_study(made.file, overrides=["search.seed=4294967290"]))
    with pytest.raises(UserError, match="confirm: --seeds 9: needs the seed 4294967299, but the largest is 4294967295"):
        confirmation_requests(late, everything, records, seeds=9, folds=1)
    with pytest.raises(UserError, match="there is nothing to confirm: no trial was trained to its end"):
        to_confirm(plan, [], top=None)
    assert search_records(records, seed=1, fold=0) == [each for each in records if (each.seed, each.fold) == (1, 0)]


def test_confirming_resumes_after_kill_9(tmp_path):
    made = write_study(tmp_path)
    plan = make_plan(load_study(made.file), runs=made.runs)
    run_study(plan, trials=1, view=quiet_view())
    command = ("confirm", made.file, "--runs", made.runs, "--seeds", 2, "--folds", 2)
    with started(*command) as first:
        kill_when(lambda: len(read_records(plan.url, "tiny")) >= 3, first)
    done = call_forked(*command)
    assert done.returncode == 0, done.stderr
    records = read_records(plan.url, "tiny")
    assert [each.state for each in records] == ["trained"] * 5
    assert len({each.identity for each in records}) == 5
