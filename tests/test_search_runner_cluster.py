"""Studies on a Ray cluster of two raylets: faults of trials, and records equal to local ones."""

import gc
import os
import re
import shutil
import sys
import threading
import time
import warnings
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import cluster_trials
import psutil
import pytest
from cluster_trials import HERE, Quick, Watch
from conftest import STUDY, quiet_view, write_study
from test_real_data import case_names, subset
from test_search_ablation import ABLATION, write_ablation
from test_search_cli import call, words

from search.ablation.load import load_ablation
from search.ablation.plan import make_ablation_plan
from search.ablation.run import missing_count, run_ablation
from search.config import UserError, load_study
from search.export.trained import pack
from search.runner.cluster.executor import RayExecutor
from search.runner.local import LocalExecutor
from search.runner.local import run_study as run_locally
from search.runner.plan import Plan, make_plan
from search.runner.run import run_study
from search.storage import read_records

ROOT = HERE.parent
TINY = STUDY.replace("epochs: 2", "epochs: 3")
WILD = [f"training.{key}=1e30" for key in ("learning_rate", "clip_gradient")]


def start_cluster(*nodes):
    """Start raylets whose workers can import this checkout and its tests; the first is the head."""
    from ray.cluster_utils import Cluster

    os.environ["RAY_gcs_rpc_server_reconnect_timeout_s"] = "5"  # noqa: SIM112 (how long a driver waits for a head)
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 (at Ray's 15, tests in other processes starve the workers)
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(HERE)])
    os.environ["RAY_num_workers_soft_limit"] = "8"  # noqa: SIM112 (keep idle workers: each one imports torch)
    head, *others = nodes
    lean = {"include_dashboard": False, "include_log_monitor": False, "no_monitor": True}
    cluster = Cluster(initialize_head=True, head_node_args={**lean, **head})
    for node in others:
        cluster.add_node(**node)
    return cluster


def stop_cluster(cluster):
    """Stop a cluster and this process's connection to it."""
    import ray

    if ray.is_initialized() and ray.get_runtime_context().gcs_address == cluster.address:
        ray.shutdown()
    with processes_end(*cluster.list_all_nodes()):
        cluster.shutdown()


@contextmanager
def processes_end(*nodes):
    """Wait until the nodes' processes have ended; close what Ray leaves open, as its warnings would fail a test."""
    processes = [each.process for node in nodes for all_of in node.all_processes.values() for each in all_of]
    yield
    for process in processes:
        process.wait()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        del processes, nodes
        gc.collect()


def plan_of(folder, *overrides, text=TINY):
    folder.mkdir(exist_ok=True)
    made = write_study(folder, text) if not (folder / "tiny.yaml").exists() else None
    file = made.file if made else folder / "tiny.yaml"
    return make_plan(load_study(file, overrides=overrides), runs=folder / "runs")


def run(plan, cluster, trial, *, trials=3):
    executor = RayExecutor(plan, address=cluster.address, trial=getattr(cluster_trials, trial), stopwatch=Watch)
    return run_study(plan, trials=trials, view=quiet_view(), executor=executor)


def on(cluster):
    """Return what makes an executor of real trainings, which measures latency in an instant."""
    return partial(RayExecutor, address=cluster.address, stopwatch=Quick)


def workers(cluster, name):
    """Return the cluster's processes of an actor class."""
    raylets = [each.process.pid for node in cluster.list_all_nodes() for each in node.all_processes["raylet"]]
    found = []
    for process in (each for raylet in raylets for each in psutil.Process(raylet).children(recursive=True)):
        with suppress(psutil.NoSuchProcess):  # it has just ended
            if f"ray::{name}" in " ".join(process.cmdline()):
                found.append(process)
    return found


def outcomes(plan):
    """Check the invariants after a fault (no record twice, none running, Optuna agrees) and return the records."""
    records = read_records(plan.url, plan.study.name)
    assert [record.number for record in records] == list(range(len(records)))
    assert len({record.identity for record in records}) == len(records)
    assert "running" not in {record.state for record in records}
    return records


def wait_for(done, seconds=400.0):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := done():
            return found
        time.sleep(0.1)
    raise TimeoutError


