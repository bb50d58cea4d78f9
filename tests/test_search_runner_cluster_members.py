"""A trial over two folds on workers of a cluster: its files travel, and a lost process costs at most an epoch."""

from dataclasses import replace
from pathlib import Path

import pytest
from conftest import STUDY, quiet_view, write_study

from search.config import load_study
from search.runner.cluster.checkpoint_sync import SCRATCH, CheckpointSync
from search.runner.cluster.dispatcher import with_known_epochs
from search.runner.cluster.trainable import Trial
from search.runner.local import open_driver, run_study
from search.runner.plan import make_plan
from search.trials.epochs import Epoch
from search.trials.files import FINISHED, trial_folder
from search.trials.records import Measurement

TEXT = STUDY.replace("trials: 3", "trials: 1, folds: 2")


class Worker(Trial):
    """The worker's side of a trial, without Tune around it."""

    def __init__(self, storage):
        self.sync, self.gpu_share, self.post = CheckpointSync(str(storage)), 0.0, lambda activity: None


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A study of one trial, its record, and the job that a worker gets for it."""
    folder = tmp_path_factory.mktemp("members")
    made = write_study(folder, TEXT)
    plan = make_plan(load_study(made.file), runs=made.runs)
    (record,) = run_study(plan, trials=1, view=quiet_view()).records
    driver = open_driver(plan, quiet_view())
    job = driver.job(record)
    driver.close()
    return plan, record, replace(job, folder=str(folder / "elsewhere/runs/tiny/trials/000000"))


def test_another_worker_resumes_in_the_second_fold_and_gives_the_same_record(trained, tmp_path):
    plan, record, job = trained
    storage = tmp_path / "storage"
    lost = Worker(storage).progress(job)
    for measurement in lost:
        if measurement.epochs[-1].member == 1:
            break
    lost.close()
    assert [(each.member, each.number) for each in measurement.epochs] == [(0, 1), (0, 2), (1, 1)]
    pushed = {path.name for path in (storage / "tiny/trials/000000").iterdir()}
    assert {FINISHED, "last.pt", "best.safetensors"} <= pushed
    *_, last = Worker(storage).progress(job)
    assert last.state == "trained" and last.members == record.measurement.members
    assert last.epochs[:3] == measurement.epochs
    sync, folder = CheckpointSync(str(storage)), trial_folder(tmp_path / "again/runs/tiny", record.number)
    sync.pull_results(folder)
    sync.delete_checkpoints(folder)
    left = {path.name for path in (storage / "tiny/trials/000000").iterdir()}
    assert left == {"best.safetensors", "best-1.safetensors", "epochs.jsonl"}
    assert {"best.safetensors", "best-1.safetensors"} <= {path.name for path in folder.iterdir()}
    assert not Path(SCRATCH / "tiny/trials/000000").exists()
    assert SCRATCH.stat().st_mode & 0o777 == 0o700


def test_a_workers_new_epochs_follow_those_of_earlier_folds(trained):
    _, record, _ = trained
    epochs = [Epoch(number, 1.0, 0.5, 1.0, member=member) for member in (0, 1) for number in (1, 2)]
    known = replace(record, measurement=replace(record.measurement, epochs=tuple(epochs[:3])))
    message = Measurement("running", epochs=(epochs[3],))
    assert with_known_epochs(known, message).epochs == tuple(epochs)
    restarted = Measurement("running", epochs=tuple(epochs[:4]))
    assert with_known_epochs(known, restarted).epochs == tuple(epochs)


def test_a_training_that_diverges_on_a_worker_fails_with_the_reason(trained, tmp_path):
    _, _, job = trained
    wild = replace(job, training=replace(job.training, learning_rate=1e30, clip_gradient=1e30), others=())
    *_, last = Worker(tmp_path / "storage").progress(wild)
    assert (last.state, last.fault) == ("failed", "not a number")
