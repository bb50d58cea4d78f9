"""`voxnas test`: one network is scored once on cases that no search saw, and every use is recorded."""

import json
import re
import shutil
from dataclasses import replace

import nibabel
import numpy as np
import pytest
import torch
import voxnas
from conftest import STUDY, quiet_view, write_study
from exported import predict
from test_search_cli import call

from search.config import UserError, load_study
from search.data.components import keep_largest
from search.export.card_dice import _postprocessed_test
from search.export.held_out import _job, _validated, score_held_out
from search.export.model import export
from search.export.origin import Origin
from search.export.postprocessing import Postprocessing
from search.export.trained import choose_trial, pack, trained_network
from search.runner.local import run_study
from search.runner.plan import make_plan, prepared_data, prepared_test_data
from search.storage.held_out import read_test_uses
from search.training.validation import case_dice, mean_dice, segment
from search.trials.held_out import FILE, HeldOutScore

TEXT = STUDY.replace("folds: 3", "folds: 2, test: 0.25, group: '.+'").replace("trials: 3", "trials: 2")
TEXT += "surface_tolerance: 1.0\nkeep: all\n"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A study of two trials with two test cases, none of which was scored yet."""
    made = write_study(tmp_path_factory.mktemp("held"), TEXT, cases=8)
    run_study(make_plan(load_study(made.file), runs=made.runs), trials=2, view=quiet_view())
    return made


@pytest.fixture
def plan(finished, tmp_path):
    """A copy of the finished study: a test may score it."""
    shutil.copytree(finished.runs, tmp_path / "runs", dirs_exist_ok=True)
    return make_plan(load_study(finished.file), runs=tmp_path / "runs")


def test_a_network_is_scored_once_as_in_validation_and_recorded(plan):
    result = score_held_out(plan, "best", view=quiet_view())
    score = result.score
    assert result.fresh and result.uses == 1 and score.trial == result.choice.record.number
    assert tuple(case.case for case in score.cases) == plan.held_out.names
    assert score.dice == mean_dice(score.cases) and all(case.surface_dice for case in score.cases)
    assert read_test_uses(plan.url, "tiny") == [score]
    (written,) = json.loads((plan.folder / FILE).read_text())
    assert HeldOutScore.from_values(written) == score
    again = score_held_out(plan, str(score.trial), view=quiet_view())
    assert not again.fresh and again.score == score and again.uses == 1
    assert f"scored on {score.at}, not again" in str(again) and "used 1 time." in str(again)


@pytest.mark.usefixtures("source_form_alone")
def test_the_score_is_that_of_the_masks_that_an_export_writes(plan, tmp_path):
    score = score_held_out(plan, "1", view=quiet_view()).score
    export(plan, "1", tmp_path / "model", view=quiet_view())
    file = tmp_path / "model/preprocessing.json"
    settings = json.loads(file.read_text())
    assert settings["keep_largest"] == [list(group) for group in score.keep_largest]
    file.write_text(json.dumps({**settings, "keep_largest": []}))
    after = score.postprocessed or score.cases
    for found, changed, case in zip(score.cases, after, plan.held_out.dataset.cases, strict=True):
        out = tmp_path / "mask.nii.gz"
        assert predict(tmp_path / "model", case.images[0], "--out", out, "--no-verify") == 0
        mask, truth = (np.asarray(nibabel.load(path).dataobj) for path in (out, case.label))
        assert found.dice == pytest.approx(case_dice(mask, truth, members=((1,), (2,))), abs=1e-4)
        mask = keep_largest(mask, score.keep_largest)
        assert changed.dice == pytest.approx(case_dice(mask, truth, members=((1,), (2,))), abs=1e-4)


def test_masks_are_scored_without_and_with_postprocessing(plan):
    records, choice = choose_trial(plan, "0")
    trained = pack("trial", plan, choice.record, records, view=quiet_view())
    network = trained_network(choice.record, trained, plan.context)
    prepared = prepared_test_data(plan, prepared_data(plan))
    job = _job(plan, prepared, choice.record)
    raw, none = _validated(network, prepared, job, (), view=quiet_view())
    again, changed = _validated(network, prepared, job, ((1,), (2,)), view=quiet_view())
    assert raw == again and none == ()
    for case, found in zip(job.task.validation, changed, strict=True):
        mask, truth = segment(network, prepared, case, job=job, device=torch.device("cpu"))
        assert found.dice == case_dice(keep_largest(mask, ((1,), (2,))), truth, members=((1,), (2,)))
    assert changed != raw, "the masks have no islands, so this test shows nothing"


@pytest.mark.usefixtures("source_form_alone")
def test_the_output_and_the_card_give_the_dice_with_an_exports_postprocessing_beside_the_one_without(plan, tmp_path):
    result = score_held_out(plan, "0", view=quiet_view())
    better = tuple(replace(case, dice=(1.0, 0.9)) for case in result.score.cases)
    with_it = replace(result.score, keep_largest=((1, 2),), postprocessed=better)
    text = str(replace(result, score=with_it))
    assert "Dice 0.9500 with the postprocessing of an export, all else is without it" in text
    export(plan, "0", tmp_path / "model", view=quiet_view())
    groups = json.loads((tmp_path / "model/preprocessing.json").read_text())["keep_largest"]
    card = (tmp_path / "model/MODEL_CARD.md").read_text()
    assert ("The above is without postprocessing; with that of this export" in card) == bool(groups)
    origin = Origin(result.choice, None, plan, prepared_data(plan), postprocessing=Postprocessing(((1, 2),), ("all",)))
    assert "the Dice on the same cases is **0.9500**" in _postprocessed_test(origin, with_it)
    assert _postprocessed_test(replace(origin, postprocessing=Postprocessing()), with_it) == ""


def test_a_use_recorded_by_an_earlier_version_has_no_postprocessed_score(plan):
    values = score_held_out(plan, "0", view=quiet_view()).score.to_values()
    del values["keep_largest"], values["postprocessed"]
    assert HeldOutScore.from_values(values).postprocessed == ()


@pytest.mark.usefixtures("source_form_alone")
def test_another_network_is_refused_unless_asked_for_again_and_then_counted(plan, tmp_path):
    first = score_held_out(plan, "0", view=quiet_view()).score
    with pytest.raises(UserError, match=re.escape(f"were used 1 time, last on {first.at} for trial 0 ")) as refused:
        score_held_out(plan, "1", view=quiet_view())
    assert "--again (again=True) scores trial 1 too, and records it" in str(refused.value)
    assert len(read_test_uses(plan.url, "tiny")) == 1
    second = score_held_out(plan, "1", again=True, view=quiet_view())
    assert second.uses == 2 and len(json.loads((plan.folder / FILE).read_text())) == 2
    export(plan, "1", tmp_path / "model", view=quiet_view())
    card = (tmp_path / "model/MODEL_CARD.md").read_text()
    assert f"**{second.score.dice:.4f}** on 2 cases that no training, validation or choice" in card
    assert f"the validation Dice of these weights is {second.validation_dice:.4f}" in card
    assert f"The test cases were used 2 times: trial 0 on {first.at}, trial 1 on {second.score.at}" in card
    assert "The test cases come from the same data set" in card


@pytest.mark.usefixtures("source_form_alone")
def test_a_card_says_that_its_weights_were_not_tested(plan, tmp_path):
    score_held_out(plan, "0", view=quiet_view())
    export(plan, "1", tmp_path / "model", view=quiet_view())
    card = (tmp_path / "model/MODEL_CARD.md").read_text()
    assert "These weights were not scored on the test cases" in card
    assert "The test cases were used 1 time: trial 0 on" in card and "There was no external test set" in card


def test_changed_test_cases_are_refused_in_words(finished, plan):
    other = load_study(finished.file, overrides=["data.test=0.4"])
    with pytest.raises(UserError, match=r"data.test: the study began with 0.25, the file now has 0.4") as error:
        score_held_out(make_plan(other, runs=plan.runs), "0", view=quiet_view())
    assert any("data.test: the test cases were" in str(mistake) for mistake in error.value.mistakes)


def test_a_changed_label_of_a_test_case_is_refused(finished, plan, tmp_path):
    folder = tmp_path / "phantom"
    shutil.copytree(finished.data / "phantom", folder)
    label = folder / "labelsTr" / f"{plan.held_out.names[0]}.nii.gz"
    image = nibabel.load(label)
    voxels = np.asarray(image.dataobj).copy()
    voxels[0, 0, 0] = 1
    nibabel.save(nibabel.Nifti1Image(voxels, image.affine, image.header), label)
    changed = load_study(finished.file, data_root=tmp_path)
    with pytest.raises(UserError, match=f"case {plan.held_out.names[0]} has other voxels, labels or geometry"):
        score_held_out(make_plan(changed, runs=plan.runs), "0", view=quiet_view())


def test_a_study_without_test_cases_is_refused(tiny_run):
    plan = make_plan(load_study(tiny_run.file), runs=tiny_run.runs)
    with pytest.raises(UserError, match="study 'tiny' has no test cases"):
        score_held_out(plan, "best", view=quiet_view())


def test_the_command_and_the_method_give_the_same_score(finished, plan, monkeypatch, capsys):
    where = ["--runs", plan.runs, "--data", finished.data]
    words = ["test", finished.file, *where]
    shown = call(monkeypatch, capsys, *words, "--pick", "0", "--quiet").out
    assert "test cases were used 1 time" in shown and "95 % interval" in shown
    values = json.loads(call(monkeypatch, capsys, *words, "--pick", "0", "--json", "--quiet").out)
    assert values["uses"] == 1 and not values["fresh"] and len(values["cases"]) == 2
    study = voxnas.Study.from_yaml(finished.file, data=finished.data, runs=plan.runs)
    assert study.test(0, view=quiet_view()).score.dice == values["dice"]
    assert "--again" in call(monkeypatch, capsys, *words, "--pick", "1", code=2).err
    assert "2 further cases" in call(monkeypatch, capsys, "check", finished.file, *where).out
