"""The scale of cost axes: logarithmic where the trials' costs span more than a decade, in figures and lassos."""

import json
from dataclasses import replace

import numpy as np
import pytest
from synthetic_study import synthetic_records
from test_search_visualization_pages import snapshot_of

from search.ablation.figures import CostPoint, draw_costs
from search.analysis.runs import compare_runs
from search.visualization.figures.compare import draw_fronts
from search.visualization.figures.cost_scale import is_logarithmic, scale_of
from search.visualization.figures.front import draw_front
from search.visualization.figures.front_data import front_figure_data
from search.visualization.figures.runs import draw_runs
from search.visualization.pages.front import trials_table
from search.visualization.pages.lasso import read_lasso


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """A study whose last network costs a hundred times as much as the others."""
    records = synthetic_records(12, state="trained")
    costs = records[-1].measurement.costs
    costs = replace(costs, memory_bytes=100 * costs.memory_bytes)
    records[-1] = replace(records[-1], measurement=replace(records[-1].measurement, costs=costs))
    return snapshot_of(tmp_path_factory.mktemp("runs"), records)


def layout_of(figure):
    return json.loads(figure.drawing)["layout"]


@pytest.mark.parametrize(
    ("values", "logarithmic"),
    [([1, 10.1], True), ([1, 10], False), ([0, 100], False), ([np.nan, 2, 50], True), ([np.nan], False), ([], False)],
)
def test_an_axis_is_logarithmic_if_its_values_span_more_than_a_decade(values, logarithmic):
    assert is_logarithmic(np.array(values, dtype=float)) is logarithmic
    assert ("type" in scale_of(np.array(values, dtype=float))) is logarithmic


@pytest.mark.parametrize(("most", "labels"), [(30.0, "1 2 5 10 20 50 100"), (1e5, "1 10 100 1,000 10,000 100,000")])
def test_ticks_are_labelled_with_whole_numbers(most, labels):
    shown = scale_of(np.array([1.5, most]))["ticktext"]
    assert all(label in shown for label in labels.split()[1:]) and len(shown) < 12


def test_the_front_draws_a_wide_cost_on_a_logarithmic_axis_and_places_its_labels_there(wide):
    data = front_figure_data(wide, ("memory", "dice"))
    limit = float(data.values("memory").max())
    drawn = layout_of(draw_front(replace(data, budgets={"memory": limit})))
    assert drawn["xaxis"]["type"] == "log" and "type" not in drawn["yaxis"]
    (line,) = drawn["shapes"]
    (label,) = (each for each in drawn["annotations"] if each["text"] == "budget")
    assert line["x0"] == limit and label["x"] == pytest.approx(np.log10(limit))
    turned = layout_of(draw_front(front_figure_data(wide, ("latency", "memory"))))
    assert turned["yaxis"]["type"] == "log" and "type" not in turned["xaxis"]
    scene = layout_of(draw_front(front_figure_data(wide, ("latency", "memory", "dice"))))["scene"]
    assert [scene[each].get("type") for each in ("xaxis", "yaxis", "zaxis")] == [None, "log", None]


def test_the_front_names_its_knee(wide):
    for axes in (("memory", "dice"), ("latency", "dice")):
        data = front_figure_data(wide, axes)
        (label,) = (each for each in layout_of(draw_front(data))["annotations"] if each["text"] == "knee")
        row = wide.row_of(wide.knee().number)
        assert data.front[row] and label["y"] == data.points[row, 1]
    nothing = layout_of(draw_front(replace(data, knee=None)))
    assert not [each for each in nothing.get("annotations", ()) if each["text"] == "knee"]


def test_the_table_shows_expected_dice_beside_measured(wide):
    table = trials_table(wide, wide.front_rows, name="trials")
    assert table.headings[2:6] == ("expected Dice", "95 % interval", "front probability", "measured Dice")
    for row, cells in zip(wide.front_rows, table.rows, strict=True):
        found = wide.estimate_of(int(wide.numbers[row]))
        assert cells[2][0] == found["expected_dice"] and cells[4][0] == found["front_probability"]


def test_names_of_published_networks_are_beside_their_lines_on_a_logarithmic_axis(wide):
    data = front_figure_data(wide, ("memory", "dice"))
    least = float(data.values("memory").min())
    placed = {"one": (2 * least, np.nan), "twin": (2.001 * least, np.nan), "other": (20 * least, np.nan)}
    drawn = layout_of(draw_front(replace(data, budgets={}, presets=placed, knee=None)))
    shown = {each["text"]: each["x"] for each in drawn["annotations"]}
    assert len(drawn["shapes"]) == 3 and shown.keys() == {"one", "other"}
    assert shown["other"] == pytest.approx(np.log10(20 * least))


def test_runs_side_by_side_share_a_logarithmic_axis(wide):
    _, compared = compare_runs([wide, wide])
    drawn = [layout_of(each) for each in draw_runs(compared)]
    assert [each["xaxis"].get("type") for each in drawn] == ["log", None, None]
    several = layout_of(draw_fronts([wide, wide], x="memory", y="dice"))
    assert [several[each].get("type") for each in ("xaxis", "yaxis")] == ["log", None]


def test_an_ablation_draws_costs_that_span_more_than_a_decade_on_a_logarithmic_axis():
    arms = [CostPoint(f"arm {cost:g}", cost, 0.8, True) for cost in (1.0, 5.0, 100.0)]
    drawn = draw_costs(arms, cost="memory", metric="dice", baseline="arm 1")
    assert drawn.layout.xaxis.type == "log"
    assert drawn.data[-1].textposition == ("top right", "top right", "top left")  # each towards the middle


def test_a_lasso_has_straight_edges_on_a_logarithmic_axis(wide):
    points = front_figure_data(wide, ("memory", "dice")).points
    low, high = points[:, 0].min() / 2, points[:, 0].max() * 2
    middle = float(np.sqrt(low * high))  # the picture's middle, where a triangle's top leaves room
    triangle = read_lasso(f"memory,dice:{low},0;{high},0;{middle},1")
    share = np.log10(points[:, 0] / low) / np.log10(high / low)
    expected = points[:, 1] < 1 - np.abs(2 * share - 1)
    assert triangle.inside(wide).tolist() == expected.tolist()
    everything = read_lasso(f"memory,dice:-5,0;{high},0;{high},1;0,1")
    assert everything.inside(wide).all()
