"""Whole studies in real processes: resume after kill -9, one driver, kept weights, the read-only commands."""

import json
import os
import re
import signal
import sqlite3
import sys
from functools import partial
from unittest.mock import Mock

import pytest
import torch
from conftest import STUDY, quiet_view, write_study
from forked import call_forked, kill_when, started, wait_for
from test_search_cli import call

from search.analysis.front import front_json
from search.analysis.snapshot_reader import snapshot_of
from search.cli.check import check_study
from search.config import UserError, load_study
from search.costs.price import predict_costs
from search.proposers.propose import PROPOSERS, make_proposer, propose_new
from search.runner import pricer
from search.runner.evaluate import versions
from search.runner.local import run_study
from search.runner.plan import make_plan
from search.runner.pricer import Pricer, price_table
from search.runner.run import problem_of
from search.storage import read_records, read_study_attribute
from search.storage.study_attributes import REFERENCE
from search.visualization.report import render
from space.unet import UNet


def plan_of(made, *overrides):
    return make_plan(load_study(made.file, overrides=overrides), runs=made.runs)


def test_a_finished_study_has_the_planned_trials(tiny_run):
    plan = plan_of(tiny_run)
    records = read_records(plan.url, "tiny")
    assert [record.state for record in records] == ["trained"] * 3
    assert len({record.architecture.fingerprint for record in records}) == 3
    for record in records:
        assert len(record.measurement.epochs) == 2 and 0 <= record.measurement.dice <= 1
        assert {case.case for case in record.measurement.cases} == set(plan.fold.validation)
    front = snapshot_of(load_study(tiny_run.file), runs=tiny_run.runs).front()
    kept = {int(path.parent.name) for path in plan.folder.glob("trials/*/best.safetensors")}
    assert kept == {record.number for record in front}
    assert not list(plan.folder.glob("trials/*/*.pt"))


def test_a_network_is_built_once_of_abstract_tensors_and_once_for_latency_and_training(tmp_path, monkeypatch):
    builds, init = [], UNet.__init__

    def count(network, architecture, **named):
        init(network, architecture, **named)
        builds.append((architecture.fingerprint, type(next(network.parameters()).data).__name__))

    monkeypatch.setattr(UNet, "__init__", count)
    monkeypatch.setattr(pricer, "predict_costs", predict_costs)  # not what another test predicted
    (record,) = run_study(
        plan_of(write_study(tmp_path), "objectives.latency=record"), trials=1, view=quiet_view()
    ).records
    assert record.state == "trained" and record.measurement.costs.latency
    own = [kind for fingerprint, kind in builds if fingerprint == record.architecture.fingerprint]
    assert sorted(own) == ["AbstractTensor", "Tensor"]


def test_a_study_prices_each_of_its_first_networks_once(tmp_path, monkeypatch):
    priced, predict = [], pricer.predict_costs
    monkeypatch.setattr(
        pricer,
        "predict_costs",
        lambda architecture, *args, **named: priced.append(architecture) or predict(architecture, *args, **named),
    )
    run_study(plan_of(write_study(tmp_path), "search.proposer=known-cost"), trials=1, view=quiet_view())
    assert len(priced) == len(set(priced)) == 13  # the whole space, and nnU-Net's network as a reference


def test_a_study_with_latency_is_refused_on_other_threads_before_the_first_step(tmp_path):
    made = write_study(
        tmp_path, STUDY.replace("latency: {budget: 60 s}", "latency: minimize").replace("epochs: 2", "epochs: 1")
    )
    run_study(plan_of(made), trials=1, view=quiet_view())
    message = (
        "latency was measured on .*, 1 thread, float32; this run would measure it on .*, 2 threads, float32: the two"
    )
    with pytest.raises(UserError, match=message):
        run_study(plan_of(made, "executor.threads=2"), trials=2, view=quiet_view())
    with pytest.raises(UserError, match=message):
        check_study(plan_of(made, "executor.threads=2"), costs=False, json=False)
    torch.set_num_threads(1)
    plan = plan_of(made)
    assert len(read_records(plan.url, "tiny")) == 1
    assert len(run_study(plan, trials=2, view=quiet_view()).records) == 2


def latency_notes(caplog):
    """Return what was logged about latencies; on a busy machine a run also says that it waits for the device."""
    return [each.getMessage() for each in caplog.records if each.name == "voxnas.latency"]


