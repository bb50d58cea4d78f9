"""Studies on a Ray cluster of two raylets: what comes of faults of a trial; and that records are the local ones."""

import gc
import os
import time
import warnings

import cluster_trials
import pytest
from cluster_trials import HERE, Watch
from conftest import STUDY, quiet_view, write_study

from search.cluster.executor import RayExecutor
from search.driver import run_study
from search.plan import make_plan
from search.store import read_records
from search.study import load_study

ROOT = HERE.parent
TINY = STUDY.replace("epochs: 2", "epochs: 3")


def start_cluster(*nodes):
    """Start raylets whose workers find this checkout and its tests; the first is the head."""
    from ray.cluster_utils import Cluster

    os.environ["RAY_gcs_rpc_server_reconnect_timeout_s"] = "5"  # noqa: SIM112 (how long a driver waits for a head)
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(HERE)])
    head, *others = nodes
    cluster = Cluster(initialize_head=True, head_node_args={"include_dashboard": False, **head})
    for node in others:
        cluster.add_node(**node)
    return cluster


def stop_cluster(cluster):
    """End a cluster and this process's connection; what Ray leaves open is closed here, where it may complain."""
    import ray

    ray.shutdown()
    processes = [each.process for node in cluster.list_all_nodes() for all_of in node.all_processes.values()
                 for each in all_of]  # fmt: skip
    cluster.shutdown()
    for process in processes:
        process.wait()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        del processes
        gc.collect()


@pytest.fixture(scope="module")
def cluster():
    made = start_cluster({"num_cpus": 1}, {"num_cpus": 1})
    yield made
    stop_cluster(made)


def plan_of(folder, *overrides, text=TINY):
    made = write_study(folder, text) if not (folder / "tiny.yaml").exists() else None
    file = made.file if made else folder / "tiny.yaml"
    return make_plan(load_study(file, overrides=overrides), runs=folder / "runs")


def run(plan, cluster, trial, *, trials=3):
    executor = RayExecutor(
        plan, address=cluster.address, trial=getattr(cluster_trials, trial), stopwatch=Watch
    )
    return run_study(plan, trials=trials, view=quiet_view(), executor=executor)


def outcomes(plan):
    """Check what holds after every fault, and return the records: none twice, none running, Optuna agrees."""
    records = read_records(plan.url, plan.study.name)
    assert [record.number for record in records] == list(range(len(records)))
    assert len({record.identity for record in records}) == len(records)
    assert "running" not in {record.state for record in records}
    return records


def wait_for(done, seconds=120.0):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := done():
            return found
        time.sleep(0.1)
    raise TimeoutError


def states(plan):
    try:
        return [record.state for record in read_records(plan.url, plan.study.name)]
    except Exception:  # the database is not there yet
        return []


def test_a_lost_process_goes_on_from_its_checkpoint_and_the_attempt_is_kept(tmp_path, cluster):
    plan = plan_of(tmp_path)
    assert run(plan, cluster, "Killed").why == "3 trials are done"
    records = outcomes(plan)
    assert [record.state for record in records] == ["trained"] * 3
    (attempt,) = records[1].attempts
    assert "was lost" in attempt and "went on from its last checkpoint" in attempt
    assert not records[0].attempts and not records[2].attempts
    assert {len(record.measurement.epochs) for record in records} == {3}
    assert {record.measurement.costs.latency.median_s for record in records} == {0.01}
    assert not list(plan.folder.glob("tune*"))
    again = run(plan, cluster, "Killed")
    assert again.records == tuple(records)


def test_faults_are_told_apart(tmp_path, cluster):
    plan = plan_of(tmp_path, "training.deadline=3 s")
    for name, fault, said in (
        ("Wrong", "error", "ZeroDivisionError: one over nothing"),
        ("Hanging", "deadline", "the deadline of 3.0 s passed and nothing was heard; its process was ended"),
        ("AlwaysKilled", "lost", "its process was lost 4 times"),
    ):
        plan = plan_of(tmp_path, "training.deadline=3 s", f"name={name}")
        run(plan, cluster, name)
        records = outcomes(plan)
        assert [record.state for record in records] == ["trained", "failed", "trained"]
        assert records[1].measurement.fault == fault and said in records[1].measurement.reason
        assert len(records[1].attempts) == (3 if fault == "lost" else 0)


def test_out_of_memory_is_tried_once_alone_and_then_over_budget(tmp_path, cluster):
    plan = plan_of(tmp_path)
    run(plan, cluster, "Hungry", trials=3)
    records = outcomes(plan)
    assert [record.state for record in records] == ["trained", "over budget", "trained", "trained"]
    for record in records[:2]:
        (attempt,) = record.attempts
        assert "out of memory: no more (6.0 GiB held); tried again alone" in attempt
    assert records[1].measurement.reason == "alone on its device, out of memory: no more (6.0 GiB held)"
    assert records[1].measurement.measured_memory.reserved_bytes == 6 * 2**30
    assert records[1].measurement.costs.params > 0
