"""The front of expected Dice: estimates by trial, probabilities, and the optimism of what was measured."""

import numpy as np
import pytest

from search.analysis.expected import _nearest, estimate
from search.proposers.observations import FEWEST, training_of
from search.simulate.noise import with_noise
from search.simulate.synthetic import synthetic_table
from search.trials.pareto import near_front, non_dominated
from search.trials.records import Costs, Measurement, Record
from space.architecture import Architecture

DIRECTIONS = {"dice": "maximize", "memory": "minimize"}


@pytest.fixture(scope="module", autouse=True)
def created_table():
    """Create the table for the first test, not when the tests are collected."""
    global TABLE
    TABLE = with_noise(synthetic_table("additive"), 0.02)


def training(row, seed):
    measurement = Measurement("trained", costs=TABLE.costs[row], dice=float(TABLE.curve(row, seed)[-1]))
    return training_of(
        Record(0, TABLE.architectures[row], tuple(TABLE.decisions[row].items()), seed, 0, measurement, "")
    )


def trainings(count, repeats):
    rows = np.random.default_rng(0).permutation(TABLE.size)[:count].tolist()
    trials = [training(row, 0) for row in rows]
    memory = np.array([TABLE.costs[row].memory_bytes for row in rows], dtype=float)
    losses = np.column_stack([[1 - each.dice for each in trials], memory])
    return trials, [training(row, 1) for row in rows[:repeats]], losses, TABLE.truth[rows]


def test_estimates_shrink_the_measured_front_and_tell_its_optimism():
    trials, repeats, losses, truth = trainings(60, 20)
    found = estimate(trials, repeats, losses, dice_column=0)
    measured = 1 - losses[:, 0]
    front = non_dominated(losses)
    assert found.repeats == 20 and 0.012 < found.noise < 0.03
    assert (found.low <= found.dice).all() and (found.dice <= found.high).all()
    assert found.optimism == pytest.approx((measured - found.dice)[front].mean()) and found.optimism > 0
    assert abs((found.dice - truth)[front].mean()) < abs((measured - truth)[front].mean())
    assert "the standard deviation of one training is 0.0" in found.describe() and "20 repeats" in found.describe()
    assert found.shown_noise == f"{found.noise:.4f} Dice (from 20 repeats)"


def test_without_repeats_the_noise_is_said_to_be_assumed():
    trials, _, losses, _ = trainings(20, 0)
    found = estimate(trials, [], losses, dice_column=0)
    assert found.repeats == 0 and found.shown_noise.endswith(" Dice (assumed: no network was trained twice)")
    assert "(assumed, as in long public trainings, since no network was trained twice" in found.describe()


def test_the_probability_of_being_on_the_front_is_high_on_it_and_sums_to_its_size():
    trials, repeats, losses, _ = trainings(60, 20)
    found = estimate(trials, repeats, losses, dice_column=0)
    expected = losses.copy()
    expected[:, 0] = 1 - found.dice
    front = non_dominated(expected)
    assert ((found.probability >= 0) & (found.probability <= 1)).all()
    assert found.probability[front].mean() > 3 * found.probability[~front].mean()
    cheapest = int(np.argmin(losses[:, 1]))
    assert found.probability[cheapest] == 1.0


def test_few_trained_networks_and_untrained_trials_have_no_estimate():
    trials, repeats, losses, _ = trainings(FEWEST + 3, 2)
    losses[:3] = np.nan
    assert estimate(trials, repeats, losses, dice_column=0) is not None
    assert np.isnan(estimate(trials, repeats, losses, dice_column=0).dice[:3]).all()
    losses[:4] = np.nan
    assert estimate(trials, [], losses, dice_column=0) is None


def test_of_many_networks_those_nearest_to_the_front_are_kept():
    _, _, losses, _ = trainings(50, 0)
    kept = _nearest(losses, 0, 20)
    assert len(kept) == 20 and set(np.flatnonzero(non_dominated(losses))) <= set(kept.tolist())
    assert (_nearest(losses, 0, 50) == np.arange(50)).all()


def record(number, dice, memory):
    measurement = Measurement("trained", costs=Costs(1, 1, memory, memory), dice=dice)
    return Record(number, Architecture.of({"width": number}), (), 0, 0, measurement, "")


def test_weights_are_kept_of_networks_that_noise_may_keep_off_the_front():
    records = [record(0, 0.80, 100), record(1, 0.78, 150), record(2, 0.70, 150), record(3, 0.82, 200)]
    assert [each.number for each in near_front(records, DIRECTIONS, margin=0.03)] == [0, 1, 3]
    assert [each.number for each in near_front(records, DIRECTIONS, margin=0.0)] == [0, 3]
    assert near_front([], DIRECTIONS, margin=0.03) == []
