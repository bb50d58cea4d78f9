"""Statistics of arms, compared with values from R's documentation and papers, and by simulation."""

import math
from statistics import fmean

import numpy as np
import pytest
from scipy.stats import norm, ttest_ind
from scipy.stats import t as student

from search.analysis.statistics.mixed import mixed_model
from search.analysis.statistics.pairs import (
    adjust,
    bootstrap_interval,
    compare_pairs,
    detectable,
    power_of,
    signed_ranks,
)
from search.analysis.statistics.ranks import critical_difference, rank_arms
from search.analysis.statistics.scores import Score, by_training, mean_and_sd, paired, per_unit

# Depression scale, ?wilcox.test in R (Hollander and Wolfe): V = 40, one-sided p = 0.01953.
BEFORE = [1.83, 0.50, 1.62, 2.48, 1.68, 1.88, 1.55, 3.06, 1.30]
AFTER = [0.878, 0.647, 0.598, 2.05, 1.06, 1.29, 1.06, 3.14, 1.29]
# ?sleep in R: paired t = -4.0621 over 10 patients.
SLEEP = [1.2, 2.4, 1.3, 1.3, 0.0, 1.0, 1.8, 0.8, 4.6, 1.4]
# Rounding times, ?friedman.test in R: chi-squared = 11.143, p = 0.003805.
ROUNDING = [
    (5.40, 5.50, 5.55),
    (5.85, 5.70, 5.75),
    (5.20, 5.60, 5.50),
    (5.55, 5.50, 5.40),
    (5.90, 5.85, 5.70),
    (5.45, 5.55, 5.60),
    (5.40, 5.40, 5.35),
    (5.45, 5.50, 5.35),
    (5.25, 5.15, 5.00),
    (5.85, 5.80, 5.70),
    (5.25, 5.20, 5.10),
    (5.65, 5.55, 5.45),
    (5.60, 5.35, 5.45),
    (5.05, 5.00, 4.95),
    (5.50, 5.50, 5.40),
    (5.45, 5.55, 5.50),
    (5.55, 5.55, 5.35),
    (5.45, 5.50, 5.55),
    (5.50, 5.45, 5.25),
    (5.65, 5.60, 5.40),
    (5.70, 5.65, 5.55),
    (6.30, 6.30, 6.25),
]


def test_signed_ranks_equal_rs():
    differences = np.subtract(BEFORE, AFTER)
    p, effect = signed_ranks(differences)
    assert p == pytest.approx(2 * 0.01953, abs=1e-5)
    assert effect == pytest.approx((40 - 5) / 45)  # of 45 ranks, 40 are on the positive side
    assert signed_ranks(np.zeros(5)) == (1.0, 0.0)
    assert signed_ranks(-differences) == (pytest.approx(p), pytest.approx(-effect))


def test_effect_size_and_interval_equal_a_textbooks():
    pairs = compare_pairs(SLEEP)
    assert pairs.difference == pytest.approx(1.58)
    assert pairs.cohens_d * math.sqrt(10) == pytest.approx(4.0621, abs=1e-4)
    assert 0.9 < pairs.low < 1.1 and 2.4 < pairs.high < 2.9  # skewed to the right, towards the one large gain
    assert compare_pairs([0.2, 0.2]).low == compare_pairs([0.2, 0.2]).high == 0.2
    with pytest.raises(ValueError, match="no pair to compare"):
        compare_pairs([])


def test_the_bootstrap_agrees_with_students_interval_on_a_normal_sample():
    values = np.random.default_rng(3).normal(0.02, 0.05, 200)
    half = student.ppf(0.975, 199) * values.std(ddof=1) / math.sqrt(200)
    assert bootstrap_interval(values) == pytest.approx((values.mean() - half, values.mean() + half), abs=6e-4)


@pytest.mark.parametrize(
    ("correction", "expected"),
    [
        ("holm", [0.05, 0.08, 0.09, 0.09, 0.09]),
        ("bonferroni", [0.05, 0.1, 0.15, 0.2, 0.25]),
        ("fdr_bh", [0.05] * 5),
        ("none", [0.01, 0.02, 0.03, 0.04, 0.05]),
    ],
)
def test_corrections_equal_rs_p_adjust(correction, expected):
    p = {f"arm{place}": 0.01 * (place + 1) for place in range(5)}
    assert list(adjust(p, correction=correction).values()) == pytest.approx(expected)
    assert adjust({}, correction=correction) == {}


def test_critical_differences_equal_demsars_table():
    table = {2: 1.960, 3: 2.343, 4: 2.569, 5: 2.728, 6: 2.850, 7: 2.949, 8: 3.031, 9: 3.102, 10: 3.164}
    for arms, quantile in table.items():
        unit = math.sqrt(arms * (arms + 1) / 60)
        assert critical_difference(arms=arms, units=10, alpha=0.05) / unit == pytest.approx(quantile, abs=1e-3)
    assert critical_difference(arms=4, units=14, alpha=0.05) == pytest.approx(1.25, abs=5e-3)  # his example


