"""Comparison of runs: one reference point, hypervolume over hours, the figure and the command."""

import json
import shutil
import sqlite3
from contextlib import closing
from dataclasses import replace

import pytest
from conftest import quiet_view
from test_search_cli import call

from search.analysis.runs import compare_runs
from search.api.find import find_study
from search.api.study import Study
from search.config import UserError, load_study
from search.config.goals import Objectives
from search.files.digests import sealed, unsealed_text
from search.runner.local import run_study
from search.runner.plan import make_plan
from search.trials.pareto import hypervolume
from search.visualization.figures.runs import draw_runs
from search.visualization.html import as_plotly


def snapshot_of_run(folder):
    loaded, runs = find_study(folder)
    return Study(loaded, runs=runs).snapshot()


@pytest.fixture(scope="module")
def folders(tiny_run, tmp_path_factory):
    """A finished run, and one of the same file under another name and proposer."""
    runs = tmp_path_factory.mktemp("runs")
    overrides = ["name=tiny-local", "search.proposer=local", "search.seed=1"]
    run_study(make_plan(load_study(tiny_run.file, overrides=overrides), runs=runs), trials=2, view=quiet_view())
    return tiny_run.runs / "tiny", runs / "tiny-local"


def test_runs_are_compared_from_their_worst_reference_point(folders):
    snapshots = [snapshot_of_run(folder) for folder in folders]
    halved = {name: 0.5 * value for name, value in snapshots[1].reference.items()}
    snapshots[1] = replace(snapshots[1], reference=halved)
    reference, compared = compare_runs(snapshots)
    assert reference == snapshots[0].reference
    assert [run.name for run in compared] == ["tiny (random)", "tiny-local (local)"]
    for snapshot, run in zip(snapshots, compared, strict=True):
        last = hypervolume(snapshot.records(), snapshot.study.directions, reference)
        assert run.curve[-1] == (pytest.approx(run.hours), pytest.approx(last)) and run.after(run.hours) == last > 0
        assert run.after(0.0) == 0.0 and [*run.curve] == sorted(run.curve)
        assert run.hours * 3600 == pytest.approx(sum(each.measurement.seconds for each in snapshot.records()))


def test_the_figures_show_each_runs_front_and_curve(folders):
    _, compared = compare_runs([snapshot_of_run(folder) for folder in folders])
    *fronts, volumes = map(as_plotly, draw_runs(compared))
    for number, run in enumerate(compared):
        assert len(fronts) == 2  # planes
        for front in fronts:
            others, own = [trace for trace in front.data if trace.name == run.name]
            assert len(own.x) == len(run.snapshot.front())
            assert len(others.x) + len(own.x) == len(run.snapshot.trials)
        assert volumes.data[number].name == run.name
        assert tuple(volumes.data[number].y) == tuple(volume for _, volume in run.curve)


def test_the_command_prints_and_draws(folders, tmp_path, monkeypatch, capsys):
    printed = call(monkeypatch, capsys, "compare", *folders, "--out", tmp_path / "both.html", "--json").out
    assert [run["proposer"] for run in json.loads(printed)["runs"]] == ["random", "local"]
    html = (tmp_path / "both.html").read_text()
    assert "<h1>tiny and tiny-local compared</h1>" in html and html.count('class="figure" data-name') == 3
    assert "tiny-local (local)" in html and 'data-title="Hypervolume' in html


def test_runs_that_cannot_be_compared_are_refused_with_the_reason(folders, tmp_path):
    with pytest.raises(UserError, match="is neither a study file nor the name of a study"):
        snapshot_of_run(tmp_path)
    snapshots = [snapshot_of_run(folder) for folder in folders]
    narrower = replace(snapshots[1].study, objectives=Objectives.of("dice"))
    message = r"of different objectives can't be compared: dice, memory, latency \(tiny\) and dice \("
    with pytest.raises(UserError, match=message):
        compare_runs([snapshots[0], replace(snapshots[1], study=narrower)])


def test_a_run_of_another_version_is_reported_with_the_differences(folders, tmp_path):
    folder = tmp_path / "tiny"
    shutil.copytree(folders[0], folder)
    with closing(sqlite3.connect(folder / "study.db")) as database, database:
        ((text,),) = database.execute("SELECT value_json FROM study_user_attributes WHERE key = 'voxnas:study'")
        text = json.dumps(sealed({**unsealed_text(text), "search": {"sampler": "tpe"}}))
        database.execute("UPDATE study_user_attributes SET value_json = ? WHERE key = 'voxnas:study'", (text,))
    with pytest.raises(UserError) as told:
        snapshot_of_run(folder)
    unknown, version = map(str, told.value.mistakes)
    assert unknown.startswith("study 'tiny' in its database: search.sampler: unknown key")
    assert version == "this version of voxnas can't read study 'tiny': another one wrote it"
