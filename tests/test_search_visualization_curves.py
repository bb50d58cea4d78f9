"""Learning curves of the Progress page, and the lines between the boxes of a network."""

import json
from dataclasses import replace

import pytest
from synthetic_study import EPOCHS, synthetic_records, synthetic_study, write_synthetic_study

from search.analysis.snapshot_reader import read_snapshot
from search.trials.epochs import Epoch, Epochs
from search.visualization.figures import progress
from search.visualization.figures.progress import Curves, curves_of, draw_curves
from search.visualization.figures.trial import HALF_HEIGHT, HALF_WIDTH, _between_boxes, draw_learning


@pytest.fixture
def curves(tmp_path) -> Curves:
    trained, stopped = synthetic_records(3, state="trained"), synthetic_records(2, first=3, state="stopped")
    records = [*trained, *stopped, *synthetic_records(1, first=5, state="running")]
    write_synthetic_study(tmp_path, "made", records)
    return curves_of(read_snapshot(synthetic_study("made"), tmp_path / "made"))


def test_curves_of_running_trained_and_stopped_trials_are_drawn_with_gaps_between_trials(curves):
    assert curves.title == "1 running, 3 trained, 2 stopped early"
    trained, stopped, rungs, running = json.loads(draw_curves(curves).drawing)["data"]
    assert [trained["name"], stopped["name"], rungs["name"], running["name"]] == [
        "trained",
        "stopped early",
        "stopped at this rung",
        "trial 5",
    ]
    assert trained["x"] == [*range(1, EPOCHS + 1), None] * 3
    assert trained["customdata"] == [0] * (EPOCHS + 1) + [1] * (EPOCHS + 1) + [2] * (EPOCHS + 1)
    assert rungs["customdata"] == [3, 4]


def test_the_curve_of_an_interrupted_trial_is_named_as_such(tmp_path, curves):
    lost = curves_of(read_snapshot(synthetic_study("made"), tmp_path / "made"), {5})
    assert lost.title == "1 interrupted, 3 trained, 2 stopped early"
    drawn = json.loads(draw_curves(lost).drawing)
    assert drawn["data"][-1]["name"] == "trial 5 (interrupted)"
    assert [drawn["layout"][axis]["title"]["text"] for axis in ("xaxis", "yaxis")] == ["Epoch", "Dice"]


def test_a_single_validated_epoch_is_drawn_on_the_whole_range_of_dice(curves):
    first = curves.running[0]
    one = Curves((replace(first, epochs=Epochs.of([Epoch(2, 0.5, 0.93, 1.0)])),), (), ())
    assert json.loads(draw_curves(one).drawing)["layout"]["yaxis"]["range"] == [0, 1]
    assert "range" not in json.loads(draw_curves(curves).drawing)["layout"]["yaxis"]


def test_a_long_study_draws_the_curves_of_its_latest_trials(curves, tmp_path, monkeypatch):
    monkeypatch.setattr(progress, "MAX_ENDED", 2)
    latest = curves_of(read_snapshot(synthetic_study("made"), tmp_path / "made"))
    assert [trial.number for trial in latest.trained] == [1, 2]


@pytest.mark.parametrize(
    ("start", "end", "x", "y"),
    [
        pytest.param((0, 0), (1, 0), [HALF_WIDTH, 1 - HALF_WIDTH], [0, 0], id="along a level"),
        pytest.param((2, -1), (2, 0), [2, 2], [HALF_HEIGHT - 1, -HALF_HEIGHT], id="between levels"),
        pytest.param((0, 0), (1, -1), [0, 1 - HALF_WIDTH], [-HALF_HEIGHT, -1], id="into the bottleneck"),
        pytest.param((1, -1), (2, 0), [1 + HALF_WIDTH, 2], [-1, -HALF_HEIGHT], id="out of the bottleneck"),
    ],
)
def test_a_line_between_two_boxes_ends_at_their_edges(start, end, x, y):
    found_x, found_y = _between_boxes(start, end)
    assert (found_x, found_y) == (pytest.approx(x), pytest.approx(y))


def test_a_single_dice_is_drawn_on_the_whole_range_of_dice():
    epochs = [Epoch(1, 1.6, None, 1.0), Epoch(2, 1.3, 0.7, 1.0)]
    assert json.loads(draw_learning(epochs).drawing)["layout"]["yaxis2"]["range"] == [0, 1]
    curve = [Epoch(1, 1.6, 0.5, 1.0), Epoch(2, 1.3, 0.7, 1.0)]
    assert "range" not in json.loads(draw_learning(curve).drawing)["layout"]["yaxis2"]
