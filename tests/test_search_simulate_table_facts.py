"""Facts about a table of trainings, compared with the values that the numbers were drawn from."""

import math

import numpy as np
import pytest

from search.simulate.table_facts import (
    Results,
    choice_effects,
    explained_by_costs,
    network_deviation,
    noise_deviation,
    seed_correlation,
    typical_noise,
)

NOISE, BETWEEN = 0.01, 0.05


def drawn(networks=400, seeds=3, noise=NOISE):
    rng = np.random.default_rng(0)
    true = 0.7 + BETWEEN * rng.standard_normal((networks, 1))
    return true + noise * rng.standard_normal((networks, seeds))


def test_noise_and_differences_between_networks_are_separated():
    dice = drawn()
    noise, freedom = noise_deviation(dice)
    assert freedom == 800 and noise == pytest.approx(NOISE, rel=0.1)
    assert network_deviation(dice) == pytest.approx(BETWEEN, rel=0.1)
    dice[::2, 1:] = np.nan  # half of the networks with one seed
    dice[1::4, 2] = np.nan
    noise, freedom = noise_deviation(dice)
    assert freedom == 300 and noise == pytest.approx(NOISE, rel=0.15)
    assert network_deviation(dice) == pytest.approx(BETWEEN, rel=0.1)


def test_failed_trainings_hardly_change_the_typical_noise():
    dice = drawn()
    assert typical_noise(dice) == pytest.approx(NOISE, rel=0.1)
    dice[:8, 1] = 0.0
    assert typical_noise(dice) == pytest.approx(NOISE, rel=0.1) and noise_deviation(dice)[0] > 5 * NOISE
    assert math.isnan(typical_noise(drawn(seeds=1)))


def test_noise_alone_leaves_no_difference_between_networks():
    dice = 0.7 + NOISE * np.random.default_rng(1).standard_normal((2000, 2))
    assert network_deviation(dice) < 0.3 * NOISE


def test_without_repeated_trainings_there_is_no_noise_and_no_correlation():
    dice = drawn(seeds=1)
    assert math.isnan(noise_deviation(dice)[0]) and noise_deviation(dice)[1] == 0
    assert math.isnan(seed_correlation(dice))


def test_seeds_correlate_as_far_as_noise_allows():
    assert seed_correlation(drawn(noise=0.0)) == pytest.approx(1.0)
    assert seed_correlation(drawn(noise=BETWEEN)) == pytest.approx(0.5, abs=0.1)
    partial = drawn()
    partial[2:, 1:] = np.nan
    assert math.isnan(seed_correlation(partial))


def test_costs_explain_what_follows_them_and_nothing_else():
    rng = np.random.default_rng(0)
    macs, params = np.exp(rng.normal(15, 1.5, 200)), np.exp(rng.normal(10, 1, 200))
    costs = {"macs": macs, "params": params, "equal": np.full(200, 7.0)}
    follows = 0.5 + 0.05 * np.log(macs) - 0.002 * np.log(macs) * np.log(params)
    assert explained_by_costs(Results((), follows[:, None], costs)) == pytest.approx(1.0, abs=1e-6)
    half = follows + follows.std() * rng.standard_normal(200)
    assert explained_by_costs(Results((), half[:, None], costs)) == pytest.approx(0.5, abs=0.12)
    assert explained_by_costs(Results((), rng.random((200, 1)), costs)) < 0.05
    few = {name: values[:11] for name, values in costs.items()}
    assert math.isnan(explained_by_costs(Results((), half[:11, None], few)))


def test_main_effects_are_per_place_for_blocks_and_by_choice_for_other_axes():
    rng, decisions, dice = np.random.default_rng(0), [], []
    for _ in range(300):
        made = {
            "width": int(rng.choice([8, 16])),
            "stages": str(rng.choice(["single", "two-patch"])),
            **{f"attention@{place}": str(rng.choice(["none", "isa", "csam"])) for place in ("skips", "decoders")},
        }
        blocks = [made["attention@skips"], made["attention@decoders"]]
        value = 0.6 + 0.04 * (made["width"] == 16) - 0.03 * (made["stages"] == "two-patch")
        decisions.append(made)
        dice.append([value + 0.02 * blocks.count("isa") - 0.01 * blocks.count("csam") + 0.005 * rng.standard_normal()])
    effects = {each.choice: each for each in choice_effects(Results(tuple(decisions), np.array(dice), {}))}
    assert list(effects) == ["csam", "isa", "16", "two-patch"]
    for choice, true in (("isa", 0.02), ("csam", -0.01), ("16", 0.04), ("two-patch", -0.03)):
        assert effects[choice].low < true < effects[choice].high and effects[choice].mean == pytest.approx(
            true, abs=2e-3
        )
    assert effects["isa"].axis == "block" and effects["isa"].against == "none" and effects["16"].against == "8"
    assert effects["isa"].networks == sum("isa" in each.values() for each in decisions)
    assert choice_effects(Results(tuple(decisions[:5]), np.array(dice[:5]), {})) == []