def test_latencies_of_another_torch_are_noted_before_the_first_step(tmp_path, monkeypatch, caplog):
    made = write_study(
        tmp_path, STUDY.replace("latency: {budget: 60 s}", "latency: minimize").replace("epochs: 2", "epochs: 1")
    )
    run_study(plan_of(made), trials=1, view=quiet_view())
    assert not latency_notes(caplog)
    newer = tuple((name, "99.0" if name == "torch" else version) for name, version in versions())
    monkeypatch.setattr("search.runner.retime.versions", lambda: newer)
    assert len(run_study(plan_of(made), trials=1, view=quiet_view()).records) == 1
    (note,) = latency_notes(caplog)
    assert re.fullmatch(r"latency was measured with torch \S+; this run measures it with torch 99.0, whose .*", note)


def test_latencies_are_measured_again_on_other_threads_and_the_study_resumes(tmp_path):
    made = write_study(
        tmp_path, STUDY.replace("latency: {budget: 60 s}", "latency: minimize").replace("epochs: 2", "epochs: 1")
    )
    run_study(plan_of(made), trials=1, view=quiet_view())
    other = plan_of(made, "executor.threads=2")
    begun = read_study_attribute(other.url, "tiny", REFERENCE)
    outcome = run_study(other, trials=2, view=quiet_view(), measure_again=True)
    torch.set_num_threads(1)
    assert [record.measurement.costs.latency.threads for record in outcome.records] == [2, 2]
    stored = read_records(other.url, "tiny")
    assert [record.measurement.costs.latency for record in stored] == [
        record.measurement.costs.latency for record in outcome.records
    ]
    with sqlite3.connect(other.folder / "study.db") as connection:
        rows = connection.execute("SELECT value FROM trial_values WHERE objective = 2 ORDER BY trial_id").fetchall()
    assert [value for (value,) in rows] == [record.measurement.costs.latency.median_s for record in stored]
    assert read_study_attribute(other.url, "tiny", REFERENCE)["latency"] != begun["latency"]
    assert {each.measurement.costs.latency.torch for each in stored} == {dict(versions())["torch"]}


@pytest.mark.parametrize("place", ["update_costs", "reference_point"])
def test_a_run_that_ended_while_it_measured_latencies_again_is_completed_first(tmp_path, monkeypatch, place):
    made = write_study(
        tmp_path, STUDY.replace("latency: {budget: 60 s}", "latency: minimize").replace("epochs: 2", "epochs: 1")
    )
    before = run_study(plan_of(made), trials=2, view=quiet_view())
    left = [1]

    def killed(*arguments, real):
        if not left:
            raise KeyboardInterrupt
        left.pop()
        return real(*arguments)

    room = {"update_costs": "search.storage.store", "reference_point": "search.runner.run"}[place]
    if place == "reference_point":
        left.clear()
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(f"{room}.{place}", partial(killed, real=getattr(sys.modules[room], place)))
        run_study(plan_of(made, "executor.threads=2"), trials=2, view=quiet_view(), measure_again=True)
    for threads in (1, 2):
        plan = plan_of(made, f"executor.threads={threads}")
        for start in (lambda plan: check_study(plan, costs=False, json=False), partial(run_study, trials=3)):
            with pytest.raises(UserError, match=r"tiny: process .* and has not finished.*; run with --retime"):
                start(plan, **({"view": quiet_view()} if isinstance(start, partial) else {}))
    outcome = run_study(plan_of(made, "executor.threads=1"), trials=2, view=quiet_view(), measure_again=True)
    assert {each.measurement.latency.threads for each in outcome.records} == {1}
    assert len(run_study(plan_of(made), trials=2, view=quiet_view()).records) == len(before.records) == 2


def test_a_driver_killed_between_record_and_checkpoint_leaves_no_checkpoint(tmp_path, monkeypatch):
    made = write_study(tmp_path, STUDY.replace("epochs: 2", "epochs: 1"))
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("search.runner.driver.delete_checkpoints", Mock(side_effect=KeyboardInterrupt))
        run_study(plan_of(made), trials=1, view=quiet_view())
    plan = plan_of(made)
    assert [record.state for record in read_records(plan.url, "tiny")] == ["trained"]
    assert list(plan.folder.rglob("last.pt"))
    run_study(plan, trials=1, view=quiet_view())
    assert not list(plan.folder.rglob("last.pt")) and list(plan.folder.rglob("best.safetensors"))


@pytest.mark.parametrize("harm", ["cut", "empty", "folder", "pipe", "binary"])
def test_a_damaged_copy_of_the_study_file_is_named_and_written_again(tmp_path, harm, caplog):
    made = write_study(tmp_path, STUDY.replace("epochs: 2", "epochs: 1"))
    run_study(plan_of(made), trials=1, view=quiet_view())
    kept = made.runs / "tiny" / "study.yaml"
    kept.unlink()
    harms = {"folder": kept.mkdir, "pipe": lambda: os.mkfifo(kept), "binary": lambda: kept.write_bytes(bytes(99))}
    cut = made.file.read_text().partition("objectives")[0] + "objectives: {"
    harms.get(harm, lambda: kept.write_text(cut if harm == "cut" else ""))()
    run_study(plan_of(made), trials=1, view=quiet_view())
    assert kept.read_text() == made.file.read_text() and f"{kept} is damaged: it is written again" in caplog.text
    caplog.clear()
    run_study(plan_of(made), trials=1, view=quiet_view())
    assert "damaged" not in caplog.text


