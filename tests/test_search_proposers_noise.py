"""Noise of trainings: its estimate, the worth of a repeat, and the expected Dice of trained networks."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import ndtri

from search.proposers.expected import expect_dice
from search.proposers.gain import gains, repeat_gains
from search.proposers.known_cost import TRAININGS_PER_REPEAT, KnownCostProposer
from search.proposers.observations import FEWEST, training_of
from search.proposers.propose import ask_new
from search.proposers.surrogate import Evidence, Foreseen, condition_dice, fit_dice
from search.simulate.clock import problem_of_table
from search.simulate.noise import with_noise
from search.simulate.synthetic import synthetic_table
from search.trials.pareto import volume
from search.trials.records import Measurement, Record
from space.encoding import Coded

NOISE = 0.0078


@pytest.fixture(scope="module", autouse=True)
def created_table():
    """Create the table for the first test, not when the tests are collected."""
    global TABLE, CODED
    TABLE = synthetic_table("additive")
    CODED = Coded(TABLE.space)


def record(number, row, seed, table):
    measurement = Measurement("trained", costs=table.costs[row], dice=float(table.curve(row, seed)[-1]))
    return Record(number, table.architectures[row], tuple(table.decisions[row].items()), seed, 0, measurement, "")


def trained(table, *, networks, repeats=0, seed=0):
    rows = np.random.default_rng(seed).permutation(table.size)[:networks]
    rows = [*rows.tolist(), *rows[:repeats].tolist()]
    return [record(number, row, number // networks, table) for number, row in enumerate(rows)]


def noise_of(records):
    trainings = [training_of(each) for each in records]
    return expect_dice(trainings, coded=CODED).noise


@pytest.mark.parametrize("noise", [0.004, 0.0078, 0.02])
def test_the_noise_is_estimated_from_repeats(noise):
    found = [noise_of(trained(with_noise(TABLE, noise), networks=40, repeats=20, seed=seed)) for seed in range(5)]
    assert 0.75 * noise < np.median(found) < 1.3 * noise


def test_a_badly_fitting_kernel_is_not_taken_for_noise():
    trees = with_noise(synthetic_table("trees"), NOISE)
    coded = Coded(trees.space)
    for seed in (1, 4):
        trainings = [training_of(each) for each in trained(trees, networks=40, repeats=5, seed=seed)]
        assert expect_dice(trainings, coded=coded).noise < 2 * NOISE


def test_exact_repeats_are_recognised_and_then_no_repeat_is_due():
    exact = with_noise(TABLE, 0.0)
    assert noise_of(trained(exact, networks=20)) > 1e-3
    records = trained(exact, networks=2 * TRAININGS_PER_REPEAT, repeats=1)
    assert noise_of(records) < 1e-4
    proposal, _ = ask_new(KnownCostProposer(problem_of_table(exact, seed=0)), problem_of_table(exact, seed=0), records)
    assert not proposal.repeat


def test_a_repeat_is_due_where_the_noise_is_unknown_and_never_of_a_network_in_training():
    noisy = with_noise(TABLE, NOISE)
    problem = problem_of_table(noisy, seed=0)
    records = trained(noisy, networks=3 * TRAININGS_PER_REPEAT)
    repeated = set()
    for _ in range(3):
        proposal, _ = ask_new(KnownCostProposer(problem), problem, records)
        assert proposal.repeat
        row = noisy.row_of[problem.architecture(proposal.decisions)]
        assert row not in repeated
        repeated.add(row)
        running = replace(
            record(len(records), row, 1, noisy), measurement=Measurement("running", costs=TABLE.costs[row])
        )
        records.append(running)


def hypervolume(points):
    losses = points.copy()
    losses[:, 0] = np.exp(losses[:, 0])
    return volume(losses, np.ones(points.shape[1]))


@pytest.mark.parametrize("seed", range(8))
def test_the_worth_of_a_repeat_is_the_mean_gain_of_the_fronts_hypervolume(seed):
    rng = np.random.default_rng(seed)
    front = np.column_stack([np.log(rng.uniform(0.1, 0.5, 6)), rng.random((6, 2))])
    learned = rng.uniform(0.02, 0.3)
    mean = front[:1, 0] - 0.5 * learned**2  # the expected loss stays: after a training it is only better known
    foreseen = Foreseen(front[:1, 0], mean, np.array([learned]))
    found = repeat_gains(foreseen, objectives=front[:1, 1:], front=front, worst_dice=0.0)[0]
    drawn = mean + learned * ndtri((np.arange(2000) + 0.5) / 2000)
    after = [hypervolume(np.vstack([[each, *front[0, 1:]], front[1:]])) for each in drawn]
    assert found == pytest.approx(max(0.0, np.mean(after) - hypervolume(front)), rel=0.03, abs=2e-5)


def test_noise_makes_a_training_worth_less():
    noisy, records = with_noise(TABLE, NOISE), trained(with_noise(TABLE, NOISE), networks=30)
    rows = CODED.encode([dict(each.decisions) for each in records])[:, CODED.free]
    log_costs = np.log([[each.measurement.costs.macs] for each in records])
    dice = np.array([each.measurement.dice for each in records])
    evidence = Evidence(rows, log_costs, dice, np.zeros(30), np.zeros(30, dtype=bool))
    rng = np.random.default_rng(0)
    scales = fit_dice(CODED.similarities, evidence, rng=rng)
    others = CODED.encode(noisy.decisions[:200])[:, CODED.free]
    costs = np.log([[each.macs] for each in noisy.costs[:200]])
    worth = []
    for noise in (1e-4, 0.05):
        level = scales.copy()
        level[-1] = np.log((noise / 0.18 / np.log(1 - dice).std()) ** 2)
        surrogate = condition_dice(CODED.similarities, evidence, scales=level, rng=rng)
        assert surrogate.noise == pytest.approx(noise, rel=0.3)
        foreseen = surrogate.foresee(others, costs)
        assert (foreseen.learned < surrogate.predict(others, costs)[1] + 1e-12).all()
        shares = np.exp(costs) / np.exp(costs).max()
        front = np.array([[float(np.log(0.2)), 0.5]])
        worth.append(gains(foreseen, objectives=shares, front=front, worst_dice=0.0).sum())
    assert worth[1] < worth[0]


def test_expected_dice_is_nearer_to_the_truth_than_measured_dice_and_not_optimistic_at_the_top():
    better, optimism, covered = [], [], []
    for seed in range(6):
        noisy = with_noise(TABLE, NOISE)
        records = trained(noisy, networks=40, repeats=5, seed=seed)
        found = expect_dice([training_of(each) for each in records], coded=CODED)
        truth = np.array([TABLE.truth[TABLE.row_of[each.architecture]] for each in records[:40]])
        better.append(np.abs(found.dice - truth).mean() / np.abs(found.measured - truth).mean())
        top = np.argsort(-found.dice)[:5], np.argsort(-found.measured)[:5]
        optimism.append([(found.dice - truth)[top[0]].mean(), (found.measured - truth)[top[1]].mean()])
        covered.append(((found.low < truth) & (truth < found.high)).mean())
    assert np.median(better) < 0.99
    assert np.mean(optimism, axis=0)[0] < 0.5 * np.mean(optimism, axis=0)[1]
    assert np.mean(covered) > 0.8


def test_without_a_space_the_axes_are_those_of_the_decisions():
    trainings = [training_of(each) for each in trained(with_noise(TABLE, NOISE), networks=30, repeats=4)]
    with_space, without = expect_dice(trainings, coded=CODED), expect_dice(trainings)
    assert np.corrcoef(with_space.dice, without.dice)[0, 1] > 0.95
    assert expect_dice(trainings[: FEWEST - 1]) is None
