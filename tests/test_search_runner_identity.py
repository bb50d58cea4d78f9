"""A study's records belong to the content of what its file names: each change is refused with a message."""

import gzip
import json
import re

import nibabel
import numpy as np
import pytest
import torch
from conftest import STUDY, write_study
from safetensors.torch import save_file

from search.config import UserError, load_study
from search.runner.plan import make_plan, require_unchanged
from search.storage import Store
from search.storage.identity import refuse_changes

LONE = STUDY.replace("folds: 3", "folds: splits.json")


def plan_of(made):
    return make_plan(load_study(made.file), runs=made.runs)


def begin(made):
    """Write a study's identity and reference point to its database, as its first run does before the first trial."""
    plan = plan_of(made)
    store = Store.open(plan.url, "tiny", directions=plan.directions, values=plan.identity())
    store.write_reference({"dice": 0.0})
    store.close()
    require_unchanged(plan_of(made))


def refused(made, *messages):
    plan = plan_of(made)
    with pytest.raises(UserError, match="study 'tiny' already has records that depend on this") as error:
        require_unchanged(plan)
    with pytest.raises(UserError) as also:
        Store.open(plan.url, "tiny", directions=plan.directions, values=plan.identity())
    assert error.value.mistakes == also.value.mistakes
    text = str(error.value)
    for message in messages:
        assert re.search(message, text), text
    assert not list(plan.cache.glob("*/prepared.json"))


def describe(made, **values):
    file = made.data / "phantom/dataset.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def cases_of(made):
    return sorted(path.name.removesuffix(".nii.gz") for path in (made.data / "phantom/labelsTr").glob("*.nii.gz"))


def write_splits(made, *validated):
    names = cases_of(made)
    folds = [{"train": [each for each in names if each not in val], "val": list(val)} for val in validated]
    (made.data / "splits.json").write_text(json.dumps(folds))


def test_a_study_that_never_ran_is_unchanged(tmp_path):
    require_unchanged(plan_of(write_study(tmp_path)))


def test_another_modality_is_refused(tmp_path):
    made = write_study(tmp_path)
    begin(made)
    describe(made, modality={"0": "CT"})
    refused(made, r"data: the channels were .* when the study began, now CT")


def test_swapped_class_names_are_refused(tmp_path):
    made = write_study(tmp_path)
    describe(made, labels={"0": "background", "1": "tumour", "2": "cyst"})
    begin(made)
    describe(made, labels={"0": "background", "1": "cyst", "2": "tumour"})
    refused(made, "the classes were background, tumour, cyst when the study began, now background, cyst, tumour")


def test_other_validation_cases_of_the_same_split_file_are_refused(tmp_path):
    made = write_study(tmp_path, LONE)
    one, two, three, *_ = cases_of(made)
    write_splits(made, [one, two], [three])
    begin(made)
    write_splits(made, [three], [one, two])
    refused(made, f"data.folds: fold 0 validated on {one}, {two} when the study began, now on {three}", "fold 1 ")


def test_other_training_cases_and_another_number_of_folds_are_refused(tmp_path):
    made = write_study(tmp_path, LONE)
    one, two, three, four, *_ = cases_of(made)
    (tmp_path / "splits.json").write_text(json.dumps([{"train": [two, three], "val": [one]}]))
    begin(made)
    folds = [{"train": [two, four], "val": [one]}, {"train": [one], "val": [two]}]
    (tmp_path / "splits.json").write_text(json.dumps(folds))
    refused(
        made,
        "fold 0 trained on other cases when the study began",
        "the number of folds was 1 when the study began and is now 2",
    )


def test_other_initial_weights_of_the_same_file_are_refused(tmp_path):
    made = write_study(tmp_path, STUDY.replace("training: {", "training: {init: start.safetensors, "))
    save_file({"weight": torch.zeros(3)}, tmp_path / "start.safetensors")
    begin(made)
    save_file({"weight": torch.ones(3)}, tmp_path / "start.safetensors")
    refused(made, "training.init: the weights in the file have changed since the study began")


def test_a_case_with_other_voxels_and_a_missing_case_are_named(tmp_path):
    made = write_study(tmp_path)
    one, two, *rest = cases_of(made)
    begin(made)
    file = made.data / f"phantom/imagesTr/{one}.nii.gz"
    image = nibabel.load(file)
    nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj) + 1, image.affine), file)
    listed = [{"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"} for name in (one, *rest)]
    (made.data / f"phantom/imagesTr/{two}.nii.gz").unlink()
    (made.data / f"phantom/labelsTr/{two}.nii.gz").unlink()
    describe(made, training=listed, numTraining=len(listed))
    refused(
        made,
        f"data: case {one} has other voxels, labels or geometry since the study began",
        f"data: case {two} is missing since the study began",
    )


def test_a_case_that_is_compressed_again_is_no_change(tmp_path):
    made = write_study(tmp_path)
    begin(made)
    for file in (made.data / "phantom").glob("*Tr/*.nii.gz"):
        file.write_bytes(gzip.compress(gzip.decompress(file.read_bytes()), 1))
    require_unchanged(plan_of(made))


def test_a_change_of_what_no_record_depends_on_is_no_change(tmp_path):
    made = write_study(tmp_path)
    begin(made)
    made.file.write_text(STUDY.replace("trials: 3", "trials: 30").replace("threads: 1", "threads: 2"))
    require_unchanged(plan_of(made))


def test_a_study_that_stopped_before_its_first_trial_takes_other_values_and_objectives(tmp_path):
    made = write_study(tmp_path)
    plan = plan_of(made)
    first = Store.open(plan.url, "tiny", directions=plan.directions, values=plan.identity())
    first.close()
    made.file.write_text(STUDY.replace("epochs: 2", "epochs: 3").replace("dice: maximize, ", ""))
    plan = plan_of(made)
    assert plan.training.epochs == 3 and "dice" not in plan.directions
    require_unchanged(plan)
    store = Store.open(plan.url, "tiny", directions=plan.directions, values=plan.identity())
    assert store.study_id == first.study_id and len(store.study.directions) == len(plan.directions)
    store.write_reference({})
    store.close()
    made.file.write_text(STUDY)
    refused(made, "training.epochs: the study began with 3, the file now has 2")


@pytest.mark.parametrize(
    ("budget", "shown"),
    [(2**31, "with 1.0 GiB, the file now has 2.0 GiB"), (2**30 + 1, "with 1073741824, the file now has 1073741825")],
)
def test_budgets_that_differ_are_shown_with_their_units_unless_these_hide_it(budget, shown):
    known, now = ({"objectives": {"memory": {"budget": each}}} for each in (2**30, budget))
    with pytest.raises(UserError, match=f"objectives.memory.budget: the study began {shown}"):
        refuse_changes("tiny", known, now)


def test_a_study_of_an_earlier_version_lacks_later_keys_and_is_resumed_at_their_defaults(tmp_path):
    now = {"data": {"path": "x", "affine_tolerance": 0.1}, "training": {"mirror": [], "overlap": 0.5}}
    refuse_changes("tiny", {"data": {"path": "x"}, "training": {"overlap": 0.5}}, now)
    now["data"]["affine_tolerance"] = 0.5
    with pytest.raises(UserError, match="data.affine_tolerance: the study began without it, the file now has 0.5"):
        refuse_changes("tiny", {"data": {"path": "x"}, "training": {"overlap": 0.5}}, now)
