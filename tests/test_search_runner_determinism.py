"""One seed gives one study: undisturbed, repeated, and after kills at several points."""

import io
import json
import signal
from functools import cache

import pytest
from conftest import STUDY, quiet_view, write_study
from earlier_study import write_earlier
from forked import kill_when, started
from rich.console import Console

import search.proposers.known_cost
from search.analysis.front import front_json, front_table
from search.analysis.snapshot_reader import snapshot_of
from search.analysis.status import status_of
from search.api.study import Study
from search.config import load_study
from search.proposers.propose import PROPOSERS
from search.runner.learned_from import learned_from
from search.runner.local import run_study
from search.runner.plan import make_plan
from search.storage import read_records

TRIALS = 9
WIDER = (
    STUDY.replace("{width: [2, 4], repeats: [1, 2],", "{width: [2, 3, 4, 6], repeats: [1, 2, 3],")
    .replace("latency: {budget: 60 s}", "params: minimize, latency: record")
    .replace("epochs: 2, steps_per_epoch: 4", "epochs: 2, steps_per_epoch: 2")
)


def study_of(folder, name, *, text=WIDER):
    return write_study(folder, text.replace("proposer: random", f"proposer: {name}"))


def finished(made):
    plan = make_plan(load_study(made.file), runs=made.runs)
    run_study(plan, trials=TRIALS, view=quiet_view())
    return [
        (
            each.decisions,
            each.seed,
            each.state,
            each.measurement.dice,
            [epoch.dice for epoch in each.measurement.epochs],
        )
        for each in read_records(plan.url, "tiny")
    ]


def kill_in_trial(made, trial, how):
    """Run the study in a process of its own, and kill it when a trial has begun."""
    begun = made.runs / "tiny" / "trials" / f"{trial:06d}"
    with started("run", "--quiet", "--trials", TRIALS, made.file, "--runs", made.runs) as command:
        kill_when(begun.exists, command, how=how)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Return the records of an undisturbed study, by the name of its proposer."""
    return cache(lambda name: finished(study_of(tmp_path_factory.mktemp(name), name)))


ONE_PROPOSER = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name == "known-cost" else pytest.mark.long) for name in PROPOSERS]
)


@ONE_PROPOSER
def test_a_killed_study_ends_with_the_records_of_an_undisturbed_one(tmp_path, undisturbed, name):
    killed = study_of(tmp_path, name)
    kill_in_trial(killed, 2, signal.SIGTERM)
    kill_in_trial(killed, 5, signal.SIGKILL)
    assert finished(killed) == undisturbed(name) and len(undisturbed(name)) == TRIALS


def test_a_killed_study_that_learns_from_another_ends_like_an_undisturbed_one_whatever_ends_meanwhile(tmp_path):
    first, killed = (study_of(tmp_path / folder, "known-cost") for folder in ("first", "killed"))
    for made in (first, killed):
        write_earlier(made)
    undisturbed = finished(first)
    kill_in_trial(killed, 2, signal.SIGKILL)
    write_earlier(killed, "later", rises=-0.01)
    kill_in_trial(killed, 5, signal.SIGTERM)
    assert finished(killed) == undisturbed
    (kept,) = learned_from(make_plan(load_study(killed.file), runs=killed.runs))
    assert kept.pinned.name == "earlier" and kept.weight is not None


@ONE_PROPOSER
def test_a_study_is_reproducible_and_ignores_latencies_that_are_no_objective(tmp_path, undisturbed, monkeypatch, name):
    """Measured latencies differ between two studies; the proposals must not."""
    slower = iter(range(1, 10_000))
    monkeypatch.setattr(
        "search.costs.latency.repeat", lambda once, max_seconds: [0.001 * next(slower) for _ in range(7)]
    )
    assert finished(study_of(tmp_path, name)) == undisturbed(name)


def test_known_cost_trains_repeats_as_ordinary_trials_that_count(tmp_path, monkeypatch):
    monkeypatch.setattr(search.proposers.known_cost, "TRAININGS_PER_REPEAT", 8)  # a short study has to have one
    made = study_of(tmp_path, "known-cost", text=WIDER.replace("trials: 3", "trials: 12, halving: {min_epochs: 1}"))
    plan = make_plan(load_study(made.file), runs=made.runs)
    outcome = run_study(plan, trials=12, view=quiet_view())
    repeats = [record for record in outcome.records if record.repeat]
    assert repeats and len(outcome.records) == 12 and outcome.why == "12 trials are done"
    for repeat in repeats:
        assert (repeat.state, repeat.fold) == ("trained", plan.study.data.fold)
        others = [each for each in outcome.records if each.architecture == repeat.architecture and each != repeat]
        assert others and repeat.seed not in {each.seed for each in others}
    assert read_records(plan.url, "tiny") == list(outcome.records)
    status = status_of(snapshot_of(load_study(made.file), runs=made.runs))
    assert status.done == 12 and not status.confirmations


def test_the_shown_front_and_the_picks_are_those_of_expected_dice(tmp_path):
    made = study_of(tmp_path, "random", text=WIDER.replace("trials: 3", "trials: 10"))
    plan = make_plan(load_study(made.file), runs=made.runs)
    run_study(plan, trials=10, view=quiet_view())
    snapshot = snapshot_of(load_study(made.file), runs=made.runs)
    assert snapshot.estimates.repeats == 0
    shown = json.loads(front_json(snapshot))
    assert shown["noise"] == snapshot.estimates.noise and shown["optimism"] == snapshot.estimates.optimism
    best = max(shown["front"], key=lambda row: row["expected_dice"])
    assert snapshot.pick("best").record.number == best["trial"] == shown["front"][0]["trial"]
    assert best["dice_low"] < best["expected_dice"] < best["dice_high"] and 0 < best["front_probability"] <= 1
    console = Console(width=250, record=True, file=io.StringIO())
    console.print(front_table(snapshot))
    text = console.export_text()
    assert "measured Dice" in text and "the standard deviation of one training is" in text
    frame = Study.from_yaml(made.file, runs=made.runs).front()
    assert frame["expected_dice"].is_monotonic_decreasing
    kept = {int(path.parent.name) for path in plan.folder.glob("trials/*/best.safetensors")}
    assert {row["trial"] for row in shown["front"]} <= kept
