"""Data folders of both layouts, and every mistake in their descriptions."""

import json
import os
import pickle
import re

import nibabel
import numpy as np
import pytest

from search.data.layouts import Case
from search.data.read import DataError, group_of, read_dataset
from search.data.volume_files import read_volume, stem_of


def volume(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(np.ones((2, 3, 4), dtype=np.uint8), np.eye(4)), path)


def decathlon(root, names=("a", "b"), **changes):
    for name in names:
        volume(root / f"imagesTr/{name}.nii.gz")
        volume(root / f"labelsTr/{name}.nii.gz")
    description = {
        "name": "Made",
        "licence": "CC0",
        "modality": {"0": "MRI"},
        "labels": {"0": "background", "1": "organ"},
        "training": [{"image": f"./imagesTr/{n}.nii.gz", "label": f"./labelsTr/{n}.nii.gz"} for n in names],
    }
    description = {key: entry for key, entry in {**description, **changes}.items() if entry is not None}
    root.mkdir(parents=True, exist_ok=True)
    (root / "dataset.json").write_text(json.dumps(description))
    return root


def nnunet(root, names=("a", "b"), channels=2, **changes):
    for name in names:
        for index in range(channels):
            volume(root / f"imagesTr/{name}_{index:04d}.nii.gz")
        volume(root / f"labelsTr/{name}.nii.gz")
    description = {
        "channel_names": {str(index): f"T{index + 1}" for index in range(channels)},
        "labels": {"background": 0, "organ": 1},
        "numTraining": len(names),
        "file_ending": ".nii.gz",
    }
    description = {key: entry for key, entry in {**description, **changes}.items() if entry is not None}
    (root / "dataset.json").write_text(json.dumps(description))
    return root


def problems_of(root):
    with pytest.raises(DataError) as caught:
        read_dataset(root)
    assert str(caught.value) == "\n".join(caught.value.problems)
    return caught.value.problems


def test_a_decathlon_folder_is_read(tmp_path):
    dataset = read_dataset(decathlon(tmp_path / "data", ("b", "a")))
    assert (dataset.name, dataset.licence) == ("Made", "CC0")
    assert (dataset.channels, dataset.labels, dataset.label_values) == (
        ("MRI",),
        ("background", "organ"),
        (0, 1),
    )
    assert dataset.cases == tuple(
        Case(name, (f"{tmp_path}/data/imagesTr/{name}.nii.gz",), f"{tmp_path}/data/labelsTr/{name}.nii.gz")
        for name in "ab"
    )
    assert hash(dataset)


def test_an_nnunet_folder_is_read(tmp_path):
    dataset = read_dataset(nnunet(tmp_path / "Dataset001_Made"))
    assert (dataset.name, dataset.licence) == ("Dataset001_Made", "not stated")
    assert dataset.channels == ("T1", "T2")
    assert [case.name for case in dataset.cases] == ["a", "b"]
    assert [path.rsplit("/", 1)[1] for path in dataset.cases[0].images] == ["a_0000.nii.gz", "a_0001.nii.gz"]


def test_a_decathlon_list_finds_one_file_per_channel(tmp_path):
    root = decathlon(tmp_path, ("a",), modality={"0": "T1", "1": "T2"})
    (root / "imagesTr/a.nii.gz").unlink()
    for index in range(2):
        volume(root / f"imagesTr/a_{index:04d}.nii.gz")
    assert [path[-13:] for path in read_dataset(root).cases[0].images] == [
        "a_0000.nii.gz"[-13:],
        "a_0001.nii.gz"[-13:],
    ]


@pytest.mark.parametrize("number", [2, 7])
def test_files_of_channels_that_are_not_named_are_reported(tmp_path, number):
    listed = decathlon(tmp_path / "listed", ("a",), modality={"0": "T1", "1": "T2"})
    (listed / "imagesTr/a.nii.gz").unlink()
    for index in (0, 1, number):
        volume(listed / f"imagesTr/a_{index:04d}.nii.gz")
    raw = nnunet(tmp_path / "raw")
    volume(raw / f"imagesTr/a_{number:04d}.nii.gz")
    for root in (listed, raw):
        assert problems_of(root) == ["case a: has more image files than the 2 channels of dataset.json"]


def test_four_digits_that_number_patients_are_no_channels(tmp_path):
    root = decathlon(tmp_path, ("pat_0000", "pat_0001", "pat_0002"))
    assert [len(case.images) for case in read_dataset(root).cases] == [1, 1, 1]


def test_labels_are_ordered_by_value_and_may_have_gaps(tmp_path):
    dataset = read_dataset(decathlon(tmp_path, labels={"7": "far", "0": "background", "2": "near"}))
    assert dataset.labels == ("background", "near", "far")
    assert dataset.label_values == (0, 2, 7)


