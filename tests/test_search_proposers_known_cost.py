"""The known-cost proposer: expected gain compared with sampling, the surrogate's gradient, prices, pending trials."""

from dataclasses import replace
from functools import partial
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ndtri
from sklearn.gaussian_process import GaussianProcessRegressor

from search.proposers import known_cost
from search.proposers.candidates import spread_design
from search.proposers.cost_model import learn_costs
from search.proposers.evidence import extrapolate
from search.proposers.gain import expected_gains
from search.proposers.gaussian import JITTER, Process, condition, fit_scales, kernel_of
from search.proposers.kernel_terms import features, initial_scales
from search.proposers.known_cost import DESIGN, TRIALS_PER_CHOICE, KnownCostProposer
from search.proposers.surrogate import Evidence, condition_dice, fit_dice
from search.simulate.clock import problem_of_table
from search.simulate.synthetic import synthetic_table
from search.trials.epochs import Epoch
from search.trials.pareto import volume
from search.trials.records import Measurement, Record
from space.encoding import Coded


@pytest.fixture(scope="module", autouse=True)
def created_table():
    """Create the table for the first test, not when the tests are collected."""
    global TABLE, CODED
    TABLE = synthetic_table("noisy")
    CODED = Coded(TABLE.space)


def some_rows(count, seed=0):
    rng = np.random.default_rng(seed)
    rows = rng.permutation(TABLE.size)[:count]
    codes = CODED.encode([TABLE.decisions[row] for row in rows])[:, CODED.free]
    costs = np.log([[TABLE.costs[row].macs, TABLE.costs[row].memory_bytes] for row in rows])
    return codes, (costs - costs.mean(axis=0)) / costs.std(axis=0), TABLE.truth[rows]


def some_inputs(count):
    codes, costs, dice = some_rows(count)
    return features(CODED.similarities, codes, costs, noise=np.ones(count)), dice


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 3), st.integers(0, 8))
def test_the_gain_equals_the_mean_gain_of_hypervolume(seed, costs, size):
    rng = np.random.default_rng(seed)
    front = rng.random((size, 1 + costs)) * 1.3  # some beyond the reference
    candidate, mean, deviation = rng.random((1, costs)), np.log(rng.random(1)), rng.random(1) * 0.3 + 0.01
    gain = expected_gains(mean, deviation, candidate, front=front)[0]

    drawn = np.exp(mean + deviation * ndtri((np.arange(400) + 0.5) / 400))
    known = volume(front, np.ones(1 + costs))
    joined = [np.vstack([front, [[dice, *candidate[0]]]]) for dice in drawn]
    sampled = np.mean([volume(points, np.ones(1 + costs)) - known for points in joined])
    assert gain == pytest.approx(sampled, rel=0.03, abs=2e-4)


def test_a_dominated_certain_point_gains_nothing_and_a_cheaper_one_something():
    front = np.array([[0.2, 0.5, 0.5]])
    gained = expected_gains(np.log([0.3, 0.3]), np.full(2, 1e-9), np.array([[0.6, 0.6], [0.4, 0.6]]), front=front)
    assert gained[0] == pytest.approx(0.0, abs=1e-12) and gained[1] == pytest.approx(0.7 * 0.1 * 0.4)


@pytest.mark.parametrize("hints", [0, 2])
def test_the_likelihood_is_scikit_learns_and_its_slopes_match_its_values(hints):
    codes, costs, dice = some_rows(30)
    hinted = np.random.default_rng(1).standard_normal((30, hints))
    inputs = features(CODED.similarities, codes, costs, noise=np.linspace(0.5, 2.0, 30), hints=hinted)
    at = initial_scales(len(CODED.free)) + 0.1 * np.random.default_rng(0).standard_normal(len(CODED.free) + 7)
    process = Process(
        kernel_of(CODED.similarities, at, hints=hints), alpha=np.linspace(0.001, 0.1, 30), optimizer=keep_start
    )
    process.fit(inputs, (dice - dice.mean()) / dice.std())
    plain = partial(GaussianProcessRegressor.log_marginal_likelihood, process)
    value, slopes = process.log_marginal_likelihood(at, eval_gradient=True)
    assert value == pytest.approx(plain(at)) and slopes.shape == at.shape
    for number, step in enumerate(1e-5 * np.eye(len(at))):
        assert slopes[number] == pytest.approx((plain(at + step) - plain(at - step)) / 2e-5, abs=1e-4, rel=1e-4)


def keep_start(loss, start, bounds):
    """Optimise nothing."""
    return start, 0.0


def test_the_kernel_is_symmetric_and_positive_semidefinite():
    inputs, _ = some_inputs(40)
    kernel = kernel_of(CODED.similarities, initial_scales(len(CODED.free)))
    matrix = kernel(inputs)
    assert np.allclose(matrix, matrix.T) and np.linalg.eigvalsh(matrix).min() > -1e-8
    assert np.allclose(np.diag(matrix), kernel.diag(inputs))
    assert np.allclose(kernel.k1(inputs[:7], inputs), kernel.k1(inputs)[:7])
    assert np.allclose(kernel.k2(inputs), kernel.k2.level * np.eye(40)) and not kernel.k2(inputs, inputs).any()