def test_ranks_and_friedman_equal_rs():
    scored = {
        name: {(0, 0): {f"player{place}": row[column] for place, row in enumerate(ROUNDING)}}
        for column, name in enumerate(("round out", "narrow", "wide"))
    }
    ranks = rank_arms(scored, alpha=0.05, higher_is_better=False)
    assert ranks.p == pytest.approx(0.003805, abs=1e-6) and ranks.units == 22
    assert [arm for arm, _ in ranks.ranks] == ["wide", "narrow", "round out"]
    assert sum(rank for _, rank in ranks.ranks) == pytest.approx(6)
    (wide, narrow, out) = (rank for _, rank in ranks.ranks)  # Hollander and Wolfe: only wide and round out differ
    assert ranks.together == ((wide, narrow), (narrow, out)) and out - wide > ranks.critical
    assert rank_arms({arm: scored[arm] for arm in ("narrow", "wide")}, alpha=0.05, higher_is_better=True) is None


def trainings(rng, arms, *, seeds=3, units=12, luck=0.02, gain=0.0):
    """Arms of equal quality, except for `gain` of the last; a score is a unit, a training and a residual effect."""
    unit = rng.normal(0.8, 0.05, units)
    return {
        arm: {
            (seed, 0): {f"u{n}": unit[n] + lucky + rng.normal(0, 0.01) + gain * (arm == arms[-1]) for n in range(units)}
            for seed in range(seeds)
            for lucky in [rng.normal(0, luck)]
        }
        for arm in arms
    }


def test_the_mixed_model_of_a_balanced_design_equals_the_t_test_of_its_trainings():
    scored = trainings(np.random.default_rng(5), ["base", "more"], gain=0.03)
    found = mixed_model(scored, baseline="base")["more"]
    means = {arm: [fmean(units.values()) for units in each.values()] for arm, each in scored.items()}
    expected = ttest_ind(means["more"], means["base"])
    assert found.difference == pytest.approx(fmean(means["more"]) - fmean(means["base"]))
    assert found.p == pytest.approx(expected.pvalue, rel=0.02)


def test_one_training_per_arm_gives_no_mixed_model():
    assert mixed_model(trainings(np.random.default_rng(0), ["base", "more"], seeds=1), baseline="base") == {}
    constant = {arm: {(seed, 0): {"a": 0.5, "b": 0.5} for seed in range(2)} for arm in ("base", "more")}
    assert mixed_model(constant, baseline="base") == {}


def test_scores_are_averaged_over_classes_then_cases_then_seeds_and_paired_if_both_arms_have_them():
    def score(arm, seed, case, unit, label, value):
        return Score(arm, seed, 0, case, unit, "dice", label, value)

    scores = [
        score("base", 0, "a1", "a", "left", 0.6),
        score("base", 0, "a1", "a", "right", 0.8),
        score("base", 0, "a2", "a", "left", 0.9),
        score("base", 0, "a2", "a", "right", None),
        score("base", 1, "a1", "a", "left", 0.5),
        score("more", 0, "a1", "a", "left", 0.9),
        score("more", 2, "a1", "a", "left", 0.1),
        score("more", 0, "b1", "b", "left", 0.2),
    ]
    scored = by_training(scores, metric="dice")
    assert scored["base"][(0, 0)] == {"a": pytest.approx((0.7 + 0.9) / 2)}
    assert per_unit(scored["base"]) == {"a": pytest.approx((0.8 + 0.5) / 2)}
    assert paired(scored["more"], scored["base"]) == {"a": pytest.approx(0.9 - 0.8)}  # seed 0 alone is in both
    assert mean_and_sd(scored["base"]) == (pytest.approx(0.65), pytest.approx(0.15 * math.sqrt(2)))
    assert by_training(scores, metric="hd95") == {}


def test_the_power_of_normal_differences_is_near_that_of_the_t_test():
    from statsmodels.stats.power import TTestPower

    sample = norm.ppf((np.arange(30) + 0.5) / 30)
    sample /= sample.std()
    expected = TTestPower().power(0.6, nobs=30 * 3 / math.pi, alpha=0.05)  # what signed ranks lose on normal values
    assert power_of(sample, shift=0.6, alpha=0.05) == pytest.approx(expected, abs=0.05)
    assert power_of(sample, shift=0.0, alpha=0.05) == pytest.approx(0.05, abs=0.02)
    least = detectable(sample, alpha=0.05)
    assert power_of(sample, shift=least, alpha=0.05) == pytest.approx(0.8, abs=0.03)


def test_a_design_that_is_too_small_reports_that_no_difference_could_be_found():
    assert detectable(np.random.default_rng(0).normal(0, 1, 6), alpha=0.05 / 4) is None  # 2 / 2^6 is above alpha
    assert detectable([0.1] * 8, alpha=0.05) is None
