"""Trackers: each trial is a run of the real library, and continues after a stop; no fault of one stops a study."""

import importlib.util
import json
import logging
import os
import sqlite3
import sys
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import get_args

import pytest
from conftest import STUDY, quiet_view, write_study

from search.config import UserError, load_study
from search.config.schema import TrackerName
from search.tracking.contents import is_tracked, points_of, run_of
from search.tracking.ledger import Entry, Ledger
from search.tracking.recorder import Recorder
from search.tracking.registry import explain_missing
from search.tracking.tracker import TrackedStudy
from search.trials.epochs import Epoch
from search.trials.records import Costs, Latency, Measurement, Record
from space.architecture import Architecture

pytestmark = [  # of the trackers' own code
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
COSTS = Costs(1000, 20_000, 4096, 512, Latency(0.01, 0.001, 20, True, "a device", 2, "float32"))
EPOCHS = tuple(Epoch(number, 1.0 / number, 0.1 * number if number % 2 else None, 2.0) for number in range(1, 6))


def needs(name):
    """Skip where a tracker's package is not installed; the development environment has TensorBoard and MLflow."""
    missing = importlib.util.find_spec(name) is None
    return pytest.param(name, marks=pytest.mark.skipif(missing, reason=f"the optional package {name} is not installed"))


def record(number=0, *, epochs=0, state="running", reason="", **changes):
    dice = 0.5 if state == "trained" else None
    return Record(
        number=number,
        architecture=Architecture.of({"width": 8, "attention@skips": "isa", "pooling": ((1, 2, 2),)}),
        decisions=(),
        seed=3,
        fold=1,
        measurement=Measurement(state, reason, COSTS, dice, epochs=EPOCHS[:epochs], recipe="light-1", machine="host"),
        started="2026-01-01T00:00:00+00:00",
        ended="" if state == "running" else "2026-01-01T00:01:00+00:00",
        **changes,
    )


@pytest.fixture
def study(tmp_path):
    return TrackedStudy("acdc", "0123456789abcdef", tmp_path / "runs" / "acdc", tmp_path / "runs")


def write(names, study, *records):
    """Write records one after another, each before the next one comes."""
    recorder = Recorder(names, study)
    with closing(recorder):
        for each in records:
            recorder.show([each])
            with recorder.changed:
                recorder.changed.wait_for(lambda: not recorder.waiting, timeout=0.05)


def read_tensorboard(study):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = {}
    for folder in sorted((study.folder / "tensorboard").iterdir()):
        events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
        curves = {name: [(each.step, each.value) for each in events.Scalars(name)] for name in events.Tags()["scalars"]}
        state = [each.text_content if hasattr(each, "text_content") else each for each in events.Tags()["tensors"]]
        texts = [each.tensor_proto.string_val[0].decode() for name in state for each in events.Tensors(name)]
        final = {name.removeprefix("final/"): each[-1][1] for name, each in curves.items() if name.startswith("final/")}
        found[int(folder.name)] = {"curves": curves, "final": final, "state": texts[-1] if texts else "running"}
    return found


def read_mlflow(study):
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{study.runs / 'mlflow.db'}")
    experiment = client.get_experiment_by_name(study.name)
    found = {}
    for run in client.search_runs([experiment.experiment_id]):
        history = partial(client.get_metric_history, run.info.run_id)
        curves = {name: sorted((each.step, each.value) for each in history(name)) for name in run.data.metrics}
        state, reason = (run.data.tags.get(f"voxnas.{name}", "") for name in ("state", "reason"))
        shown = f"{state}: {reason}" if reason else state or "running"
        number = int(run.data.tags["voxnas.trial"])
        assert number not in found, "a trial has two runs"
        found[number] = {"curves": curves, "final": run.data.metrics, "state": shown, "run": run}
    return found


def wandb_records(file):
    """Yield the records of an offline run, whose file is a log in LevelDB's format: blocks of 32 KiB after a header."""
    data, at, whole = file.read_bytes(), 7, b""
    while at + 7 <= len(data):
        left = 32768 - (at % 32768)
        if left < 7:
            at += left
            continue
        size, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        whole += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # the whole of a record, or its last part
            yield whole
            whole = b""


def read_wandb(study):
    from wandb.proto import wandb_internal_pb2

    found = {}
    for file in sorted(study.folder.glob("wandb/offline-run-*/*.wandb")):
        number = int(file.stem.rpartition("-")[2])
        into = found.setdefault(number, {"curves": {}, "final": {}, "state": ""})
        for data in wandb_records(file):
            entry = wandb_internal_pb2.Record()
            entry.ParseFromString(data)
            for item in entry.summary.update:
                into["final"][item.key or ".".join(item.nested_key)] = json.loads(item.value_json)
            values = {item.key or item.nested_key[0]: json.loads(item.value_json) for item in entry.history.item}
            for name in values.keys() - {"epoch"}:
                if not name.startswith("_"):
                    into["curves"].setdefault(name, []).append((values["epoch"], values[name]))
        final = into["final"]
        into["state"] = f"{final['state']}: {final['reason']}" if final.get("reason") else final["state"]
    return found


def read_trackio(study):
    from search.tracking.trackio import FOLDER

    (file,) = (study.runs / FOLDER).glob("acdc*.db")
    found = {}
    with closing(sqlite3.connect(file)) as connection:
        rows = connection.execute("SELECT run_name, step, metrics FROM metrics ORDER BY id").fetchall()
    for name, _, text in rows:
        values = json.loads(text)
        into = found.setdefault(int(name.rpartition("-")[2]), {"curves": {}, "final": {}, "state": "running"})
        if "state" in values:
            into["state"] = f"{values['state']}: {values['reason']}" if values["reason"] else values["state"]
        for key in values.keys() - {"epoch", "state", "reason"}:
            if key.startswith("final/"):
                into["final"][key.removeprefix("final/")] = values[key]
            else:
                into["curves"].setdefault(key, []).append((values["epoch"], values[key]))
    return found


READ = {"tensorboard": read_tensorboard, "mlflow": read_mlflow, "wandb": read_wandb, "trackio": read_trackio}
LOSS = [(epoch.number, pytest.approx(epoch.loss)) for epoch in EPOCHS]
DICE = [(epoch.number, pytest.approx(epoch.dice)) for epoch in EPOCHS if epoch.dice is not None]


@pytest.fixture
def own_trackio(study, monkeypatch):
    """Trackio reads its folder when it is imported; later tests of this process import it anew."""
    import sys

    monkeypatch.delenv("TRACKIO_DIR", raising=False)
    yield
    for name in [each for each in sys.modules if each.partition(".")[0] == "trackio"]:
        del sys.modules[name]


@pytest.mark.parametrize("name", [needs(each) for each in get_args(TrackerName)])
def test_a_trial_is_one_run_that_continues_after_a_kill_and_repeats_no_step(name, study, own_trackio, monkeypatch):
    for variable in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("NETRC", str(study.runs / "none"))  # nobody is logged in
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    write([name], study, record(epochs=1), record(epochs=2), record(1, epochs=2))
    over, late = "training memory is over the budget", record(4, state="over budget")
    write(
        [name],
        study,
        record(epochs=2),  # a driver starts with what the database holds
        record(epochs=4),
        record(epochs=5, state="trained"),
        record(1, epochs=3, state="stopped", reason="ranked 3 of 3"),
        record(2, state="failed", reason="out of memory"),
        replace(late, measurement=replace(late.measurement, reason=over)),
        record(3, epochs=1),
    )
    write([name], study, record(epochs=5, state="trained"))
    found = READ[name](study)
    assert found.keys() == {0, 1, 2, 3}
    assert found[0]["curves"]["loss"] == LOSS and found[0]["curves"]["dice"] == DICE
    assert found[1]["curves"]["loss"] == LOSS[:3]
    final = found[0]["final"]
    assert final["memory_bytes"] == 4096 and final["macs"] == 20_000 and final["params"] == 1000
    assert final["latency_s"] == pytest.approx(0.01) and final["final_dice"] == 0.5
    states = [found[number]["state"] for number in range(3)]
    assert states == ["trained", "stopped: ranked 3 of 3", "failed: out of memory"]


@pytest.mark.skipif(importlib.util.find_spec("mlflow") is None, reason="the optional package mlflow is not installed")
def test_mlflow_shows_architecture_states_and_times(study, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    trials = [record(epochs=2, state="trained", reference="csam_unet"), record(1, state="failed"), record(2, epochs=1)]
    write(["mlflow"], study, *trials)
    runs = [read_mlflow(study)[number]["run"] for number in range(3)]
    assert [run.info.status for run in runs] == ["FINISHED", "FAILED", "SCHEDULED"]
    assert runs[0].data.params == {
        "width": "8",
        "attention/skips": "isa",
        "pooling": "[[1, 2, 2]]",
        "seed": "3",
        "fold": "1",
    }
    assert runs[0].info.run_name == "trial 0 (csam_unet)" and runs[0].data.tags["voxnas.kind"] == "reference csam_unet"
    assert runs[0].data.tags["voxnas.machine"] == "host"
    assert runs[0].info.end_time - runs[0].info.start_time == 60_000
    other = replace(study, study_id="f" * 16, folder=study.runs / "again")  # deleted, and begun again
    write(["mlflow"], other, record(7, epochs=1))
    assert read_mlflow(study).keys() == {0, 1, 2, 7}


@pytest.mark.parametrize("name", [needs("tensorboard")])
def test_a_tracker_that_fails_is_a_warning_and_the_next_run_writes_the_rest(name, study, caplog):
    study.folder.mkdir(parents=True)
    (study.folder / "tensorboard").touch()  # no folder can be made there
    write([name], study, record(epochs=1), record(1, epochs=2, state="trained"))
    assert [each.message for each in caplog.records if each.levelno >= logging.WARNING] == [
        f"track: tensorboard failed ([Errno 20] Not a directory: '{study.folder}/tensorboard/000000'); "
        "the study continues without it, and the next run writes the rest"
    ]
    (study.folder / "tensorboard").unlink()
    write([name], study, record(epochs=3, state="trained"), record(1, epochs=2, state="trained"))
    found = read_tensorboard(study)
    assert found[0]["curves"]["loss"] == LOSS[:3] and found[1]["state"] == "trained"


def test_a_write_that_fails_is_repeated_by_the_next_driver_and_one_cut_by_a_kill_is_not(study):
    from search.tracking.recorder import Channel

    class Breaking:
        """A tracker whose disk is full at the third point."""

        written: list[int] = []

        def begin(self, run, *, known):
            return known or "a run"

        def log(self, run, points):
            if any(point.place == 3 for point in points) and len(self.written) == 2:
                raise OSError(28, "No space left on device")
            self.written += [point.place for point in points]

        def end(self, run, ending):
            self.written.append(0)

    def channel():
        return Channel("tensorboard", Breaking(), Ledger(study.folder / "ledger.jsonl"), {})

    first = channel()
    first.write(record(epochs=2), study)
    with pytest.raises(OSError, match="No space left"):
        first.write(record(epochs=3), study)
    Breaking.written.append(-1)
    channel().write(record(epochs=4), study)
    assert Breaking.written == [1, 2, -1, 3, 4]
    Ledger(study.folder / "ledger.jsonl").write(Entry(0, "a run", points=5))  # killed before the write
    last = channel()
    last.write(record(epochs=5, state="trained"), study)
    last.write(record(epochs=5, state="trained"), study)
    assert Breaking.written == [1, 2, -1, 3, 4, 0]


def test_a_ledger_survives_a_line_that_was_cut_off(tmp_path):
    file = tmp_path / "ledger.jsonl"
    Ledger(file).write(Entry(1, "a", 2))
    with file.open("a") as opened:
        opened.write('\n{"trial": 1, "poi')
    again = Ledger(file)
    assert again.of(1) == Entry(1, "a", 2)
    again.write(Entry(1, "a", 3, ended=True))
    assert Ledger(file).entries == {1: Entry(1, "a", 3, ended=True)}


def test_a_changed_line_of_a_ledger_is_named_and_a_pipe_blocks_nothing(tmp_path, caplog):
    file = tmp_path / "ledger.jsonl"
    for points in (2, 3):
        Ledger(file).write(Entry(1, "a", points))
    file.write_text(file.read_text().replace('"points": 3', '"points": 8'))
    assert Ledger(file).of(1) == Entry(1, "a", 2)
    assert f"{file}:3: the content differs from its digest: the line is ignored" in caplog.text
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(OSError, match="Not a regular file"):
        Ledger(file)


def test_missing_packages_are_one_sentence_with_the_command_that_installs_them(monkeypatch, study, caplog):
    for name in ("mlflow", "wandb"):
        monkeypatch.setitem(sys.modules, name, None)  # as if it were not installed
    both = explain_missing(["mlflow", "wandb"])
    assert both == "track: mlflow, wandb: the packages are not installed; run pip install 'voxnas[mlflow,wandb]'"
    write(["mlflow"], study, record(epochs=1))
    assert [each.message for each in caplog.records] == [
        "track: mlflow: the package is not installed; run pip install 'voxnas[mlflow]'. The study runs without"
    ]


def test_networks_that_were_never_trained_are_no_runs():
    assert not is_tracked(record()) and not is_tracked(record(state="over budget"))
    assert is_tracked(record(epochs=1)) and is_tracked(record(state="failed"))


def test_the_trainings_of_a_trial_have_a_curve_each(study):
    both = record(epochs=2)
    epochs = (*both.measurement.epochs, Epoch(1, 0.9, 0.2, 5.0, member=1))
    points = points_of(replace(both, measurement=replace(both.measurement, epochs=epochs)))
    assert [point.values for point in points] == [
        {"loss": 1.0, "dice": 0.1},
        {"loss": 0.5},
        {"training_2/loss": 0.9, "training_2/dice": 0.2},
    ]
    begun = run_of(both, study).started_s
    assert [point.at_s - begun for point in points] == [2.0, 4.0, 9.0]


@pytest.mark.parametrize("name", [needs("tensorboard")])
def test_a_study_that_is_stopped_and_resumed_tracks_each_trial_once(name, tmp_path):
    from search.runner.local import run_study
    from search.runner.plan import make_plan

    text = STUDY.replace("epochs: 2", "epochs: 3") + f"track: {name}\n"
    made = write_study(tmp_path, text)
    plan = make_plan(load_study(made.file), runs=made.runs)

    class Stopping(type(quiet_view())):
        def on_epoch(self, record, epoch):
            super().on_epoch(record, epoch)
            if epoch.number == 2:
                raise KeyboardInterrupt

    from rich.console import Console

    with pytest.raises(KeyboardInterrupt):
        run_study(plan, trials=2, view=Stopping(Console(quiet=True), name="tiny", trials=2))
    outcome = run_study(plan, trials=2, view=quiet_view())
    found = read_tensorboard(TrackedStudy("tiny", "", Path(plan.folder), made.runs))
    assert found.keys() == {0, 1}
    for trial in outcome.records:
        epochs = trial.measurement.epochs
        curves = found[trial.number]["curves"]
        assert curves["loss"] == [(each.number, pytest.approx(each.loss, rel=1e-6)) for each in epochs]
        assert curves["dice"] == [(each.number, pytest.approx(each.dice, rel=1e-6)) for each in epochs]
        assert found[trial.number]["state"] == "trained"


def test_the_arms_of_an_ablation_are_tracked_too(tmp_path):
    from test_search_ablation import ABLATION, write_ablation

    from search.ablation.load import load_ablation

    made = write_ablation(tmp_path, ABLATION + "track: [mlflow, trackio]\n")
    loaded = load_ablation(made.file, runs=made.runs)
    assert loaded.study(loaded.settings[0], storage="sqlite:///study.db").study.track == ("mlflow", "trackio")


def test_an_unknown_tracker_is_refused_with_the_nearest_name(tmp_path):
    file = tmp_path / "tiny.yaml"
    file.write_text(STUDY + "track: tensorbord\n")
    with pytest.raises(UserError, match="track.*'tensorbord' is not known; did you mean 'tensorboard'"):
        load_study(file, need_data=False)
