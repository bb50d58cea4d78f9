"""The table of objectives, and its coverage by everything that shows or compares objectives."""

import json
import pickle

import numpy as np
import pytest
from synthetic_study import synthetic_records, synthetic_study, write_synthetic_study
from test_search_config import mistakes, write

from search.ablation.metrics import METRICS
from search.analysis.front import EXPECTED, front_json, front_table
from search.analysis.snapshot_reader import read_snapshot
from search.config import load_study
from search.config.goals import GOALS, Objectives
from search.config.objectives import COSTS, OBJECTIVES, cost_axis, primary, show, show_named
from search.config.units import parse_bytes, parse_seconds
from search.simulate.parquet import read_table, write_table
from search.simulate.synthetic import synthetic_table
from search.trials.pareto import losses, worst_losses
from search.visualization.figures.front import draw_front
from search.visualization.figures.front_data import front_figure_data
from search.visualization.pages.compare import compare_page
from search.visualization.pages.front import front_page
from search.visualization.pages.page import Request
from search.visualization.pages.trial import trial_page

each_objective = pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=list(OBJECTIVES))


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    """A study that optimises every objective."""
    runs = tmp_path_factory.mktemp("runs")
    study = synthetic_study("everything", **{name: goal() for name, goal in GOALS.items()})
    write_synthetic_study(runs, "everything", synthetic_records(40, state="trained"), study=study)
    return study, runs / "everything"


@pytest.fixture(scope="module")
def snapshot(everything):
    return read_snapshot(*everything)


@each_objective
def test_a_loss_is_zero_at_the_ideal_and_grows_with_every_worse_value(objective):
    high = min(objective.range[1], 1e9)
    values = np.linspace(objective.range[0], high, 7)
    found = objective.loss(values)
    assert objective.loss(objective.ideal) == 0 and (found >= 0).all()
    assert (np.diff(found) < 0).all() if objective.is_maximized else (np.diff(found) > 0).all()
    np.testing.assert_allclose(objective.from_loss(found), values)
    assert objective.loss(objective.worse(0.25, 0.75)) == max(objective.loss(0.25), objective.loss(0.75))


@each_objective
def test_a_value_is_read_and_written_in_its_own_unit(objective):
    (record,) = synthetic_records(1, state="trained")
    value = record.measurement.value(objective.name)
    holder = record.measurement if objective.learned else record.measurement.costs
    assert value is not None and objective.read(holder) == value
    assert show_named(objective.name, value) == f"{objective.heading} {show(objective.name, value)}"
    assert show(objective.name, None) == "" and objective.heading in objective.axis_title
    assert bool(objective.unit) == (objective.drawn_per != 1)
    if objective.parse:
        assert objective.parse(objective.show(value)) == pytest.approx(value, rel=0.1)


def study_file(folder, objective, value):
    return write(folder, f"data: {{path: volumes}}\nobjectives:\n  {objective.name}:{value}\n")


@each_objective
def test_a_study_accepts_an_objective_only_in_its_own_direction(tmp_path, objective):
    for written in ("", f" {objective.direction}", f" {{direction: {objective.direction}}}"):
        study = load_study(study_file(tmp_path, objective, written)).study
        assert study.directions == {objective.name: objective.direction}
    other = "minimize" if objective.is_maximized else "maximize"
    key, opposite = f"objectives.{objective.name}", f"{objective.heading} can't be {other}d"
    said = f"{opposite} (allowed: {objective.direction}, record); "
    said += "higher values are always better" if objective.is_maximized else "lower values are always better"
    assert mistakes(study_file(tmp_path, objective, f" {other}")) == [f"study.yaml:3:3: {key}: {said}"]
    column = len(f"  {objective.name}: {{") + 1
    assert mistakes(study_file(tmp_path, objective, f" {{direction: {other}}}")) == [
        f"study.yaml:3:{column}: {key}.direction: {said}"
    ]
    good = study_file(tmp_path, objective, "")
    assert mistakes(good, overrides=[f"{key}={other}"]) == [f"--set {key}: {said}"]


@each_objective
def test_only_costs_accept_a_budget(tmp_path, objective):
    unit = {parse_bytes: " B", parse_seconds: " s"}.get(objective.parse, "")
    file = study_file(tmp_path, objective, f" {{budget: 3{unit}}}")
    if objective.parse:
        assert load_study(file).study.budgets == {objective.name: 3.0}
    else:
        assert "budget: unknown key (allowed: direction)" in mistakes(file)[0]


def test_the_objectives_of_a_study_travel_between_processes():
    wanted = Objectives.of(*OBJECTIVES)
    assert pickle.loads(pickle.dumps(wanted)) == wanted
    assert list(wanted.goals) == list(OBJECTIVES)


def test_the_primary_objective_is_the_learned_one_if_there_is_one():
    assert primary(["memory", "dice"]) == "dice" and primary(["memory", "latency"]) == "memory"
    assert cost_axis(["memory", "dice"]) == "memory" and cost_axis(["dice"]) == cost_axis(["dice", "memory"])
    assert cost_axis(["memory"]) != "memory"


def test_fronts_tables_and_picks_cover_every_objective(snapshot):
    study, front = snapshot.study, snapshot.front()
    points = losses(front, study.directions)
    assert points.shape == (len(front), len(OBJECTIVES)) and np.isfinite(points).all()
    assert (points < worst_losses(snapshot.reference, study.directions)).all()
    row = json.loads(front_json(snapshot))["front"][0]
    assert {name: row[name] for name in OBJECTIVES} == {name: front[0].measurement.value(name) for name in OBJECTIVES}
    headings = [str(column.header) for column in front_table(snapshot).columns]
    measured = ["measured Dice ↑", *(f"{each.heading} {each.arrow}" for each in list(OBJECTIVES.values())[1:])]
    assert headings[1:-1] == [*EXPECTED, *measured]
    for name in COSTS:
        limit = max(each.measurement.costs.of(name) for each in front)
        assert "the best of" in snapshot.pick(f"under:{name}={show(name, 2 * limit)}").why


def test_figures_and_pages_cover_every_objective(snapshot):
    for name in OBJECTIVES:
        figure = draw_front(front_figure_data(snapshot, (name, cost_axis([name]))))
        assert OBJECTIVES[name].axis_title in figure.drawing
    for page in (front_page(snapshot, Request()), compare_page(snapshot, Request())):
        shown = str(page.components)
        assert all(each.heading in shown for each in OBJECTIVES.values())
    shown = dict(trial_page(snapshot, Request()).components[0].pairs)
    assert all(each.heading in shown for each in OBJECTIVES.values())


def test_tables_on_disk_and_ablations_cover_every_objective(tmp_path):
    table = synthetic_table("places")
    write_table(table, tmp_path / "table.parquet")
    again = read_table(tmp_path / "table.parquet", objectives=("dice", *COSTS))
    assert set(again.directions) == set(OBJECTIVES)
    for name in OBJECTIVES:
        assert again.losses[:, list(again.directions).index(name)].shape == (again.size,)
    assert set(OBJECTIVES) <= set(METRICS)
