"""Expected Dice in the dashboard: pages don't wait for a new estimate, and say which trainings the shown one has."""

import time

import numpy as np
import pytest
from synthetic_study import add_records, synthetic_records, synthetic_study, write_synthetic_study

from search.analysis.snapshot_reader import read_snapshot
from search.dashboard.app import make_app
from search.dashboard.library import Library
from search.visualization.pages.lasso import filtered
from search.visualization.pages.page import Request

NOTE = "Expected Dice, front and hypervolume are those of {} trainings; {} being added."


@pytest.fixture
def site(tmp_path):
    write_synthetic_study(tmp_path, "made", synthetic_records(40))
    app = make_app(Library(None, tmp_path), token=None)
    yield app.site
    app.site.close()


def add(site, *numbers, state="trained"):
    records = [synthetic_records(1, seed=number, first=number, state=state)[0] for number in numbers]
    add_records(site.library.runs / "made" / "study.db", records, ["dice", "memory", "latency"])


def shown(site):
    """Return the texts of the front page."""
    waiting, texts = [site.page("/study/made/front", "?papers=off")], []
    while waiting:
        element = waiting.pop()
        texts += [element] if isinstance(element, str) else []
        waiting += [] if isinstance(element, str) else element.children
    return texts


def wait_for_estimates(site, patience_s=60):
    end = time.monotonic() + patience_s
    while site.library.snapshot("made").not_estimated:
        assert time.monotonic() < end
        time.sleep(0.05)


def assert_is_as_read_anew(snapshot):
    anew = read_snapshot(synthetic_study("made"), snapshot.folder)
    assert snapshot.numbers.tolist() == anew.numbers.tolist()
    for name in ("dice", "low", "high", "probability"):
        np.testing.assert_array_equal(getattr(snapshot.estimates, name), getattr(anew.estimates, name))
    assert snapshot.estimates.describe() == anew.estimates.describe()
    assert snapshot.front_rows.tolist() == anew.front_rows.tolist()
    assert snapshot.progress[2].tolist() == anew.progress[2].tolist()


def test_new_trainings_are_counted_until_they_are_estimated_and_then_all_is_as_if_read_anew(site):
    before, version = site.library.snapshot("made"), site.version("/study/made/front")
    assert_is_as_read_anew(before)
    add(site, 40, 41)
    snapshot = site.library.snapshot("made")
    known = len(before.trainings)
    assert snapshot.not_estimated == 2 and len(snapshot.trainings) == known + 2
    assert np.isnan(snapshot.estimates.dice[-2:]).all() and not snapshot.on_front[-2:].any()
    assert snapshot.estimates.dice[:-2].tolist() == pytest.approx(before.estimates.dice.tolist(), nan_ok=True)
    assert snapshot.hypervolume == before.hypervolume  # also measured Dice does not count before it is estimated
    assert NOTE.format(known, "2 later ones are") in shown(site)
    provisional = site.version("/study/made/front")
    assert provisional != version
    wait_for_estimates(site)
    assert site.version("/study/made/front") != provisional
    assert not any("being added" in text for text in shown(site))
    assert_is_as_read_anew(site.library.snapshot("made"))


def test_a_trial_that_only_runs_needs_no_new_estimate(site):
    before = site.library.snapshot("made")
    add(site, 40, state="running")
    add(site, 41, state="over budget")
    snapshot = site.library.snapshot("made")
    assert len(snapshot.trials) == 42 and snapshot.not_estimated == 0
    assert site.library.estimators["made"].timer is None
    assert snapshot.hypervolume == before.hypervolume
    assert_is_as_read_anew(snapshot)


def test_trials_inside_a_lasso_keep_the_expected_dice_of_the_whole_study(site):
    snapshot = site.library.snapshot("made")
    part, _ = filtered(snapshot, Request({"lasso": "memory,dice:0,0;900,0;900,1;0,1"}))
    assert 0 < len(part.trials) < len(snapshot.trials) and part.not_estimated == 0
    rows = [snapshot.row_of(number) for number in part.numbers]
    np.testing.assert_array_equal(part.estimates.dice, snapshot.estimates.dice[rows])
