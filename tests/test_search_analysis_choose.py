"""Which trial an export selects."""

from __future__ import annotations

import pytest

from search.analysis.choose import choose
from search.config import UserError
from search.trials.records import Costs, Latency, Measurement, Record
from space.architecture import Architecture

DIRECTIONS = {"dice": "maximize", "memory": "minimize"}
ARCHITECTURE = Architecture.of({"channels": (8, 16), "encoder": "plain"})


def record(number: int, dice: float | None, memory: int, *, state="trained", reason="", device="cpu"):
    costs = Costs(10, 20, memory, memory, Latency(0.1, 0.0, 5, True, device, 1, "float32"))
    return Record(number, ARCHITECTURE, (), 0, 0, Measurement(state, reason, costs, dice), "2026-01-01T00:00:00+00:00")


RECORDS = [
    record(0, 0.50, 100),
    record(1, 0.80, 200),
    record(2, 0.85, 1000),
    record(3, 0.70, 300),
    record(4, None, 9000, state="over budget", reason="memory 9 GiB is over the budget of 1 GiB"),
    record(5, None, 100, state="running"),
    record(6, 0.80, 200),
]


def test_an_expected_dice_counts_in_place_of_a_lucky_one():
    records = [record(0, 0.86, 200), record(1, 0.85, 200), record(2, 0.60, 100)]
    expected = {0: 0.83, 1: 0.84, 2: 0.61}
    assert choose("best", records, DIRECTIONS).record.number == 0
    choice = choose("best", records, DIRECTIONS, expected=expected)
    assert choice.record is records[1]
    assert "the best of a front of 2 networks: the highest Dice, 0.8400" in choice.why
    assert choice.why.endswith("Dice is the expected value over trainings; this training measured 0.8500")
    assert choose("cheapest:dice>=0.605", records, DIRECTIONS, expected=expected).record.number == 2
    with pytest.raises(UserError, match="has a Dice of at least 0.845; the highest is 0.8400"):
        choose("cheapest:dice>=0.845", records, DIRECTIONS, expected=expected)


@pytest.mark.parametrize(
    ("pick", "number", "why"),
    [
        ("knee", 1, "the knee of a front of 3 networks: closest to the best Dice and training memory c"),
        ("best", 2, "the best of a front of 3 networks: the highest Dice, 0.8500"),
        ("cheapest:dice>=0.75", 1, "the cheapest of 2 with a Dice of at least 0.75 on a front of 3 networks: train"),
        ("cheapest:dice>=0.4", 0, "training memory 100 B, Dice 0.5000"),
        ("under:memory=0.5KB", 1, "the best of 2 with training memory up to 500 B on a front of 3 networks: Dice 0.8"),
        ("under:memory=1GiB,latency=1s", 2, "with training memory up to 1.0 GiB and latency up to 1"),
        ("0", 0, "selected by number; on the front of 3 networks"),
        ("3", 3, "selected by number; not on the front: dominated by trial 1 in Dice and training memory"),
    ],
)
def test_a_pick_selects_a_trial_and_gives_the_reason(pick, number, why):
    choice = choose(pick, RECORDS, DIRECTIONS)
    assert choice.record.number == number
    assert choice.why.startswith(f"trial {number}, ") and why in choice.why


def test_without_dice_best_means_best_in_the_first_objective():
    choice = choose("best", RECORDS[:4], {"memory": "minimize"})
    assert choice.record.number == 0
    assert "the best of a front of 1 network: the lowest training memory, 100 B" in choice.why


def test_a_twin_of_a_network_on_the_front_is_reported():
    twins = [RECORDS[1], RECORDS[6]]
    reasons = {choose(str(twin.number), twins, DIRECTIONS).why.partition("; ")[2] for twin in twins}
    assert reasons == {"on the front of 1 network", "equal to a network on the front"}


def test_a_number_works_for_a_trial_timed_on_another_device_than_most():
    mixed = [record(0, 0.5, 100), record(1, 0.6, 90, device="cuda:0"), record(2, 0.7, 110)]
    ways = {"dice": "maximize", "latency": "minimize"}
    choice = choose("1", mixed, ways)
    assert choice.record.number == 1 and not choice.neighbours
    assert "not comparable with the front, whose latencies belong to cpu" in choice.why
    assert choose("best", mixed, ways).record.number == 2


@pytest.mark.parametrize(
    ("pick", "message"),
    [
        ("kne", r"'kne' is neither a trial number nor a rule; did you mean 'knee'\? \(allowed: knee, b"),
        ("cheapest:dice>=0.9", "no network on the front has a Dice of at least 0.9; the highest is 0.8500"),
        ("cheapest:dice>0.9", "'cheapest:dice>0.9' doesn't have the form cheapest:dice>=0.85"),
        ("cheapest", "'cheapest' is neither a trial number nor a rule.*cheapest:dice>=0.85"),
        ("under:memory=10B", "no network on the front has training memory up to 10 B"),
        ("under:memory=much,dice=3", "--pick: memory: 'much' is not a size.*\n.*'dice=3' is not a limit such as"),
        ("-1", "--pick: '-1' is neither a trial number nor a rule"),
        ("99", "--pick: there is no trial 99; the study has trials 0 to 6"),
        ("4", r"--pick: trial 4 has no trained network: it is over budget \(memory 9 GiB is over the budget"),
        ("5", "--pick: trial 5 has no trained network: it is running"),
    ],
)
def test_a_pick_that_matches_no_trained_network_is_refused(pick, message):
    with pytest.raises(UserError, match=message):
        choose(pick, RECORDS, DIRECTIONS)


def test_retrain_and_ensemble_exclude_each_other(tmp_path):
    from search.cli.verbs.deploying import export

    with pytest.raises(UserError, match="choose one of --retrain full .one network. and --ensemble folds"):
        export(tmp_path / "no.yaml", out=tmp_path / "out", retrain="full", ensemble="folds")


def test_an_empty_study_has_nothing_to_export():
    with pytest.raises(UserError, match="the study has no trials yet"):
        choose("0", [], DIRECTIONS)
    with pytest.raises(UserError, match="the front is empty"):
        choose("knee", [], DIRECTIONS)


def test_the_neighbours_on_the_front_are_reported_with_their_objectives():
    assert choose("1", RECORDS, DIRECTIONS).neighbours == (
        "trial 2 would give Dice 0.8500 (+0.0500), training memory 1000 B (x 5.00)",
        "trial 0 would give Dice 0.5000 (-0.3000), training memory 100 B (x 0.50)",
    )
    assert choose("3", RECORDS, DIRECTIONS).neighbours == ()