@dataclass(frozen=True)
class Finished:
    """A study of `Troubled` trials, its records, and the trials, epochs and steps that the driver saw."""

    plan: Plan
    records: list
    why: str
    seen: list


@pytest.fixture(scope="module")
def troubled(cluster, tmp_path_factory):
    plan = plan_of(tmp_path_factory.mktemp("troubled"), "training.deadline=3 s")
    seen, view = [], quiet_view()
    view.on_activity = lambda record, activity: seen.append((record.number, activity.epoch, activity.done))
    executor = RayExecutor(plan, address=cluster.address, trial=cluster_trials.Troubled, stopwatch=Watch)
    outcome = run_study(plan, trials=6, view=view, executor=executor)
    return Finished(plan, outcomes(plan), outcome.why, seen)


def test_workers_report_their_steps_to_the_driver(troubled):
    assert {0, 6} <= {number for number, _, _ in troubled.seen} and {done for _, _, done in troubled.seen} == {1}
    assert {epoch for _, epoch, _ in troubled.seen} <= {1, 2, 3}
    slow = [each for each in troubled.seen if each[0] in (0, 6)]
    assert len(slow) == len(set(slow))  # each step once


def test_a_lost_process_resumes_from_its_checkpoint_and_the_attempt_is_recorded(troubled, cluster):
    plan, records = troubled.plan, troubled.records
    lost, last = records[1], records[6]
    assert lost.state == last.state == "trained" and troubled.why == "6 trials are done"
    (attempt,) = lost.attempts
    assert "was lost" in attempt and "resumed from its last checkpoint" in attempt
    assert not last.attempts
    for record in (lost, last):
        assert len(record.measurement.epochs) == 3 and record.measurement.costs.latency.median_s == 0.01
        assert record.measurement.versions == (("imported", ""),)  # neither torch nor monai
    assert not list(plan.folder.glob("*tune*"))
    wait_for(lambda: not workers(cluster, "Board") and not workers(cluster, "Troubled"))
    executor = RayExecutor(plan, address=cluster.address, trial=cluster_trials.Troubled, stopwatch=Watch)
    assert run_study(plan, trials=6, view=quiet_view(), executor=executor).records == tuple(records)


def test_different_faults_have_different_reasons(troubled):
    faulty = troubled.records[3:6]
    assert [record.state for record in faulty] == ["failed"] * 3
    for record, fault, reason in zip(
        faulty,
        ("deadline", "lost", "error"),
        (
            "the deadline of 3.0 s passed without a report; its process was ended",
            "its process was lost 4 times",
            "ZeroDivisionError: one over nothing",
        ),
        strict=True,
    ):
        assert record.measurement.fault == fault and reason in record.measurement.reason
        assert len(record.attempts) == (3 if fault == "lost" else 0)


def test_out_of_memory_is_retried_once_alone_and_is_then_over_budget(troubled):
    helped, over = troubled.records[0], troubled.records[2]
    assert (helped.state, over.state) == ("trained", "over budget")
    for record in (helped, over):
        (attempt,) = record.attempts
        assert "out of memory: no more (6.0 GiB used); tried again alone" in attempt
    assert over.measurement.reason == "alone on its device, out of memory: no more (6.0 GiB used)"
    assert over.measurement.measured_memory.reserved_bytes == 6 * 2**30
    assert over.measurement.costs.params > 0


def plain(records):
    """Return the parts of records that do not depend on clocks and machines."""
    return [
        (
            record.number,
            record.decisions,
            record.state,
            record.measurement.dice,
            record.measurement.cases,
            [(epoch.number, epoch.loss, epoch.dice) for epoch in record.measurement.epochs],
            replace(record.measurement.costs, latency=None),
            record.measurement.measured_memory,
        )
        for record in records
    ]


