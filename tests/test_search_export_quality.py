"""The warnings of an export about a poor Dice, and the early refusal of a pick that matches nothing."""

import pytest
import voxnas

from search.config import UserError
from search.export.quality import quality_warnings
from search.trials.records import CaseDice

NAMES = ("core", "ring")


def cases(*dice):
    return [CaseDice(f"case {number}", each) for number, each in enumerate(dice)]


def test_a_good_network_gives_no_warning():
    assert quality_warnings(cases(*[(0.9, 0.8)] * 5), NAMES) == ()


def test_a_poor_mean_and_a_poor_class_are_named_with_their_dice():
    found = quality_warnings(cases(*[(0.8, 0.3)] * 5), NAMES)
    assert found == (
        "the mean Dice is only 0.5500: train longer, on more cases, or choose another network",
        "the Dice of ring is only 0.3000: its masks are wrong more often than right",
    )


def test_few_cases_and_none_at_all_are_named():
    assert quality_warnings(cases((0.9, None)), NAMES) == (
        "the Dice rests on 1 case: another split may give another Dice",
    )
    assert quality_warnings((), NAMES) == ("no Dice was measured for these weights",)


def test_a_pick_that_matches_nothing_is_refused_before_the_data_is_read(tiny_run, tmp_path):
    study = voxnas.open(tiny_run.runs / "tiny", data=tmp_path)  # without volumes
    for pick, message in (("knew", "'knew' is neither a trial number nor a rule"), ("99", "there is no trial 99")):
        with pytest.raises(UserError, match=message):
            study.export(pick, tmp_path / "model")
    with pytest.raises(UserError, match="the data folder 'phantom' was not found"):
        study.export("best", tmp_path / "model")
