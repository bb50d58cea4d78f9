"""Test cases: which ones, and that nothing of a search sees them."""

import json
from dataclasses import replace

import numpy as np
import pytest
from conftest import STUDY, write_study

from search.config import UserError, load_study
from search.data.check import check_folder
from search.data.held_out import choose_test_cases, hold_out
from search.data.prepare import prepare, prepare_like
from search.data.prepared import load_prepared
from search.data.read import DataError
from search.runner.plan import make_plan, prepared_data, prepared_test_data

GROUPS = {f"p{patient}_{visit}": f"p{patient}" for patient in range(10) for visit in "ab"}


@pytest.mark.parametrize(("share", "patients"), [(0.2, 2), (0.01, 1), (0.9, 9)])
def test_a_share_takes_whole_groups_and_depends_on_seed_and_names_alone(share, patients):
    chosen = choose_test_cases(GROUPS, share, seed=3)
    assert len(chosen) == 2 * patients and {GROUPS[case] for case in chosen} == {case[:2] for case in chosen}
    assert choose_test_cases(dict(reversed(GROUPS.items())), share, seed=3) == chosen == tuple(sorted(chosen))
    if share == 0.2:
        assert len({choose_test_cases(GROUPS, share, seed=seed) for seed in range(20)}) > 10


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (("p1_a", "p1_b", "p77"), "data.test: there is no case 'p77'"),
        (("p1_a", "p1_b", "p1_a"), "data.test: 'p1_a' is listed twice"),
        (("p1_a",), "data.test: lists only some cases of group p1; add p1_b"),
        (tuple(GROUPS), "data.test: takes all cases"),
        (0.99, "data.test: takes all cases"),
    ],
)
def test_test_cases_that_cannot_be_held_out_are_refused(wanted, said):
    with pytest.raises(DataError, match=said):
        choose_test_cases(GROUPS, wanted, seed=0)


def plan_of(made, *overrides):
    return make_plan(load_study(made.file, overrides=overrides), runs=made.runs)


def test_no_fold_patch_spacing_or_statistic_sees_a_test_case(tmp_path):
    """The prepared data of a study with test cases are those of a folder that never had them."""
    made = write_study(tmp_path, STUDY.replace("folds: 3", "folds: 3, normalisation: ct"), cases=8)
    plan = plan_of(made, "data.test=0.25")
    held = set(plan.held_out.names)
    assert len(held) == 2
    for fold in plan.folds:
        assert not held & {*fold.train, *fold.validation}
    prepared = prepared_data(plan)
    assert not held & {case.name for case in prepared.cases}
    for name in held:
        (tmp_path / f"phantom/labelsTr/{name}.nii.gz").unlink()
        for image in (tmp_path / "phantom/imagesTr").glob(f"{name}_*"):
            image.unlink()
    described = json.loads((tmp_path / "phantom/dataset.json").read_text())
    described["training"] = [
        entry for entry in described["training"] if not any(name in entry["label"] for name in held)
    ]
    (tmp_path / "phantom/dataset.json").write_text(json.dumps(described))
    alone = plan_of(made)
    assert (alone.facts.spacing_median, alone.facts.shape_median) == (
        plan.facts.spacing_median,
        plan.facts.shape_median,
    )
    assert prepared_data(alone).preprocessing == prepared.preprocessing


def test_test_cases_are_prepared_with_the_statistics_of_the_others(tmp_path):
    made = write_study(tmp_path, STUDY.replace("folds: 3", "folds: 3, normalisation: ct"), cases=8)
    plan = plan_of(made, "data.test=0.25")
    prepared = prepared_data(plan)
    test = prepared_test_data(plan, prepared)
    assert test.preprocessing == prepared.preprocessing and test.folder != prepared.folder
    assert tuple(case.name for case in test.cases) == plan.held_out.names
    assert load_prepared(test.folder) == test == prepared_test_data(plan, prepared)
    dataset, facts = check_folder(tmp_path / "phantom", group=None)
    other = prepare(dataset, facts, spacing="median", normalisation=("ct",), cache_dir=tmp_path / "c")
    assert other.preprocessing.normalisation != prepared.preprocessing.normalisation
    moved = replace(prepared, preprocessing=other.preprocessing)
    again = prepare_like(moved, plan.held_out.dataset, plan.held_out.facts, cache_dir=tmp_path / "c")
    assert again.preprocessing == other.preprocessing


def test_a_class_that_only_test_cases_have_is_a_problem(tmp_path):
    write_study(tmp_path)
    dataset, facts = check_folder(tmp_path / "phantom", group=None)
    first, *others = facts.cases
    rare = [replace(case, voxels_per_class=(*case.voxels_per_class[:2], 0)) for case in others]
    with pytest.raises(DataError, match=r"has no voxels in any case outside the test cases \(data.test\)"):
        hold_out(dataset, replace(facts, cases=(first, *rare)), [first.name])


def test_test_cases_in_which_nothing_can_be_scored_are_refused(tmp_path):
    write_study(tmp_path)
    dataset, facts = check_folder(tmp_path / "phantom", group=None)
    first, *others = facts.cases
    healthy = replace(first, voxels_per_class=(first.voxels_per_class[0], 0, 0))
    with pytest.raises(DataError, match=rf"the test cases \({first.name}\) contain only background, so no Dice can be"):
        hold_out(dataset, replace(facts, cases=(healthy, *others)), [first.name])


def test_a_study_without_test_cases_has_nothing_to_prepare(tmp_path):
    plan = plan_of(write_study(tmp_path))
    with pytest.raises(UserError, match=r"study 'tiny' has no test cases; add data.test"):
        prepared_test_data(plan, prepared_data(plan))


def test_a_file_of_splits_is_used_without_the_test_cases(tmp_path):
    made = write_study(tmp_path)
    names = sorted(path.name.removesuffix(".nii.gz") for path in (tmp_path / "phantom/labelsTr").iterdir())
    parts = [list(part) for part in np.split(np.array(names, dtype=object), 3)]
    splits = [{"train": [name for name in names if name not in part], "val": part} for part in parts]
    (tmp_path / "splits.json").write_text(json.dumps(splits))
    plan = plan_of(made, "data.folds=splits.json", f"data.test=[{names[0]}]")
    assert [set(fold.validation) | {*fold.train} for fold in plan.folds] == [set(names[1:])] * 3
    with pytest.raises(UserError, match="fold 0: 'val' has only test cases"):
        plan_of(made, "data.folds=splits.json", f"data.test={parts[0]}".replace("'", ""))


@pytest.mark.parametrize(
    ("value", "said"),
    [("1.5", "data.test: input should be less than 1"), ("[]", "at least 1 item"), ("2", "data.test: .*got 2")],
)
def test_a_wrong_value_is_reported(tmp_path, value, said):
    made = write_study(tmp_path)
    with pytest.raises(UserError, match=said):
        load_study(made.file, overrides=[f"data.test={value}"])