def test_a_missing_folder_is_reported_with_the_nearest_name(tmp_path):
    decathlon(tmp_path / "Task04_Hippocampus")
    assert problems_of(tmp_path / "Task4_Hippocampus") == [
        f"{tmp_path}/Task4_Hippocampus: no such folder; did you mean {tmp_path}/Task04_Hippocampus?"
    ]
    assert problems_of(tmp_path) == [
        f"{tmp_path}: contains no dataset.json; subfolders with a dataset.json: Task04_Hippocampus"
    ]
    assert problems_of(tmp_path / "Task04_Hippocampus" / "imagesTr") == [
        f"{tmp_path}/Task04_Hippocampus/imagesTr: contains no dataset.json; "
        "a Decathlon task or an nnU-Net raw data set has one"
    ]
    (tmp_path / "volume.nii.gz").touch()
    assert problems_of(tmp_path / "volume.nii.gz") == [
        f"{tmp_path}/volume.nii.gz: is a file, not the folder of a data set"
    ]


def test_an_invalid_description_is_reported_with_line_and_column(tmp_path):
    (tmp_path / "dataset.json").write_text('{\n "name": ,\n}')
    assert problems_of(tmp_path) == [f"{tmp_path}/dataset.json:2:10: is not valid JSON (Expecting value)"]
    (tmp_path / "dataset.json").write_text("[]")
    assert problems_of(tmp_path) == [f"{tmp_path}/dataset.json: must be a JSON object, got list"]
    (tmp_path / "dataset.json").write_bytes(b"\xff\xfe\x00")
    assert "cannot be read" in problems_of(tmp_path)[0]


def test_missing_keys_are_reported_together(tmp_path):
    assert problems_of(decathlon(tmp_path, modality=None, labels=None, training=None)) == [
        "dataset.json: 'modality' (Decathlon) or 'channel_names' (nnU-Net) is missing",
        "dataset.json: 'labels' is missing",
        "dataset.json: 'training' (Decathlon, MONAI), 'dataset' or 'file_ending' (nnU-Net) is missing",
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": {}}, "'labels' lists no classes: {}"),
        ({"labels": {"0": "background"}}, "'labels' lists no class other than background"),
        ({"labels": {"1": "organ", "2": "other"}}, "no class has the value 0, the background"),
        (
            {"labels": {"background": 0, "whole": [1, 2]}},
            r"'regions_class_order' is None, expected an integer for each of the 1 regions \(whole\)",
        ),
        ({"labels": {"background": 0, "organ": 1.5}}, "'organ' has the value 1.5, expected an integer"),
        ({"labels": {"background": 0, "organ": 70000}}, "'organ' has the value 70000, outside 0 to 65534"),
        ({"labels": {"background": 0, "a": 1, "b": 1}}, "'labels': value 1 occurs 2 times"),
        ({"labels": {"0": "organ", "1": "organ"}}, "'labels': name 'organ' occurs 2 times"),
        ({"modality": {"0": "T1", "2": "T2"}}, '"modality" must have the form {"0": NAME'),
        ({"modality": {}}, "'modality' lists no channels"),
        ({"modality": {"0": None}}, "'modality': channel 0 is called None, expected a name"),
        ({"training": {}}, "'training' must be a list of image and label paths, got dict"),
        ({"training": []}, "contains no labelled cases"),
        (
            {"training": ["./imagesTr/a.nii.gz"]},
            r'"training"\[0\]: expected {"image": PATH or \[PATH, ...\], "label": PATH}',
        ),
    ],
)
def test_each_mistake_of_a_description_has_its_message(changes, message, tmp_path):
    with pytest.raises(DataError, match=message):
        read_dataset(decathlon(tmp_path, **changes))


def test_missing_files_and_duplicate_cases_are_reported_together(tmp_path):
    root = decathlon(tmp_path, ("a", "b", "c", "a"))
    (root / "imagesTr/b.nii.gz").unlink()
    (root / "labelsTr/c.nii.gz").unlink()
    with pytest.raises(DataError) as caught:
        read_dataset(root)
    assert caught.value.problems == [
        "case a: is listed 2 times, but each case must have one image and one label",
        f"{root}/imagesTr/b.nii.gz: no such file",
        f"{root}/labelsTr/c.nii.gz: no such file",
    ]
    assert caught.value.dataset is None


def test_valid_cases_stay_readable_despite_problems(tmp_path):
    root = decathlon(tmp_path, ("a", "b"))
    (root / "imagesTr/b.nii.gz").unlink()
    with pytest.raises(DataError) as caught:
        read_dataset(root)
    assert [case.name for case in caught.value.dataset.cases] == ["a"]
    copy = pickle.loads(pickle.dumps(caught.value))
    assert copy.problems == caught.value.problems
    assert copy.dataset == caught.value.dataset


