"""Trials over several folds and seeds: mean and spread, resumption within a trial, halving, confirmation, export."""

import json
import re
from dataclasses import replace
from io import StringIO

import numpy as np
import pytest
import torch
from conftest import STUDY, quiet_view, write_study
from forked import kill_when, started
from rich.console import Console

from search.analysis.front import front_json, front_table
from search.analysis.snapshot_reader import snapshot_of
from search.api.frames import trial_rows
from search.config import UserError, load_study
from search.config.schema import Halving
from search.export.model import export
from search.export.trained import Trained, _by_fold, trained_network
from search.runner.confirm import confirm_study
from search.runner.evaluate import evaluate
from search.runner.local import LocalExecutor, open_driver, run_study
from search.runner.plan import make_plan, other_members
from search.storage import read_records
from search.training.members import load_finished, mean_cases
from search.training.validation import mean_dice
from search.trials.epochs import Epoch
from search.trials.files import FINISHED, trial_folder
from search.trials.halving import stop_reason
from search.trials.records import CaseDice, Record
from search.visualization.pages.slices import ranked_cases

TEXT = STUDY.replace("trials: 3", "trials: 2, folds: 2, seeds: 2") + "keep: all\n"


def plan_of(made, *overrides):
    return make_plan(load_study(made.file, overrides=overrides), runs=made.runs)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    made = write_study(tmp_path_factory.mktemp("members"), TEXT)
    run_study(plan_of(made), trials=2, view=quiet_view())
    return made


def test_a_trial_is_the_mean_over_its_folds_and_seeds_with_all_scores_kept(finished):
    plan = plan_of(finished)
    for record in read_records(plan.url, "tiny"):
        found = record.measurement
        assert [(each.fold, each.seed) for each in found.members] == [(0, 0), (0, 1), (1, 0), (1, 1)]
        assert found.dice == pytest.approx(np.mean([each.dice for each in found.members]))
        assert found.dice_sd == pytest.approx(np.std([each.dice for each in found.members], ddof=1))
        for each in found.members:
            assert {case.case for case in each.cases} == set(plan.folds[each.fold].validation)
            assert each.dice == mean_dice(each.cases)
        assert {case.case for case in found.cases} == {*plan.folds[0].validation, *plan.folds[1].validation}
        assert [(each.member, each.number) for each in found.epochs] == [(m, n) for m in range(4) for n in (1, 2)]
        files = {path.name for path in trial_folder(plan.folder, record.number).iterdir()}
        weights = {"best.safetensors", "best-1.safetensors", "best-2.safetensors", "best-3.safetensors"}
        assert files == {*weights, "epochs.jsonl"}
        assert found.weights_sha256 == found.members[0].weights_sha256
        assert Record.from_values(json.loads(json.dumps(record.to_values()))) == record
        assert set(ranked_cases(record).values()) <= set(plan.folds[0].validation)  # the drawn weights saw the others


def test_each_training_is_that_of_a_trial_with_its_fold_and_seed_alone(finished, tmp_path):
    plan = plan_of(finished)
    record = read_records(plan.url, "tiny")[0]
    driver = open_driver(plan, quiet_view())
    job = driver.job(record)
    driver.close()
    assert len(job.others) == 3
    for number, member in enumerate(record.measurement.members):
        alone = replace(job.of_member(number), others=(), member=0, folder=str(tmp_path / str(number)))
        measured = evaluate(alone)
        assert (measured.dice, measured.cases) == (member.dice, member.cases)
        assert measured.weights_sha256 == member.weights_sha256


def test_tables_and_records_show_the_spread(finished):
    snapshot = snapshot_of(load_study(finished.file), runs=finished.runs)
    front = json.loads(front_json(snapshot))["front"]
    records = {record.number: record.measurement for record in snapshot.front()}
    assert all(row["dice_sd"] == records[row["trial"]].dice_sd for row in front)
    assert all(row["dice_sd"] > 0 for row in trial_rows(snapshot))
    console = Console(width=200, file=StringIO())
    console.print(front_table(snapshot))
    for found in records.values():
        assert f"{found.dice:.4f} ± {found.dice_sd:.4f}" in console.file.getvalue()


def test_an_export_says_which_weights_it_holds(finished, tmp_path, source_form_alone):
    plan = plan_of(finished)
    record = read_records(plan.url, "tiny")[0]
    exported = export(plan, "0", tmp_path / "model", view=quiet_view())
    assert exported.why[-2].startswith("trained on fold 0 (of 0 to 2)")
    spread = f"their Dice is {record.measurement.dice:.4f} ± {record.measurement.dice_sd:.4f}"
    assert f"the first of the trial's 4 trainings over folds and seeds ({spread})" in exported.why[-2]
    card = (tmp_path / "model/MODEL_CARD.md").read_text()
    assert exported.why[-2] in card and "| 4 |" in card  # the Dice table is over the cases of both folds


