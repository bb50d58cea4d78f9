"""A run on a cluster that loses its driver, a machine, its head or its disk: the same command finishes the study."""

import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest
from cluster_trials import HERE
from test_search_runner_cluster import TINY, outcomes, plan_of, run, start_cluster, states, stop_cluster, wait_for

from search.config import UserError
from search.storage import read_records

SLOW = TINY.replace("epochs: 3", "epochs: 20")


def started(plan, cluster, *, trials=3):
    """Start a driver in its own process and wait until two trials have finished some epochs."""
    command = [
        sys.executable,
        str(HERE / "cluster_study.py"),
        str(plan.loaded.file),
        str(plan.runs),
        cluster.address,
        str(trials),
        "Slow",
    ]
    driver = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: driver.poll() is not None or under_way(plan))
    assert driver.poll() is None, driver.communicate()
    return driver


def under_way(plan):
    if not states(plan):
        return False
    return sum(len(record.measurement.epochs) >= 2 for record in read_records(plan.url, plan.study.name)) >= 2


def ends(plan, cluster, *, trials=3, trial="Sleeper"):
    """Run the same command again, and check the results."""
    run(plan, cluster, trial, trials=trials)
    records = outcomes(plan)
    assert [record.state for record in records] == ["trained"] * trials
    assert {len(record.measurement.epochs) for record in records} == {20}
    return records


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_run_survives_the_end_of_the_driver(tmp_path, cluster, how):
    plan = plan_of(tmp_path, text=SLOW)
    driver = started(plan, cluster)
    with pytest.raises(UserError, match=f"tiny is already running, in process {driver.pid} on "):
        run(plan, cluster, "Sleeper")
    driver.send_signal(how)
    out, err = driver.communicate(timeout=60)
    assert driver.returncode == (130 if how == signal.SIGTERM else -how), err
    assert "Traceback" not in err
    left = read_records(plan.url, "tiny")
    records = ends(plan, cluster)
    for before, after in zip(left, records, strict=False):
        assert after.architecture == before.architecture
        assert len(after.attempts) == (before.state == "running")
        assert all("interrupted (process" in attempt for attempt in after.attempts)


@pytest.mark.slow
def test_a_run_survives_the_loss_of_a_machine(tmp_path):
    cluster = start_cluster({"num_cpus": 0}, {"num_cpus": 1}, {"num_cpus": 1})
    try:
        plan = plan_of(tmp_path, text=SLOW)
        lost = []

        def lose():
            wait_for(lambda: under_way(plan))
            cluster.remove_node(cluster.list_all_nodes()[-1], allow_graceful=False)  # SIGKILL
            lost.append(True)

        thread = threading.Thread(target=lose)
        thread.start()
        records = ends(plan, cluster, trial="Slow")
        thread.join()
        attempts = [attempt for record in records for attempt in record.attempts]
        assert lost and len(attempts) == 1 and "was lost" in attempts[0], attempts
    finally:
        stop_cluster(cluster)


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=["kill -9 of the head", "ray stop"])
def test_a_run_survives_the_end_of_the_head(tmp_path, how):
    first = start_cluster({"num_cpus": 1}, {"num_cpus": 1})
    plan = plan_of(tmp_path, text=SLOW)
    driver = started(plan, first)
    nodes = [first.head_node] if how == signal.SIGKILL else first.list_all_nodes()
    for node in nodes:  # `ray stop` sends SIGTERM to the same processes, but to those of every cluster of the machine
        for processes in node.all_processes.values():
            for each in processes:
                each.process.send_signal(how)
    begun = time.monotonic()
    driver.communicate(timeout=120)
    assert driver.returncode != 0 and time.monotonic() - begun < 120
    stop_cluster(first)
    second = start_cluster({"num_cpus": 1}, {"num_cpus": 1})
    try:
        records = ends(plan, second)
        assert sum(len(record.attempts) for record in records) in (1, 2)
    finally:
        stop_cluster(second)


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 1 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"no right to mount a small disk: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_run_survives_a_full_disk(tmp_path, cluster, small_disk):
    plan = plan_of(tmp_path, text=SLOW)
    trials = plan.folder / "trials"
    trials.parent.mkdir(parents=True)
    trials.symlink_to(small_disk, target_is_directory=True)
    filler = small_disk / "filler"

    def fill():
        wait_for(lambda: under_way(plan))
        filler.write_bytes(bytes(shutil.disk_usage(small_disk).free))

    thread = threading.Thread(target=fill)
    thread.start()
    with pytest.raises(
        UserError, match="trial . stopped: .*No space left on device.* rerun the same command to resume"
    ):
        run(plan, cluster, "Slow")
    thread.join()
    filler.unlink()
    records = ends(plan, cluster)
    assert any("No space left on device" in attempt for record in records for attempt in record.attempts)


@pytest.mark.slow
def test_small_trials_share_gpus_and_never_exceed_their_memory(tmp_path):
    from bench_ray import bench_packing

    found = bench_packing(tmp_path, trials=24)
    assert len(found) == 2
    for most, predicted_bytes, share in found.values():
        assert most >= 3 and predicted_bytes <= 16 * 2**30 and share <= 1.0