def test_conditioning_without_the_likelihood_gives_scikit_learns_posterior():
    inputs, dice = some_inputs(40)
    scales, extra = initial_scales(len(CODED.free)), np.linspace(0.0, 0.1, 30)
    ours = condition(CODED.similarities, scales, inputs[:30], dice[:30], extra=extra)
    alpha = JITTER + (extra / ours.unit) ** 2
    theirs = GaussianProcessRegressor(kernel_of(CODED.similarities, scales), alpha=alpha, optimizer=None)
    theirs.fit(inputs[:30], (dice[:30] - ours.centre) / ours.unit)
    mean, deviation = theirs.predict(inputs, return_std=True)
    assert np.array_equal(ours.predict(inputs)[0], ours.centre + ours.unit * mean)
    assert np.array_equal(ours.predict(inputs)[1], ours.unit * deviation)


def test_the_surrogate_ranks_unseen_networks():
    inputs, dice = some_inputs(300)
    nothing = np.zeros(60)
    scales = fit_scales(CODED.similarities, inputs[:60], dice[:60], extra=nothing)
    mean, deviation = condition(CODED.similarities, scales, inputs[:60], dice[:60], extra=nothing).predict(inputs[60:])
    assert np.corrcoef(mean, dice[60:])[0, 1] > 0.85
    assert 0.8 < np.sqrt(np.mean(((mean - dice[60:]) / deviation) ** 2)) < 1.6  # it knows how far off it is


def test_noise_widens_the_posterior_and_an_exact_value_pins_it():
    inputs, dice = some_inputs(30)
    scales = initial_scales(len(CODED.free))
    exact = condition(CODED.similarities, scales, inputs, dice, extra=np.zeros(30))
    vague = condition(CODED.similarities, scales, inputs, dice, extra=np.full(30, 0.1))
    assert (vague.predict(inputs)[1] > exact.predict(inputs)[1]).all()
    assert np.abs(exact.predict(inputs)[0] - dice).mean() < 0.3 * dice.std()


def test_pending_trials_count_as_expected_and_spread_the_asks():
    codes, costs, dice = some_rows(30)
    pending = np.arange(30) >= 25
    evidence = Evidence(codes, costs, np.where(pending, 0.0, dice), np.zeros(30), pending)
    rng = np.random.default_rng(0)
    scales = fit_dice(CODED.similarities, evidence, rng=rng)
    surrogate = condition_dice(CODED.similarities, evidence, scales=scales, rng=rng)
    without = Evidence(*(each[:25] for each in (evidence.codes, evidence.log_costs, dice, evidence.extra, pending)))
    alone = condition_dice(CODED.similarities, without, scales=scales, rng=rng)
    log_loss, deviation = surrogate.predict(codes[25:], costs[25:])
    assert (deviation < alone.predict(codes[25:], costs[25:])[1]).all()
    assert (np.exp(log_loss) < 0.5).all()  # the zeros in place of unknown Dice were not read


def test_the_cost_model_estimates_its_own_error():
    rng = np.random.default_rng(1)
    rows = rng.permutation(TABLE.size)
    codes = CODED.encode([TABLE.decisions[row] for row in rows[:400]])[:, CODED.free]
    costs = np.array([[TABLE.costs[row].memory_bytes, TABLE.costs[row].latency.median_s] for row in rows[:400]])
    costs[:50, 1] = np.nan  # not timed
    model = learn_costs(CODED.similarities, codes[:120], costs[:120])
    off = np.median(np.abs(model.predict(codes[120:]) / costs[120:] - 1), axis=0)
    assert (off < 0.1).all()
    assert np.allclose(model.errors, off, atol=0.05)


def test_a_cost_that_was_never_measured_is_not_predicted():
    codes = CODED.encode(TABLE.decisions[:5])[:, CODED.free]
    model = learn_costs(CODED.similarities, codes, np.array([[1.0, np.nan]] * 5))
    assert np.isnan(model.predict(codes)[:, 1]).all() and np.isnan(model.errors[1])


def test_the_initial_design_starts_with_both_ends():
    levels, codes = np.array([3.0, 1.0, 2.0, 5.0, 4.0]), np.arange(5)[:, None]
    chosen = [spread_design(levels, codes, taken=codes[:0], count=count) for count in range(2)]
    assert chosen == [1, 3]


def test_stopped_curves_are_extrapolated_from_finished_ones():
    ages = np.arange(1, 13)
    curves = [0.8 - gap * np.exp(-ages / 4) for gap in np.linspace(0.2, 0.5, 9)]  # who climbs more has more to come
    expected, deviation = extrapolate(curves[1:], [curves[0][:6], np.array([0.4])])
    assert expected[0] == pytest.approx(curves[0][-1], abs=0.005) and deviation[0] < 0.02
    assert 0.4 < expected[1] < 0.8
    assert extrapolate(curves[:3], [curves[3][:6]])[0][0] < curves[3][-1]  # too few for a line: their mean
    assert extrapolate([], [np.array([0.4])])[0][0] == pytest.approx(0.4)