def test_running_again_adds_nothing_and_more_trials_resume_the_study(tmp_path):
    made = write_study(tmp_path)
    assert len(run_study(plan_of(made), trials=1, view=quiet_view()).records) == 1
    again = run_study(plan_of(made), trials=1, view=quiet_view())
    assert len(again.records) == 1 and again.why == "1 trial is done"
    spent = run_study(plan_of(made, "search.hours=1e-6"), trials=2, view=quiet_view())
    assert len(spent.records) == 1 and "of the 3.6 ms allowed" in spent.why
    assert len(run_study(plan_of(made), trials=2, view=quiet_view()).records) == 2


def test_a_study_of_a_small_space_ends_when_every_network_is_known(tmp_path):
    made = write_study(
        tmp_path,
        STUDY.replace("width: [2, 4], repeats: [1, 2], ", "").replace(
            "width_cap: 16", "width: 2, repeats: 1, width_cap: 8"
        ),
    )
    outcome = run_study(plan_of(made, "training.epochs=1"), trials=10, view=quiet_view())
    assert outcome.why == "every network of the space has been tried"
    assert len(outcome.records) == 3  # none, and ISA with one convolution or two


def test_after_kill_9_the_same_command_resumes_and_loses_nothing(tmp_path):
    made = write_study(tmp_path, STUDY.replace("epochs: 2, steps_per_epoch: 4", "epochs: 6, steps_per_epoch: 6"))
    command = ("run", made.file, "--runs", made.runs, "--trials", 3)
    folder = made.runs / "tiny"

    def two_epochs_of_trial_1():
        file = folder / "trials" / "000001" / "epochs.jsonl"
        return file.exists() and len(file.read_text().splitlines()) >= 2

    with started(*command) as first:
        kill_when(two_epochs_of_trial_1, first)
    url = f"sqlite:///{folder / 'study.db'}"
    before = read_records(url, "tiny")
    assert [record.state for record in before] == ["trained", "running"]
    done = call_forked(*command)
    assert done.returncode == 0, done.stderr
    after = read_records(url, "tiny")
    assert [record.state for record in after] == ["trained"] * 3
    assert after[0] == before[0]
    assert after[1].architecture == before[1].architecture and len(after[1].attempts) == 1
    assert after[1].measurement.costs == before[1].measurement.costs  # priced once
    assert len(after[1].measurement.epochs) == 6
    assert "trial 1: epoch 1/6" not in done.stdout  # resumed, not started over
    assert "trial 1: epoch 6/6" in done.stdout


def test_ctrl_c_stops_cleanly_and_explains_how_to_resume(tmp_path):
    made = write_study(tmp_path, STUDY.replace("epochs: 2", "epochs: 5000"))
    command = ("run", made.file, "--runs", made.runs)
    with started(*command) as running:
        wait_for(lambda: list(made.runs.glob("tiny/trials/000000/last.pt")), running)
        second = call_forked(*command)
        assert second.returncode == 2 and f"tiny is already running, in process {running.pid} on" in second.stderr
        running.send_signal(signal.SIGINT)
        assert running.wait(60) == 130
    assert "Stopped. To resume, run: voxnas run" in running.stdout and "Traceback" not in running.stderr


def test_a_trial_recorded_but_not_told_is_told_on_resume(tmp_path):
    made = write_study(tmp_path)
    plan = plan_of(made, "training.epochs=1")
    run_study(plan, trials=1, view=quiet_view())
    with sqlite3.connect(plan.folder / "study.db") as database:
        database.execute("UPDATE trials SET state = 'RUNNING'")
        database.execute("DELETE FROM trial_values")
    run_study(plan, trials=1, view=quiet_view())
    with sqlite3.connect(plan.folder / "study.db") as database:
        assert database.execute("SELECT state FROM trials").fetchall() == [("COMPLETE",)]
        assert database.execute("SELECT count(*) FROM trial_values").fetchone() == (3,)


