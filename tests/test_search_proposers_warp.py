"""The warp of log Dice losses, and what it is for: failed networks don't hide the noise of the good ones."""

from dataclasses import replace

import numpy as np
import pytest
from test_search_proposers_noise import NOISE, trained

from search.proposers.expected import expect_dice
from search.proposers.observations import training_of
from search.proposers.warp import MOST_SKEWED, NO_WARP, Warp, skewness, warp_of
from search.simulate.noise import with_noise
from search.simulate.synthetic import synthetic_table
from space.encoding import Coded


@pytest.mark.parametrize("warp", [NO_WARP, Warp(-2.0, 0.3), Warp(-0.1, 1e-3)])
def test_a_warp_is_undone_and_keeps_the_order(warp):
    log_loss = np.linspace(-2.0 if warp.lowest < -1 else -0.1, 0.0, 50)
    values = warp.compress(log_loss)
    np.testing.assert_allclose(warp.expand(values), log_loss, atol=1e-9)
    assert (np.diff(values) > 0).all()
    steps = np.diff(values) / np.diff(log_loss)
    middle = 0.5 * (log_loss[1:] + log_loss[:-1])
    np.testing.assert_allclose(steps[1:], warp.slope(middle)[1:], rtol=0.1)


def test_no_expected_loss_exceeds_one_however_far_a_value_is():
    assert (Warp(-2.0, 0.01).expand(np.array([-9.0, 0.0, 1e6])) <= 0.0).all()


@pytest.mark.parametrize("log_loss", [[-1.0], [-1.0] * 9, [-2.0, -1.9, 0.0], np.linspace(-2.0, 0.0, 20)])
def test_few_equal_or_symmetric_losses_are_left_alone(log_loss):
    assert warp_of(np.array(log_loss)) == NO_WARP


@pytest.mark.parametrize("failed", [1, 4, 12])
def test_losses_are_compressed_until_they_are_hardly_skewed(failed):
    log_loss = np.concatenate([np.linspace(-1.7, -1.5, 30), np.linspace(-0.5, -0.1, failed)])
    found = warp_of(log_loss)
    if skewness(log_loss) <= MOST_SKEWED:
        assert found == NO_WARP
    else:
        assert skewness(found.compress(log_loss)) == pytest.approx(MOST_SKEWED, abs=0.01)


def test_failed_networks_do_not_make_lucky_trainings_believed():
    table = synthetic_table("additive")
    optimism = []
    for seed in range(6):
        records = trained(with_noise(table, NOISE), networks=40, seed=seed)
        order = sorted(records, key=lambda each: -each.measurement.dice)
        kept = order[:24]  # the better networks, and some that fail
        failed = [
            replace(each, measurement=replace(each.measurement, dice=0.1 + 0.02 * n))
            for n, each in enumerate(order[-8:])
        ]
        found = expect_dice([training_of(each) for each in (*kept, *failed)], coded=Coded(table.space))
        truth = np.array([table.truth[table.row_of[each.architecture]] for each in kept])
        place = {network: number for number, network in enumerate(found.networks)}
        rows = np.array([place[each.architecture.fingerprint] for each in kept])
        best = int(np.argmax(found.dice[rows]))
        optimism.append(
            (found.dice[rows][best] - truth[best], max(found.measured[rows]) - truth[np.argmax(found.measured[rows])])
        )
    expected, measured = np.mean(optimism, axis=0)
    assert expected < 0.5 * measured