def test_one_worker_gives_the_same_records_as_the_local_executor(tmp_path, cluster):
    text = STUDY.replace("proposer: random", "proposer: known-cost, halving: {min_epochs: 1, reduction: 2.0}")
    text = text.replace("threads: 1", "threads: 1, workers: 1")
    text = text.replace("latency: {budget: 60 s}", "latency: {direction: record, budget: 60 s}")  # no clock proposes
    here, there = (plan_of(tmp_path / name, text=text) for name in ("here", "there"))
    local = run_locally(here, trials=4, view=quiet_view())
    far = run_study(there, trials=4, view=quiet_view(), executor=on(cluster)(there))
    assert plain(far.records) == plain(local.records)
    assert {"trained", "stopped"} == {record.state for record in far.records}
    assert all(record.measurement.costs.latency for record in far.records if record.state == "trained")
    for record in far.records:
        assert not (there.folder / "trials" / f"{record.number:06d}" / "last.pt").exists()
    kept = {path.parent.name for path in there.folder.glob("trials/*/best.safetensors")}
    assert kept == {path.parent.name for path in here.folder.glob("trials/*/best.safetensors")}


def test_an_ablation_on_two_workers_gives_the_same_results_as_a_local_one(tmp_path, cluster):
    made = write_ablation(tmp_path, re.sub("  list:.*?seeds", "seeds", ABLATION, flags=re.DOTALL))  # two arms
    overrides = ["seeds=1", "executor.workers=2"]
    here, there = (
        make_ablation_plan(load_ablation(made.file, runs=tmp_path / name, overrides=overrides), runs=tmp_path / name)
        for name in ("here", "there")
    )
    run_ablation(here, view=quiet_view(), make_executor=LocalExecutor)
    run_ablation(there, view=quiet_view(), make_executor=on(cluster))
    assert missing_count(there) == 0
    found, expected = (
        {
            (plan.study.name, record.identity): (record.state, record.measurement.dice, record.measurement.cases)
            for plan in plans.plans
            for record in read_records(plan.url, plan.study.name)
        }
        for plans in (there, here)
    )
    assert len(found) == 4 and found == expected


def test_an_export_trains_what_is_missing_on_the_cluster_as_it_would_here(tmp_path, cluster):
    storage, view = f"executor.storage_path={tmp_path / 'storage'}", quiet_view()
    run_study(
        plan := plan_of(tmp_path / "here", storage, text=STUDY), trials=1, view=view, executor=LocalExecutor(plan)
    )
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    for packing, networks in (("full", 1), ("folds", 3)):
        weights = []
        for name, make_executor in (("here", LocalExecutor), ("there", on(cluster))):
            plan = plan_of(tmp_path / name, storage)
            records = read_records(plan.url, "tiny")
            trained = pack(packing, plan, records[0], records, view=view, make_executor=make_executor)
            assert all((folder / "best.safetensors").is_file() for folder in trained.folders)
            weights.append(trained.sha256)
        assert weights[0] == weights[1] and len(weights[0]) == networks


