"""A run on a cluster that loses its driver, a machine, its head or its disk: the same command finishes the study."""

import shutil
import signal
import threading
import time
from collections import Counter

import pytest
from cluster_study import start_driver
from cluster_trials import NotedTogether, held, release
from test_search_runner_cluster import (
    TINY,
    outcomes,
    plan_of,
    processes_end,
    run,
    start_cluster,
    stop_cluster,
    wait_for,
)

from search.config import UserError
from search.storage import read_records

MORE = TINY.replace("epochs: 3", "epochs: 6")


def started(plan, cluster, *, trials=3, held_before=0):
    """Start a driver in its own process, and wait until two trials have finished two epochs and are held."""
    driver = start_driver(plan, cluster, trials, "Held")
    wait_for(lambda: driver.poll() is not None or held(plan.folder) >= held_before + 2)
    assert driver.poll() is None, driver.stdout + driver.stderr
    return driver


def ends(plan, cluster, *, trials=3, trial="Sleeper"):
    """Run the same command again, and check the results."""
    run(plan, cluster, trial, trials=trials)
    records = outcomes(plan)
    assert [record.state for record in records] == ["trained"] * trials
    assert {len(record.measurement.epochs) for record in records} == {6}
    return records


def test_a_run_survives_two_ends_of_its_driver(tmp_path, cluster):
    plan = plan_of(tmp_path, text=MORE)
    interrupted, before = Counter(), []
    for how in (signal.SIGKILL, signal.SIGTERM):
        driver = started(plan, cluster, held_before=2 * bool(before))
        with pytest.raises(UserError, match=f"tiny is already running, in process {driver.pid} on "):
            run(plan, cluster, "Sleeper")
        driver.send_signal(how)
        assert driver.wait(60) == (130 if how == signal.SIGTERM else -how), driver.stderr
        assert "Traceback" not in driver.stderr
        left = read_records(plan.url, "tiny")
        for old, new in zip(before, left, strict=False):
            assert new.architecture == old.architecture
        before = left
        interrupted.update(record.number for record in left if record.state == "running")
    records = ends(plan, cluster)
    assert sorted(interrupted.values()) == [2, 2]
    for record in records:
        assert len(record.attempts) == interrupted[record.number]
        assert all("interrupted (process" in attempt for attempt in record.attempts)


def test_a_run_survives_the_loss_of_a_machine(tmp_path, cluster):
    machine = cluster.add_node(num_cpus=1)
    plan, lost = plan_of(tmp_path, text=MORE), []

    def lose():
        wait_for(lambda: held(plan.folder) >= 3)  # one on each machine
        with processes_end(machine):
            cluster.remove_node(machine, allow_graceful=False)  # SIGKILL
        lost.append(True)
        release(plan.folder)

    thread = threading.Thread(target=lose)
    thread.start()
    records = ends(plan, cluster, trial="Held")
    thread.join()
    attempts = [attempt for record in records for attempt in record.attempts]
    assert lost and len(attempts) == 1 and "was lost" in attempts[0], attempts


@pytest.mark.parametrize(
    "how",
    [
        pytest.param(signal.SIGKILL, id="kill -9 of the head"),
        pytest.param(signal.SIGTERM, id="ray stop", marks=pytest.mark.long),
    ],
)
def test_a_run_survives_the_end_of_the_head(tmp_path, cluster, how):
    first = start_cluster({"num_cpus": 1}, {"num_cpus": 1})
    plan = plan_of(tmp_path, text=MORE)
    driver = started(plan, first)
    nodes = [first.head_node] if how == signal.SIGKILL else first.list_all_nodes()
    for node in nodes:  # `ray stop` sends SIGTERM to the same processes, but to those of every cluster of the machine
        for processes in node.all_processes.values():
            for each in processes:
                each.process.send_signal(how)
    begun = time.monotonic()
    assert driver.wait(120) != 0 and time.monotonic() - begun < 120
    stop_cluster(first)
    records = ends(plan, cluster)  # on another cluster
    assert sum(len(record.attempts) for record in records) in (1, 2)


def test_a_run_survives_a_full_disk(tmp_path, cluster, small_disk):
    plan = plan_of(tmp_path, text=MORE)
    trials = plan.folder / "trials"
    trials.parent.mkdir(parents=True)
    trials.symlink_to(small_disk, target_is_directory=True)
    filler = small_disk / "filler"

    def fill():
        wait_for(lambda: held(plan.folder) >= 2)
        filler.write_bytes(bytes(shutil.disk_usage(small_disk).free))
        release(plan.folder)

    thread = threading.Thread(target=fill)
    thread.start()
    with pytest.raises(
        UserError, match="trial . stopped: .*No space left on device.* rerun the same command to resume"
    ):
        run(plan, cluster, "Held")
    thread.join()
    filler.unlink()
    records = ends(plan, cluster)
    assert any("No space left on device" in attempt for record in records for attempt in record.attempts)


def test_small_trials_share_gpus_and_never_exceed_their_memory(tmp_path, cluster):
    from bench_ray import pack, wide_plan

    card_bytes = 16 * 2**30
    machine = cluster.add_node(num_cpus=8, num_gpus=2, memory=2**35, resources={"gpu_memory": card_bytes})
    try:
        plan = wide_plan(tmp_path, "executor.device=auto")
        found = pack(plan, cluster, NotedTogether, trials=6, memory_bytes=5 * 2**30)
    finally:
        with processes_end(machine):
            cluster.remove_node(machine)
    assert [most for most, _, _ in found.values()] == [2, 2]
    assert all(predicted_bytes <= card_bytes and share <= 1.0 for _, predicted_bytes, share in found.values())


@pytest.mark.long
def test_trials_on_two_machines_share_gpus_and_never_exceed_their_memory(tmp_path):
    from bench_ray import bench_packing

    found = bench_packing(tmp_path, trials=24)
    assert len(found) == 2
    for most, predicted_bytes, share in found.values():
        assert most >= 3 and predicted_bytes <= 16 * 2**30 and share <= 1.0