def test_an_ensemble_takes_the_trials_own_networks_of_other_folds(finished):
    plan = plan_of(finished)
    records = read_records(plan.url, "tiny")
    found = _by_fold(plan, records[:1])
    assert {fold: (each.member, each.trial) for fold, each in found.items()} == {0: (0, 0), 1: (2, 0)}
    members = records[0].measurement.members
    assert [each.scores for each in found.values()] == [members[0].cases, members[2].cases]
    folder = trial_folder(plan.folder, 0)
    both = Trained((folder, folder), (members[0].weights_sha256, members[2].weights_sha256), "", (), members=(0, 2))
    one, other = trained_network(records[0], both, plan.context).networks
    assert any(not torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_a_kill_in_a_later_fold_loses_at_most_an_epoch(tmp_path):
    text = TEXT.replace("seeds: 2", "seeds: 1").replace("epochs: 2", "epochs: 6").replace("trials: 2", "trials: 1")
    whole = write_study(tmp_path / "whole", text)
    (undisturbed,) = run_study(plan_of(whole), trials=1, view=quiet_view()).records
    made = write_study(tmp_path / "killed", text)
    plan = plan_of(made)
    log = trial_folder(plan.folder, 0) / "epochs.jsonl"

    def in_the_second_fold():
        return log.exists() and '"member": 1' in log.read_text() and log.read_text().count("\n") >= 2

    with started("run", made.file, "--runs", made.runs, "--quiet") as command:
        kill_when(in_the_second_fold, command)
    before = [json.loads(line) for line in log.read_text().splitlines()]
    assert before[0]["member"] == 1 and len(before) < 6, "killed too late"
    assert (log.parent / FINISHED).exists()
    (record,) = run_study(plan, trials=1, view=quiet_view()).records
    found = record.measurement
    assert found.members == undisturbed.measurement.members and found.dice == undisturbed.measurement.dice
    kept = [(each.member, each.number, each.seconds) for each in found.epochs if each.member == 1][: len(before)]
    assert kept[:-1] == [(1, each["number"], each["seconds"]) for each in before][:-1]
    assert not (log.parent / FINISHED).exists()


def test_results_of_other_settings_or_a_damaged_file_are_not_resumed(finished, tmp_path, caplog):
    plan = plan_of(finished)
    record = read_records(plan.url, "tiny")[0]
    driver = open_driver(plan, quiet_view())
    job = replace(driver.job(record), folder=str(tmp_path))
    driver.close()
    steps = []
    for measurement in _progress_of(job):
        steps.append(measurement)
        if (tmp_path / FINISHED).exists():
            break
    assert len(load_finished(job)) == 1 and steps[-1].epochs[-1].number == 2
    assert load_finished(replace(job, seed=7)) == []
    assert load_finished(replace(job, others=())) == []
    (tmp_path / FINISHED).write_text("[{")
    assert load_finished(job) == []
    assert re.search("finished.json is damaged .*the trial's trainings start over", caplog.text)


def _progress_of(job):
    from search.runner.evaluate import progress

    return progress(job)


def test_halving_judges_the_first_training_alone(finished):
    plan = plan_of(finished)
    one, other = read_records(plan.url, "tiny")

    def reached(record, *epochs):
        measurement = replace(record.measurement, state="running", epochs=epochs, members=())
        return replace(record, measurement=measurement)

    rule = {"halving": Halving(1, 2.0), "epochs": 2, "every": 1, "directions": {"dice": "maximize"}}
    good = reached(one, Epoch(1, 0.5, 0.9, 1.0), Epoch(2, 0.5, 0.9, 1.0), Epoch(1, 0.5, 0.1, 1.0, member=1))
    assert stop_reason([good], reached(other, Epoch(1, 0.5, 0.8, 1.0)), **rule).startswith("stopped after epoch 1")
    assert stop_reason([good], reached(other, Epoch(1, 0.5, 0.95, 1.0)), **rule) is None
    later = reached(other, Epoch(1, 0.5, 0.95, 1.0), Epoch(2, 0.5, 0.9, 1.0), Epoch(1, 0.5, 0.0, 1.0, member=1))
    assert stop_reason([good], later, **rule) is None


def test_a_stopped_trial_spends_one_training(tmp_path):
    text = TEXT.replace("seeds: 2", "seeds: 1, halving: {min_epochs: 1, reduction: 10.0}").replace(
        "trials: 2", "trials: 3"
    )
    records = run_study(plan_of(write_study(tmp_path, text)), trials=3, view=quiet_view()).records
    stopped = [record for record in records if record.state == "stopped"]
    assert stopped and all(len(record.measurement.epochs) == 1 for record in stopped)
    assert all(len(record.measurement.epochs) == 4 for record in records if record.state == "trained")


def test_confirmation_trains_other_seeds_once_each(finished, tmp_path):
    import shutil

    shutil.copytree(finished.runs, tmp_path / "runs")
    plan = make_plan(load_study(finished.file), runs=tmp_path / "runs")
    confirm_study(plan, top=1, seeds=1, folds=2, view=quiet_view(), executor=LocalExecutor(plan))
    added = read_records(plan.url, "tiny")[2:]
    assert [(record.seed, record.fold) for record in added] == [(2, 0), (2, 1)]
    assert all(not record.measurement.members and len(record.measurement.epochs) == 2 for record in added)


def test_cases_of_several_seeds_are_averaged():
    one = CaseDice("a", (0.5, None), (1.0, None), (0.5, None))
    other = CaseDice("a", (0.7, 0.2), (3.0, 4.0), (0.7, None))
    last = CaseDice("b", (0.1, 0.1))
    assert mean_cases([one, last, other]) == (CaseDice("a", (0.6, 0.2), (2.0, 4.0), (0.6, None)), last)


def test_more_folds_than_there_are_and_a_changed_number_are_refused(finished):
    with pytest.raises(UserError, match="search.folds: 4 exceeds the number of folds, 3"):
        plan_of(finished, "search.folds=4")
    with pytest.raises(UserError, match="search.folds: the study began with 2, the file no longer has it"):
        run_study(plan_of(finished, "search.folds=1"), trials=2, view=quiet_view())


def test_one_fold_and_seed_leave_records_as_they_were(tiny_run):
    plan = plan_of(tiny_run)
    assert other_members(plan, read_records(plan.url, "tiny")[0]) == ()
    assert not {"folds", "seeds"} & plan.identity()["search"].keys()
    assert all(not record.measurement.members for record in read_records(plan.url, "tiny"))