@pytest.mark.parametrize(
    ("wanted", "budgeted", "message"),
    [
        (
            "memory: minimize",
            "memory: {budget: 1 KiB}",
            "memory: 0.0% of 12 random networks meet the budget of 1.0 KiB",
        ),
        ("budget: 60 s", "budget: 0.001 ms", "latency: 0.0% of 12 random networks meet the budget of 0.0 ms"),
    ],
)
def test_a_budget_that_nothing_meets_is_refused_before_anything_trains(tmp_path, wanted, budgeted, message):
    made = write_study(tmp_path, STUDY.replace(wanted, budgeted))
    for _ in range(2):
        with pytest.raises(UserError, match="no network meets the budgets, so nothing would be trained") as error:
            run_study(plan_of(made), trials=1, view=quiet_view())
    assert f"objectives.{message}" in str(error.value)
    assert read_records(f"sqlite:///{made.runs / 'tiny' / 'study.db'}", "tiny") == []


def test_a_study_that_its_budget_refused_runs_under_the_same_name_once_the_budget_is_raised(tmp_path):
    made = write_study(tmp_path, STUDY.replace("memory: minimize", "memory: {budget: 1 KiB}"))
    with pytest.raises(UserError, match="raise them or open the space"):
        run_study(plan_of(made), trials=1, view=quiet_view())
    made.file.write_text(STUDY)
    assert [record.state for record in run_study(plan_of(made), trials=1, view=quiet_view()).records] == ["trained"]
    assert (made.runs / "tiny" / "study.yaml").read_text() == STUDY


def test_networks_over_budget_are_reported_with_the_reason_and_not_trained(tmp_path):
    made = write_study(tmp_path, STUDY.replace("memory: minimize", "params: {budget: 1500}"))  # few of 12 networks
    outcome = run_study(plan_of(made, "training.epochs=1", "search.seed=1"), trials=1, view=quiet_view())
    assert [record.state for record in outcome.records].count("trained") == 1
    over = tuple(record for record in outcome.records if record.state == "over budget")
    assert over and not any(record.measurement.epochs for record in over)
    snapshot = snapshot_of(load_study(made.file, overrides=["search.seed=1"]), runs=made.runs)
    snapshot = snapshot.only(snapshot.states == "over budget")
    assert json.loads(front_json(snapshot))["front"] == []
    assert "is over the budget of" in render(snapshot)


@pytest.mark.parametrize("proposer", PROPOSERS)
def test_a_proposer_is_reproducible_and_never_repeats_a_network(tiny_run, proposer):
    plan = plan_of(tiny_run, f"search.proposer={proposer}")
    records = read_records(plan.url, "tiny")
    reference = snapshot_of(load_study(tiny_run.file), runs=tiny_run.runs).reference
    prices = Pricer(plan, "cpu", price_table(plan, device="cpu", threads=1))
    problem = problem_of(plan, reference=reference, price=prices)
    proposals = [propose_new(make_proposer(proposer, problem), problem, records) for _ in range(2)]
    assert proposals[0] == proposals[1]
    known = {record.architecture.fingerprint for record in records}
    assert plan.space.architecture(proposals[0].decisions).fingerprint not in known


def test_names_from_a_study_are_escaped_in_the_report(tiny_run):
    html = render(snapshot_of(load_study(tiny_run.file), runs=tiny_run.runs))
    assert "<h1>tiny</h1>" in html
    assert "cdn" not in html.split("</script>", 1)[1]  # the page itself fetches nothing


def test_the_commands_print_their_results(tiny_run, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "160")

    def called(*arguments, code=0):
        return call(monkeypatch, capsys, *arguments, "--runs", tiny_run.runs, code=code)

    checked = called("check", tiny_run.file, "--costs").out
    for words in (
        "6",
        "4 to train, 2 to validate",
        "5 x 24 x 24 voxels",
        "can be built",
        "0 of 3 trials (3 done)",
        "median",
    ):
        assert words in checked
    shown = json.loads(called("front", tiny_run.file, "--json").out)
    assert shown["objectives"] == {"dice": "maximize", "memory": "minimize", "latency": "minimize"}
    assert all({"trial", "dice", "memory", "latency", "architecture"} <= set(row) for row in shown["front"])
    assert "report.html" in called("report", tiny_run.file).out
    assert "nothing has run yet" in called("front", tiny_run.file, "--set", "name=never", code=2).err


def test_invalid_data_is_reported_before_anything_trains(tmp_path):
    made = write_study(tmp_path)
    next((made.data / "phantom" / "labelsTr").glob("*.nii.gz")).write_bytes(b"no volume")
    with pytest.raises(UserError, match="labelsTr"):
        plan_of(made)
    with pytest.raises(UserError, match="data.fold: there is no fold 7; the folds are numbered from 0 to 2"):
        plan_of(write_study(tmp_path / "other"), "data.fold=7")
