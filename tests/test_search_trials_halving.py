"""Pareto halving: which trials continue, as a pure rule; stopped trials inform the model but are never on a front."""

from dataclasses import replace

import numpy as np
import pytest
from conftest import STUDY, quiet_view, write_study
from hypothesis import given
from hypothesis import strategies as st

from search.analysis.snapshot_reader import snapshot_of
from search.config import UserError, load_study
from search.config.schema import Halving
from search.runner.local import run_study
from search.runner.plan import make_plan
from search.storage import read_records
from search.trials.epochs import Epoch
from search.trials.halving import is_promoted, ranked_rows, rungs, stop_reason
from search.trials.pareto import pareto_front
from search.trials.records import Costs, Measurement, Record
from space.architecture import Architecture

DIRECTIONS = {"dice": "maximize", "memory": "minimize"}
HALVING = Halving(min_epochs=1, reduction=2.0)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"epochs": 27, "least": 1, "reduction": 3.0, "bracket": 0}, (1, 3, 9)),
        ({"epochs": 27, "least": 1, "reduction": 3.0, "bracket": 1}, (3, 9)),
        ({"epochs": 27, "least": 2, "reduction": 2.5, "bracket": 0}, (2, 5, 12)),
        ({"epochs": 4, "least": 4, "reduction": 2.0, "bracket": 0}, ()),
        ({"epochs": 9, "least": 1, "reduction": 1.2, "bracket": 0}, (1, 2, 3, 4, 5, 6, 7)),
    ],
)
def test_rungs_grow_by_the_reduction_and_end_before_the_last_epoch(settings, expected):
    assert rungs(**settings) == expected


@given(st.integers(1, 30), st.integers(2, 4), st.integers(0, 1000))
def test_the_reduction_sets_how_many_continue_and_none_is_behind_a_trial_it_dominates(count, reduction, seed):
    losses = np.random.default_rng(seed).integers(0, 6, size=(count, 3)).astype(float)
    on = [is_promoted(losses, which=row, reduction=float(reduction)) for row in range(count)]
    assert sum(on) == max(1, count // reduction)
    place = {row: position for position, row in enumerate(ranked_rows(losses).tolist())}
    for one in range(count):
        for other in range(count):
            if (losses[one] <= losses[other]).all() and (losses[one] < losses[other]).any():
                assert place[one] < place[other]


def test_within_a_rank_isolated_trials_precede_crowded_ones():
    losses = np.array([[0.0, 1.0], [0.50, 0.50], [0.51, 0.49], [1.0, 0.0]])
    assert set(ranked_rows(losses)[:2].tolist()) == {0, 3}


def trial(number, curve, memory, state="trained"):
    epochs = tuple(Epoch(place + 1, 0.1, dice, 1.0) for place, dice in enumerate(curve))
    dice = curve[-1] if state == "trained" else None
    measurement = Measurement(state, costs=Costs(1, 1, memory, 1), dice=dice, epochs=epochs)
    return Record(number, Architecture.of({"channels": (number + 1,)}), (), 0, 0, measurement, "")


def verdict(records, record, **changes):
    return stop_reason(
        records, record, **{"halving": HALVING, "epochs": 8, "every": 1, "directions": DIRECTIONS, **changes}
    )


def test_the_reason_names_rank_and_objectives():
    records = [trial(0, (0.5, 0.6), 100), trial(1, (0.6,), 90, "stopped"), trial(2, (0.7,), 80, "running")]
    worse = trial(3, (0.4,), 200, "running")
    assert verdict(records, worse) == (
        "stopped after epoch 1: ranked 4 of 4 by Dice so far, training memory; the best 2 continue"
    )
    assert verdict(records, trial(3, (0.4,), 10, "running")) is None  # the cheapest is on the front
    assert verdict([], worse) is None  # no other trial to compare with


def test_between_rungs_or_without_dice_or_costs_no_trial_is_stopped():
    records = [trial(number, (0.9, 0.9, 0.9), 1) for number in range(4)]
    assert verdict(records, trial(9, (0.1, 0.1, 0.1), 99, "running")) is None  # 3 is no rung of 1, 2, 4
    assert verdict(records, trial(9, (None,), 99, "running")) is None
    unpriced = trial(9, (0.1,), 99, "running")
    unpriced = replace(unpriced, measurement=replace(unpriced.measurement, costs=None))
    assert verdict(records, unpriced) is None


def test_a_rung_waits_for_the_next_validation():
    records = [trial(number, (None, 0.9), 1) for number in range(4)]
    assert verdict(records, trial(9, (None, 0.1), 99, "running"), every=2)


def test_a_later_bracket_stops_later():
    records = [trial(number, (0.9, 0.9), 1) for number in range(4)]
    odd = trial(9, (0.1,), 99, "running")
    two = Halving(min_epochs=1, reduction=2.0, brackets=2)
    assert verdict(records, odd, halving=two) is None and verdict(records, replace(odd, number=8), halving=two)


def test_a_stopped_trial_is_pruned_counts_as_a_trial_and_is_never_on_the_front(tmp_path):
    made = write_study(tmp_path, STUDY.replace("trials: 3}", "trials: 6, halving: {min_epochs: 1, reduction: 4.0}}"))
    plan = make_plan(load_study(made.file), runs=made.runs)
    outcome = run_study(plan, trials=6, view=quiet_view())
    assert outcome.why == "6 trials are done" and len(outcome.records) == 6
    stopped = [record for record in outcome.records if record.state == "stopped"]
    assert stopped and all(len(record.measurement.epochs) == 1 for record in stopped)
    for record in stopped:
        assert record.measurement.reason.startswith("stopped after epoch 1: ranked ")
        assert record.measurement.costs and record.measurement.value("dice") is None
        assert not list((plan.folder / "trials" / f"{record.number:06d}").glob("*.pt"))
    assert not {record.number for record in pareto_front(outcome.records, plan.directions)} & {
        record.number for record in stopped
    }
    import optuna

    states = [trial.state.name for trial in optuna.load_study(study_name="tiny", storage=plan.url).trials]
    assert states.count("PRUNED") == len(stopped)
    assert read_records(plan.url, "tiny") == list(outcome.records)
    assert len(snapshot_of(plan.loaded, runs=made.runs).trials) == 6


def test_halving_can_be_turned_off_and_invalid_values_are_reported(tmp_path):
    made = write_study(tmp_path)
    assert load_study(made.file, overrides=["search.halving=off"]).study.search.halving is None
    with pytest.raises(UserError, match="search.halving.reduction: .*greater than 1"):
        load_study(made.file, overrides=["search.halving.reduction=1.0"])
    with pytest.raises(UserError, match="unknown key; did you mean 'brackets'"):
        load_study(made.file, overrides=["search.halving.bracket=1"])