def test_a_real_training_survives_a_lost_process_and_a_truncated_checkpoint(tmp_path, cluster):
    text = STUDY.replace("epochs: 2, steps_per_epoch: 4", "epochs: 20, steps_per_epoch: 2")
    plan = plan_of(tmp_path, "executor.workers=1", f"executor.storage_path={tmp_path / 'storage'}", text=text)
    checkpoint = tmp_path / "storage" / "tiny" / "trials" / "000000" / "last.pt"

    def harm():
        wait_for(checkpoint.exists)
        for process in workers(cluster, "Trial"):
            process.kill()
        whole = checkpoint.read_bytes()
        checkpoint.write_bytes(whole[: len(whole) // 2])

    thread = threading.Thread(target=harm)
    thread.start()
    run_study(plan, trials=1, view=quiet_view(), executor=on(cluster)(plan))
    thread.join()
    (record,) = outcomes(plan)
    assert record.state == "trained" and len(record.measurement.epochs) == 20 and len(record.attempts) == 1
    assert (plan.folder / "trials" / "000000" / "best.safetensors").exists()  # brought back from the storage


@pytest.mark.long
def test_a_real_training_that_diverges_fails_with_the_reason(tmp_path, cluster):
    wild = plan_of(tmp_path, *WILD, text=STUDY)
    run_study(wild, trials=1, view=quiet_view(), executor=on(cluster)(wild))
    assert {(each.state, each.measurement.fault) for each in outcomes(wild)} == {("failed", "not a number")}


def test_an_address_without_a_cluster_is_reported(tmp_path, monkeypatch):
    import ray

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(UserError, match="no Ray cluster at 'nowhere': .*; start one with `ray start --head`, or give"):
        RayExecutor(plan_of(tmp_path), address="nowhere")


def test_latency_is_measured_on_the_resource_that_the_study_names(cluster):
    from search.runner.cluster.latency_probe import probe_options

    lent = {"CPU": 8.0, "GPU": 2.0, "latency_probe": 1.0, "accelerator_type:A100": 1.0}
    assert probe_options(None, lent, gpu=True) == {"num_cpus": 0, "resources": {"latency_probe": 1.0}}
    assert probe_options("A100", lent, gpu=True)["num_gpus"] == 1
    assert probe_options(None, {"CPU": 8.0, "GPU": 2.0}, gpu=True) == {"num_cpus": 0, "num_gpus": 1}
    with pytest.raises(UserError, match="executor.latency_on: 'H100' is not in the cluster, which has A100, latency_p"):
        probe_options("H100", lent, gpu=True)


def test_gpus_of_one_machine_have_separate_locks(monkeypatch):
    import torch

    from search.costs.device_lock import physical_name

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    assert physical_name(torch.device("cuda:0")) == "cuda3" and physical_name(torch.device("cpu")) == "cpu"
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert physical_name(torch.device("cuda:1")) == "cuda1"


@pytest.mark.parametrize("cases", [6, pytest.param(None, marks=pytest.mark.long, id="all")])
def test_real_volumes_on_two_workers(tmp_path, cluster, shared_data, cases):
    source = shared_data / "Task04_Hippocampus"
    subset(source, tmp_path / source.name, case_names(source)[:cases])
    loaded = load_study(
        ROOT / "studies" / "hippocampus.yaml",
        data_root=tmp_path,
        overrides=[
            "training.epochs=1",
            "training.steps_per_epoch=2",
            "search.proposer=random",
            "executor.threads=1",
            "executor.device=cpu",
            "space.fix.width_cap=32",
            *(["data.folds=2", "space.choices.width=[4, 8]", "space.fix.levels=3"] if cases else []),
        ],
    )
    plan = make_plan(loaded, runs=tmp_path / "runs")
    run_study(plan, trials=2, view=quiet_view(), executor=on(cluster)(plan))
    records = outcomes(plan)
    assert sum(record.state == "trained" for record in records) == 2
    for record in records:
        if record.state == "trained":
            assert {case.case for case in record.measurement.cases} == set(plan.fold.validation)


@pytest.mark.filterwarnings("ignore:ssl=None is deprecated")  # Ray's own call of aiohttp
def test_a_submitted_study_runs_on_the_head(tmp_path, monkeypatch, capsys):
    text = STUDY.replace("epochs: 2", "epochs: 1").replace(", latency: {budget: 60 s}", "")
    made = write_study(tmp_path, text)
    monkeypatch.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    head = start_cluster(
        {"num_cpus": 2, "include_dashboard": True, "dashboard_port": 28265, "dashboard_agent_listen_port": 28266}
    )
    submit = ["submit", str(made.file), "--address", "http://127.0.0.1:28265"]
    where = ["--runs", str(made.runs), "--data", str(made.data), "--trials", "1"]
    try:
        done = call(monkeypatch, capsys, *submit, *where, "--follow")
        assert "tiny runs as raysubmit_" in done.out and "1 trial is done (1 trained)" in done.out
        nobody = call(monkeypatch, capsys, *submit[:-1], "http://127.0.0.1:9", *where, code=1)
        assert "the head at http://127.0.0.1:9 did not accept the study" in words(nobody.err)
        relative = call(monkeypatch, capsys, *submit, "--runs", "runs", code=2)
        assert "use an absolute path that all machines share" in words(relative.err)
    finally:
        stop_cluster(head)
    (record,) = read_records(f"sqlite:///{made.runs / 'tiny' / 'study.db'}", "tiny")
    assert record.state == "trained"
