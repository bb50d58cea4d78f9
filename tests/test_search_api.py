"""The Python API as a notebook uses it, on a study that has run."""

import subprocess
import sys

import pandas as pd
import plotly.graph_objects as go
import pytest
import torch
import voxnas
from conftest import write_study

import search.api
from search.config import LoadedStudy
from search.costs.macs import params_and_macs
from space.presets import PRESETS

COLUMNS = ["dice", "memory_bytes", "latency_s", "inference_memory_bytes", "macs", "params"]


@pytest.fixture
def study(tiny_run):
    return voxnas.open(tiny_run.runs / "tiny", data=tiny_run.data)


def test_importing_loads_nothing_heavy():
    code = (
        "import sys, voxnas\n"
        "heavy = {'torch', 'numpy', 'pandas', 'pydantic', 'plotly', 'ray', 'sqlalchemy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "assert voxnas.UserError and 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_package_has_the_names_of_the_api_and_no_others():
    assert voxnas.Study is search.api.Study and voxnas.open is search.api.open
    assert voxnas.__all__ == search.api.__all__ and set(voxnas.__all__) <= set(dir(voxnas))
    assert all(getattr(voxnas, name).__doc__ for name in voxnas.__all__)
    assert voxnas.__doc__ == search.api.__doc__ and voxnas.__version__[0].isdigit()
    with pytest.raises(AttributeError, match="module 'voxnas' has no attribute 'opne'"):
        voxnas.opne  # noqa: B018


def test_the_front_is_a_frame_with_a_row_per_network_and_units_in_its_names(study):
    front = study.front()
    assert isinstance(front, pd.DataFrame) and front.index.name == "trial"
    assert list(front.columns)[:6] == COLUMNS
    assert front["dice"].is_monotonic_decreasing and front["memory_bytes"].gt(1000).all()
    assert front["latency_s"].between(1e-5, 10).all()
    assert str(front["started"].dtype).startswith("datetime64") and (front["ended"] >= front["started"]).all()


def test_the_trials_hold_the_front_and_what_each_chose(study):
    trials = study.trials(axes=True)
    assert list(trials.index) == [0, 1, 2] and set(trials["state"]) == {"trained"}
    assert list(trials.index[trials["on_front"]]) == sorted(study.front().index)
    assert set(trials["width"]) <= {2, 4} and "width" not in study.trials().columns
    assert {"width", "repeats", "attention@bottleneck"} & set(study.front(axes=True).columns)


def test_networks_are_picked_by_rules_and_by_number_and_say_why(study):
    best = study.best()
    assert best.trial == study.front().index[0] and best.dice == study.front()["dice"].iloc[0]
    assert study.pick("best") == best and study.knee() == study.pick("knee")
    assert study.pick("cheapest:dice>=0").costs.memory_bytes == study.front()["memory_bytes"].min()
    assert str(best).startswith(f"trial {best.trial}, the best of a front of")
    assert study.pick(best.trial).architecture == best.architecture
    with pytest.raises(voxnas.UserError, match="there is no trial 17; the study has trials 0 to 2"):
        study.pick(17)


def test_a_built_network_segments_with_its_trained_weights(study):
    x = torch.randn(1, 1, 5, 24, 24)
    nets = [study.build("best"), study.build(study.best().trial)]
    with torch.no_grad():
        first, again = (net(x) for net in nets)
    assert first.shape == (1, 3, 5, 24, 24) and torch.equal(first, again)
    fresh = study.build("best", weights=False)
    assert not fresh.training and sum(p.numel() for p in fresh.parameters()) == study.best().costs.params
    weights = dict(nets[0].state_dict())
    assert any(not torch.equal(weights[name], each) for name, each in fresh.state_dict().items())


def test_a_trial_without_weights_is_named(study):
    best = study.best().trial
    weights = study.folder / "trials" / f"{best:06d}" / "best.safetensors"
    aside = weights.rename(weights.with_suffix(".aside"))
    try:
        with pytest.raises(voxnas.UserError, match=f"trial {best}: its weights were deleted"):
            study.build(best)
    finally:
        aside.rename(weights)


def test_the_front_is_drawn_in_the_objectives_units(study):
    figure = study.plot_front()
    assert isinstance(figure, go.Figure) and figure.layout.xaxis.title.text == "Training memory (MiB)"
    bright = next(trace for trace in figure.data if trace.name == "Pareto front")
    assert sorted(bright.x) == pytest.approx(sorted(study.front()["memory_bytes"] / 2**20))
    assert study.plot_front(x="latency", y="memory", z="dice").data[0].type == "scatter3d"


def test_importance_from_too_few_trials_is_refused(study):
    with pytest.raises(voxnas.UserError, match="too few trials for importances: PED-ANOVA needs ten"):
        study.plot_importance()


def test_importances_of_a_larger_study_are_drawn(tmp_path):
    from synthetic_study import synthetic_records, synthetic_study, write_synthetic_study

    write_synthetic_study(tmp_path, "made", synthetic_records(40))
    study = voxnas.Study(LoadedStudy(synthetic_study("made"), tmp_path / "made.yaml", None), runs=tmp_path)
    figure = study.plot_importance()
    assert figure.data[0].type == "bar" and sum(figure.data[0].x) == pytest.approx(1.0)


def test_a_study_file_runs_from_python_and_is_opened_again(tmp_path):
    made = write_study(tmp_path)
    study = voxnas.Study.from_yaml(
        made.file, overrides={"training.epochs": 1, "search.proposer": "random", "name": "again"}, runs=made.runs
    )
    assert study.settings.training.epochs == 1 and repr(study).startswith("Study('again'")
    with pytest.raises(voxnas.UserError, match="nothing has run yet"):
        study.front()
    assert len(study.run(trials=1).records) == 1
    opened = voxnas.open("again", runs=made.runs, data=made.data)
    assert opened.settings == study.settings and len(opened.trials()) == 1
    assert len(opened.run(trials=2).records) == 2  # the run's own settings, not those of the file alone
    assert list(study.trials().index) == [0, 1]


def test_where_the_data_is_not_found_results_are_read_and_running_is_refused(tiny_run, tmp_path):
    file = tmp_path / "tiny.yaml"
    file.write_text(tiny_run.file.read_text().replace("path: phantom", "path: elsewhere"))
    study = voxnas.Study.from_yaml(file, runs=tiny_run.runs)
    assert len(study.trials()) == 3
    with pytest.raises(voxnas.UserError, match="the data folder 'elsewhere' was not found; pass data= or set VOXNAS"):
        study.run()


def test_a_space_gives_random_networks_that_can_be_priced(study, tiny_run):
    space = voxnas.space(tiny_run.file, data=tiny_run.data)
    assert space.size == 12 and {axis.name for axis in space.axes} >= {"width", "repeats"}
    networks = space.sample(5, seed=3)
    assert networks == space.sample(5, seed=3) and len(set(networks)) > 1
    costs = voxnas.predict_costs(networks[0], space.context, batch=1)
    assert (costs.params, costs.macs) == params_and_macs(networks[0], space.context)
    assert costs.memory_bytes > costs.inference_memory_bytes > 0
    assert "12 combinations" in repr(space)


def test_a_space_needs_no_data_where_its_context_is_given(tiny_run, tmp_path):
    file = tmp_path / "alone.yaml"
    file.write_text(tiny_run.file.read_text().replace("path: phantom", "path: elsewhere"))
    context = voxnas.Context((8, 32, 32), (5.0, 1.0, 1.0), 2, 4)
    space = voxnas.space(file, context=context)
    assert space.context == context and voxnas.predict_costs(space.sample()[0], context).params > 0
    with pytest.raises(voxnas.UserError, match="the data folder 'elsewhere' was not found"):
        voxnas.space(file)


def test_a_papers_network_is_priced_by_name():
    preset = PRESETS["csam_unet"]
    context = voxnas.Context((4, 32, 32), (1.0, 1.0, 1.0), 1, 2)
    costs = voxnas.predict_costs("csam_unet", context)
    assert costs.params == params_and_macs(preset.architecture, context)[0]
    assert voxnas.predict_costs(dict(preset.architecture.entries), context) == costs
    with pytest.raises(voxnas.UserError, match="no network is called 'csam_une'; did you mean 'csam_unet'"):
        voxnas.predict_costs("csam_une")
    with pytest.raises(voxnas.UserError, match="predict_costs needs context=Context"):
        voxnas.predict_costs(preset.architecture)


def test_the_command_line_writes_the_same_tables_as_csv(study, tiny_run, tmp_path):
    for verb, frame in (("front", study.front(axes=True)), ("trials", study.trials(axes=True))):
        file = tmp_path / f"{verb}.csv"
        command = [sys.executable, "-m", "search.cli", verb, "tiny", "--runs", str(tiny_run.runs), "--csv", str(file)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        written = pd.read_csv(file, index_col="trial")
        assert list(written.columns) == list(frame.columns)
        assert written["memory_bytes"].tolist() == frame["memory_bytes"].tolist()
