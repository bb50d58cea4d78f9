"""Error rates of the ablations' tests, simulated from stored case scores: equal arms, and a planted difference."""

from pathlib import Path

import numpy as np
import pytest

from search.ablation.cases import read_cases
from search.analysis.statistics.mixed import mixed_model
from search.analysis.statistics.pairs import adjust, detectable, signed_ranks
from search.analysis.statistics.scores import by_training, paired

STORED = Path(__file__).parents[1] / "studies" / "examples" / "which_attention_small" / "cases.parquet"
ALPHA, MOST = 0.05, 0.07


@pytest.fixture(scope="module")
def stored():
    """Dice of 5 arms, 2 seeds and 20 cases: {arm: {training: {case: score}}}."""
    return by_training(read_cases(STORED), metric="dice")


def exchanged(stored, rng):
    """Permute the arms' names for each case of each training: equal arms, case by case."""
    made = {arm: {training: {} for training in stored[arm]} for arm in stored}
    for training in made[next(iter(made))]:
        for unit in stored[next(iter(stored))][training]:
            for arm, other in zip(made, rng.permutation(list(stored)), strict=True):
                made[arm][training][unit] = stored[other][training][unit]
    return made


def reshuffled(stored, rng):
    """Permute whole trainings between the arms: equal arms with the variation between trainings."""
    trainings = [(arm, training) for arm in stored for training in stored[arm]]
    dealt = iter([trainings[place] for place in rng.permutation(len(trainings))])
    return {
        arm: {training: stored[other][its] for training in stored[arm] for other, its in [next(dealt)]}
        for arm in stored
    }


def differences(made):
    """Return the paired differences of each arm to the first, as in the ablation."""
    baseline, *others = made
    return {arm: np.array(list(paired(made[arm], made[baseline]).values())) for arm in others}


def found(made):
    """Return the arms that differ significantly from the first by signed ranks, corrected over the family."""
    adjusted = adjust({arm: signed_ranks(each)[0] for arm, each in differences(made).items()}, correction="holm")
    return {arm for arm, p in adjusted.items() if p < ALPHA}


def confirmed(made):
    """Return those that are also significant in the mixed model: a verdict without a dagger."""
    told = found(made)
    if not told:
        return told  # most repetitions, so that few models are fitted
    modelled = mixed_model(made, baseline=next(iter(made)))
    adjusted = adjust({arm: each.p for arm, each in modelled.items()}, correction="holm")
    return {arm for arm in told if adjusted.get(arm, 1.0) < ALPHA}


def share(stored, deal, judge, *, repetitions):
    """Return the share of repetitions in which any of the equal arms is significant."""
    rng = np.random.default_rng(0)
    return sum(bool(judge(deal(stored, rng))) for _ in range(repetitions)) / repetitions


def test_equal_arms_are_rarely_significant_over_cases(stored):
    assert share(stored, exchanged, found, repetitions=200) <= MOST


def test_variation_between_trainings_rarely_gives_a_verdict_and_often_a_dagger(stored):
    """The reason for daggers: over cases alone, trainings of equal arms nearly always look different."""
    assert share(stored, reshuffled, found, repetitions=40) > 0.5
    assert share(stored, reshuffled, confirmed, repetitions=40) <= MOST


@pytest.mark.long
def test_equal_arms_rarely_get_a_verdict_in_200_repetitions(stored):
    assert share(stored, reshuffled, confirmed, repetitions=200) <= MOST
    assert share(stored, exchanged, confirmed, repetitions=200) <= MOST


def planted_share(stored, *, repetitions):
    """Return how often a difference of the computed detectable size (power 0.8) is found."""
    rng, hits, arm = np.random.default_rng(1), 0, list(stored)[-1]
    for _ in range(repetitions):
        made = exchanged(stored, rng)
        gain = detectable(differences(made)[arm], alpha=ALPHA / (len(made) - 1))
        made[arm] = {its: {unit: value + gain for unit, value in units.items()} for its, units in made[arm].items()}
        hits += arm in found(made)
    return hits / repetitions


def test_a_planted_difference_is_found_at_the_computed_power(stored):
    assert planted_share(stored, repetitions=60) == pytest.approx(0.8, abs=0.1)


@pytest.mark.long
def test_a_planted_difference_is_found_at_the_computed_power_in_200_repetitions(stored):
    assert planted_share(stored, repetitions=200) == pytest.approx(0.8, abs=0.1)