def test_each_mistake_of_an_nnunet_folder_has_its_message(tmp_path):
    root = nnunet(tmp_path / "Dataset002", numTraining=5)
    (root / "imagesTr/b_0001.nii.gz").unlink()
    volume(root / "imagesTr/a_0002.nii.gz")
    volume(root / "imagesTr/alone_0000.nii.gz")
    (root / "labelsTr/._a.nii.gz").write_bytes(b"left by a Mac")
    assert problems_of(root) == [
        "case a: has more image files than the 2 channels of dataset.json",
        "dataset.json: 'numTraining' is 5, but the number of cases is 3",
        f"{root}/imagesTr/alone_0001.nii.gz: no such file",
        f"{root}/imagesTr/b_0001.nii.gz: no such file",
        f"{root}/labelsTr/alone.nii.gz: no such file",
    ]
    assert problems_of(nnunet(tmp_path / "Dataset003", file_ending=".png")) == [
        "dataset.json: 'file_ending' is '.png', but only .nii.gz, .nii, .mha, .mhd, .nrrd, .nhdr are supported"
    ]
    empty = tmp_path / "Dataset004"
    empty.mkdir()
    assert problems_of(nnunet(empty, ())) == [f"{empty}: imagesTr and labelsTr contain no *.nii.gz files"]


@pytest.mark.parametrize(
    ("pattern", "group"),
    [
        (None, "patient007_frame01"),
        (r"patient\d+", "patient007"),
        (r"patient(\d+)_", "007"),
        (r"frame(?:01|02)", "frame01"),
        (r"subject\d+", None),
        (r"(missing)?patient", None),
    ],
)
def test_a_pattern_finds_the_group_in_a_case_name(pattern, group):
    assert group_of("patient007_frame01", pattern) == group


def test_an_invalid_regular_expression_is_refused():
    with pytest.raises(DataError, match=r"group '\(patient': is not a valid regular expression"):
        group_of("patient007", "(patient")


@pytest.mark.parametrize(("file", "name"), [("x/a.nii.gz", "a"), ("a.b.nii", "a.b"), ("a.gz", "a.gz")])
def test_a_case_is_named_after_its_file(file, name):
    assert stem_of(file) == name


NO_FILES = {  # what stands in place of a file, and its sentence
    "a pipe": "is a pipe, a socket or a device, not a file",
    "a folder": "is a folder, not a file",
    "a loop of links": r"cannot be read \(Too many levels of symbolic links\)",
    "a dead link": "is a link that leads to no file",
}


def put(what, path):
    path.unlink()
    if what == "a pipe":
        os.mkfifo(path)
    elif what == "a folder":
        path.mkdir()
    else:
        path.symlink_to(path.name if what == "a loop of links" else "nothing")


@pytest.mark.parametrize("what", NO_FILES)
@pytest.mark.parametrize("which", ["dataset.json", "imagesTr/a.nii.gz", "labelsTr/a.nii.gz"])
def test_what_is_no_file_is_called_what_it_is_and_never_waited_for(what, which, tmp_path):
    file = decathlon(tmp_path) / which
    put(what, file)
    (problem,) = problems_of(tmp_path)
    assert re.fullmatch(f"{re.escape(str(file))}: {NO_FILES[what]}", problem)
    if which != "dataset.json":
        with pytest.raises(ValueError, match=NO_FILES[what]):
            read_volume(file)


@pytest.mark.parametrize(
    ("name", "message"), [("x" * 300, r"cannot be read \(File name too long\)"), ("a\nb", "no such file")]
)
def test_a_listed_name_that_can_be_no_file_is_a_problem(name, message, tmp_path):
    listed = [{"image": f"./imagesTr/{name}.nii.gz", "label": "./labelsTr/a.nii.gz"}]
    assert any(re.search(message, each) for each in problems_of(decathlon(tmp_path, training=listed)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, r"dataset.json: is not valid JSON \(it is nested too deeply\)"),
        ('{"labels": 1' + "0" * 5000 + "}", r"dataset.json: cannot be read \(Exceeds the limit"),
        ('{"labels": {"a": 0}, "labels": {"b": 0}}', "the key 'labels' is given twice, with different values"),
    ],
)
def test_a_description_that_json_cannot_hold_is_refused(text, message, tmp_path):
    (tmp_path / "dataset.json").write_text(text)
    (problem,) = problems_of(tmp_path)
    assert re.search(message, problem)


def test_a_label_value_of_thousands_of_digits_is_out_of_range(tmp_path):
    problems = problems_of(decathlon(tmp_path, labels={"0": "background", "1" + "0" * 5000: "organ"}))
    assert any("outside 0 to" in each for each in problems)