def test_each_stopped_curve_is_extrapolated_as_if_it_were_the_only_one():
    rng = np.random.default_rng(0)
    curves = [np.sort(rng.random(rng.integers(2, 20))) for _ in range(30)]
    stopped = [np.concatenate([[-1.0] * (each % 3), np.sort(rng.random(1 + each % 7))]) for each in range(25)]
    alone = [extrapolate(curves, [each]) for each in stopped]
    for together, single in zip(extrapolate(curves, stopped), zip(*alone, strict=True), strict=True):
        assert together.tolist() == np.concatenate(single).tolist()


def record(number, row, state="trained", *, epochs=()):
    dice = float(TABLE.truth[row]) if state == "trained" else None
    measurement = Measurement(state, costs=TABLE.costs[row], dice=dice, epochs=epochs)
    return Record(number, TABLE.architectures[row], tuple(TABLE.decisions[row].items()), 0, 0, measurement, "")


def test_the_first_proposals_are_at_both_ends_of_the_costs():
    proposer, problem = KnownCostProposer(problem_of_table(TABLE, seed=0)), problem_of_table(TABLE, seed=0)
    records = []
    for number in range(2):
        row = TABLE.row_of[problem.architecture(next(proposer.proposals(records)).decisions)]
        records.append(record(number, row, "running"))
    memory = np.array([costs.memory_bytes for costs in TABLE.costs])
    rank = [float((memory < each.measurement.costs.memory_bytes).mean()) for each in records]
    assert rank[0] < 0.05 and rank[1] > 0.95


def test_nothing_over_budget_or_known_is_proposed():
    memory = float(np.quantile([costs.memory_bytes for costs in TABLE.costs], 0.3))
    problem = replace(problem_of_table(TABLE, seed=1), budgets={"memory": memory})
    proposer, records = KnownCostProposer(problem), []
    for number in range(DESIGN + 8):
        proposal = next(proposer.proposals(records))
        row = TABLE.row_of[problem.architecture(proposal.decisions)]
        assert TABLE.costs[row].memory_bytes <= memory
        assert proposal.repeat == (TABLE.architectures[row] in {each.architecture for each in records})
        records.append(record(number, row))


@pytest.mark.parametrize(("per_choice", "several"), [(known_cost.RECORDS_PER_CHOICE, 5), (25, 8), (1, 25)])
def test_with_many_pending_trials_several_different_ones_are_chosen_at_once(per_choice, several, monkeypatch):
    monkeypatch.setattr(known_cost, "RECORDS_PER_CHOICE", per_choice)  # 76 records count as many
    proposer, problem = KnownCostProposer(problem_of_table(TABLE, seed=0)), problem_of_table(TABLE, seed=0)
    rows = Random(1).sample(range(TABLE.size), 12 + 4 * TRIALS_PER_CHOICE)
    records = [record(number, row, "trained" if number < 12 else "running") for number, row in enumerate(rows)]
    chosen, repeated = [], []
    for number in range(several):
        proposal = next(proposer.proposals(records))
        row = TABLE.row_of[problem.architecture(proposal.decisions)]
        (repeated if proposal.repeat else chosen).append(row)
        assert len(proposer.chosen) == several - 1 - number
        records.append(record(len(records), row, "running"))
    assert len({*rows, *chosen}) == len(rows) + len(chosen) and len(set(repeated)) == len(repeated)
    assert set(repeated) <= set(rows[:12]) and len(chosen) > 1
    volumes = [volume(TABLE.losses[[*rows, *some]], TABLE.worst) for some in (chosen[:1], chosen)]
    assert volumes[1] > volumes[0]  # one is worth something beside the others


def test_stopped_records_are_used_and_records_without_costs_are_ignored():
    rows = Random(0).sample(range(TABLE.size), 14)
    curve = tuple(Epoch(number + 1, 0.0, 0.1 * number, 0.0) for number in range(3))
    records = [record(number, row) for number, row in enumerate(rows[:10])]
    records += [record(10 + number, row, "stopped", epochs=curve) for number, row in enumerate(rows[10:13])]
    bare = record(13, rows[13], "running")
    records.append(replace(bare, measurement=Measurement("running")))
    proposal = next(KnownCostProposer(problem_of_table(TABLE, seed=0)).proposals(records))
    assert (TABLE.row_of[TABLE.architecture(proposal.decisions)] in rows[:10]) == proposal.repeat


def test_dice_need_not_be_an_objective():
    problem = replace(problem_of_table(TABLE, seed=0), directions={"memory": "minimize", "latency": "minimize"})
    records = [record(number, row) for number, row in enumerate(range(0, 200, 20))]
    assert TABLE.architecture(next(KnownCostProposer(problem).proposals(records)).decisions) in TABLE.row_of
