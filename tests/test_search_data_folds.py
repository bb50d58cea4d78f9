"""Folds that keep groups whole."""

import json
import os
import random

import pytest

from search.data.folds import make_folds, read_folds
from search.data.read import DataError

PATIENTS = {f"patient{number:03d}_frame{frame}": f"patient{number:03d}" for number in range(13) for frame in (1, 2)}


@pytest.mark.parametrize("folds", [2, 3, 5, 13])
@pytest.mark.parametrize("seed", [0, 1])
def test_folds_cover_all_cases_and_never_split_a_group(folds, seed):
    made = make_folds(PATIENTS, folds=folds, seed=seed)
    assert len(made) == folds
    assert sorted(name for fold in made for name in fold.validation) == sorted(PATIENTS)
    for fold in made:
        assert set(fold.train) | set(fold.validation) == set(PATIENTS)
        assert not {PATIENTS[name] for name in fold.train} & {PATIENTS[name] for name in fold.validation}
    sizes = [len(fold.validation) for fold in made]
    assert max(sizes) - min(sizes) <= 2


def test_groups_of_unequal_size_are_spread_evenly():
    groups = {
        f"{group}{number}": str(group) for group, size in enumerate([6, 5, 4, 3, 2, 1, 1]) for number in range(size)
    }
    sizes = sorted(len(fold.validation) for fold in make_folds(groups, folds=3, seed=0))
    assert sizes == [7, 7, 8]


def test_folds_depend_on_the_seed_and_not_on_the_order():
    shuffled = list(PATIENTS.items())
    random.Random(3).shuffle(shuffled)
    assert make_folds(dict(shuffled), folds=5, seed=0) == make_folds(PATIENTS, folds=5, seed=0)
    assert make_folds(PATIENTS, folds=5, seed=1) != make_folds(PATIENTS, folds=5, seed=0)


def test_folds_of_a_seed_stay_the_same_between_versions():
    groups = {name: name for name in "abcdef"}
    assert [fold.validation for fold in make_folds(groups, folds=3, seed=0)] == [
        ("a", "e"),
        ("c", "f"),
        ("b", "d"),
    ]


def test_too_few_groups_are_reported():
    with pytest.raises(DataError, match="14 folds need at least 14 groups, but the 26 cases form only 13"):
        make_folds(PATIENTS, folds=14, seed=0)
    with pytest.raises(ValueError, match="at least 2 folds are needed, got 1"):
        make_folds(PATIENTS, folds=1, seed=0)


def write(path, entries):
    path.write_text(json.dumps(entries))
    return path


def test_folds_are_read_from_a_file(tmp_path):
    made = make_folds(PATIENTS, folds=3, seed=0)
    entries = [{"train": list(fold.train)[::-1], "val": list(fold.validation)} for fold in made]
    assert read_folds(write(tmp_path / "splits_final.json", entries), PATIENTS) == made


def test_a_folds_file_may_omit_cases(tmp_path):
    (fold,) = read_folds(write(tmp_path / "splits.json", [{"train": ["a"], "val": ["b"]}]), {n: n for n in "abc"})
    assert (fold.train, fold.validation) == (("a",), ("b",))


def test_all_mistakes_in_a_folds_file_are_reported_at_once(tmp_path):
    groups = {"a1": "a", "a2": "a", "b1": "b", "c1": "c", "c2": "c"}
    entries = [
        {"train": ["a1", "b1", "x"], "val": ["a2"]},
        {"train": ["b1", "c1", "c2"], "val": ["b1", "a1"]},
        {"train": [], "val": ["c1"]},
    ]
    file = write(tmp_path / "splits.json", entries)
    with pytest.raises(DataError) as caught:
        read_folds(file, groups)
    assert caught.value.problems == [
        f"{file}: fold 0: unknown case x",
        f"{file}: fold 0: group a is in both train and val",
        f"{file}: fold 1: case b1 is in both train and val",
        f"{file}: fold 1: group a is already validated in fold 0",
        f"{file}: fold 2: 'train' is empty",
    ]


@pytest.mark.parametrize(
    "entries",
    [
        {},
        [],
        [{"train": ["a"]}],
        [{"train": "a", "val": ["b"]}],
        [["a"], ["b"]],
        [{"train": [1], "val": [2]}],
    ],
)
def test_a_folds_file_of_another_format_is_refused(entries, tmp_path):
    with pytest.raises(DataError, match='splits.json: is not a list of {"train"'):
        read_folds(write(tmp_path / "splits.json", entries), {"a": "a"})


def test_an_unreadable_folds_file_is_reported(tmp_path):
    with pytest.raises(DataError, match="absent.json: no such file"):
        read_folds(tmp_path / "absent.json", {})
    (tmp_path / "text.json").write_text("train: a")
    with pytest.raises(DataError, match="text.json:1:1: is not valid JSON"):
        read_folds(tmp_path / "text.json", {})


def test_a_pipe_is_no_list_of_folds_and_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "splits.json")
    with pytest.raises(DataError, match=r"splits.json: is a pipe, a socket or a device, not a file"):
        read_folds(tmp_path / "splits.json", PATIENTS)
