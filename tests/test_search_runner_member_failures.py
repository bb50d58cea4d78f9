"""One of a trial's trainings fails: the others' work is kept, and the trial has a Dice if each fold still has one."""

import json
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import STUDY, quiet_view, write_study

from search.config import load_study
from search.export.trained import pack
from search.runner.evaluate import evaluate, progress
from search.runner.local import open_driver
from search.runner.plan import make_plan, prepared_data, task_of
from search.storage import read_records
from search.training.members import load_finished
from search.training.patches import PatchSource
from search.trials.files import FINISHED, trial_folder
from search.trials.job import Job, Member
from search.trials.records import Record, TrainingRequest

STEPS = "batch: 1, epochs: 1, steps_per_epoch: 1"
TEXT = STUDY.replace("trials: 3", "trials: 1, folds: 2, seeds: 1").replace(
    "batch: 1, epochs: 2, steps_per_epoch: 4", STEPS
)


def poison(prepared, case):
    """Make a prepared image NaN, so that the loss of every step that sees it is NaN."""
    image = np.load(Path(prepared.folder) / "cases" / f"{case}.image.npy", mmap_mode="r+")
    image[:] = np.nan
    image.flush()


@pytest.fixture
def plan(tmp_path):
    made = write_study(tmp_path, TEXT)
    return make_plan(load_study(made.file), runs=made.runs)


def job_of(plan, prepared, folder, *, seeds):
    """Return a job of fold 0 with one training per seed."""
    task = task_of(plan, prepared, fold=0)
    space, first = plan.space, seeds[0]
    others = tuple(Member(seed, 0, task.train, task.validation) for seed in seeds[1:])
    return Job(
        space.architecture(space.complete({})), task, plan.training, (), first, 0, "cpu", 1, str(folder), others=others
    )


def seeds_by_case(plan, prepared, case):
    """Return a seed whose single step sees the case, and two seeds whose steps don't."""
    task, found = task_of(plan, prepared, fold=0), {True: [], False: []}
    for seed in range(50):
        source = PatchSource(prepared, cases=task.train, patch=plan.context.patch, training=plan.training, seed=seed)
        (sample,) = source._samples(0)
        found[sample.volume is source.volumes[task.train.index(case)]].append(seed)
    return found[True][0], found[False][:2]


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_failed_seed_leaves_the_mean_of_the_others(plan, tmp_path, place):
    prepared = prepared_data(plan)
    case = plan.folds[0].train[0]
    bad, (one, other) = seeds_by_case(plan, prepared, case)
    poison(prepared, case)
    seeds = [one, other]
    seeds.insert(place, bad)
    found = evaluate(job_of(plan, prepared, tmp_path / "with", seeds=seeds))
    expected = evaluate(job_of(plan, prepared, tmp_path / "without", seeds=[one, other]))
    assert found.state == "trained" and found.dice == expected.dice and found.cases == expected.cases
    assert found.members == expected.members and found.weights_sha256 == expected.weights_sha256
    reason = f"1 of 3 trainings failed (fold 0, seed {bad}: the loss became nan in epoch 1; a lower learning rate"
    assert found.reason.startswith(reason) and found.reason.endswith("the Dice is that of the others")
    weights = {path.name for path in (tmp_path / "with").glob("best*")}
    assert weights == {"best.safetensors", "best-1.safetensors"}


def test_a_resumed_trial_does_not_repeat_a_failed_training(plan, tmp_path):
    prepared = prepared_data(plan)
    case = plan.folds[0].train[0]
    bad, (one, other) = seeds_by_case(plan, prepared, case)
    poison(prepared, case)
    job = job_of(plan, prepared, tmp_path / "stopped", seeds=[bad, one, other])
    steps = progress(job)
    for _ in steps:
        if (tmp_path / "stopped" / FINISHED).exists():
            break
    steps.close()
    (failed,) = load_finished(job)
    assert failed.score is None and f"seed {bad}" in failed.failure
    whole = evaluate(replace(job, folder=str(tmp_path / "whole")))
    resumed = evaluate(job)
    assert (resumed.members, resumed.reason, resumed.dice) == (whole.members, whole.reason, whole.dice)


def test_a_single_survivor_has_no_spread_and_is_exported_with_its_own_seed(plan, tmp_path):
    prepared = prepared_data(plan)
    case = plan.folds[0].train[0]
    bad, (good, _) = seeds_by_case(plan, prepared, case)
    poison(prepared, case)
    found = evaluate(job_of(plan, prepared, tmp_path / "trial", seeds=[bad, good]))
    assert [each.seed for each in found.members] == [good] and found.dice == found.members[0].dice
    assert found.dice_sd is None and found.weights_cases == found.cases
    record = Record(0, plan.space.architecture(plan.space.complete({})), (), bad, 0, found, "2026-01-02")
    packed = pack("trial", plan, record, [record], view=quiet_view())
    assert packed.how.endswith(found.reason) and packed.sha256 == (found.weights_sha256,)
    assert record.weights_seed == good and replace(record, measurement=replace(found, members=())).weights_seed == bad


def test_a_lost_fold_fails_the_trial_but_keeps_the_other_folds_work(plan):
    many = replace(plan, training=replace(plan.training, steps_per_epoch=12))
    driver, folder = open_driver(many, quiet_view()), trial_folder(plan.folder, 0)
    with closing(driver):
        record = driver.start(TrainingRequest(plan.space.architecture(plan.space.complete({})), 0, 0))
        measured = []
        for measurement in progress(driver.job(record)):
            measured.append(measurement)
            if (folder / FINISHED).exists():  # fold 0 has ended; fold 1 trains on its cases
                for case in plan.folds[0].validation:
                    poison(driver.prepared, case)
        record = driver.finish(record, measured[-1])
    found = record.measurement
    assert record.state == "failed" and found.fault == "not a number" and found.dice is None and found.dice_sd is None
    assert found.reason.startswith("fold 1, seed 0: the loss became nan in epoch 1")
    (kept,) = found.members
    assert kept.fold == 0 and {each.case for each in kept.cases} == set(plan.folds[0].validation)
    assert (folder / "best.safetensors").exists() and (folder / "reason.txt").read_text() == found.reason + "\n"
    assert [epoch.member for epoch in found.epochs] == [0]
    assert Record.from_values(json.loads(json.dumps(record.to_values()))) == record
    assert read_records(plan.url, "tiny") == [record]
