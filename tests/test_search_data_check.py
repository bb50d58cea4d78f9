"""Problems of volumes, reported all at once, and the cache of their facts."""

import gzip
import json
import os
import time
from pathlib import Path

import nibabel
import numpy as np
import pytest

from search.data import facts as facts_room
from search.data.check import check_dataset, check_folder
from search.data.labels import read_label, to_classes
from search.data.read import DataError, read_dataset

DATA = Path(os.environ.get("VOXNAS_DATA", Path(__file__).parents[2] / "shared" / "data"))
REAL = [
    ("Task04_Hippocampus", None, (1.0, 1.0, 1.0), (35, 50, 36), 60),
    ("Task27_ACDC", r"(patient\d+)_", (1.5625, 1.5625, 10.0), (160, 160, 9), 30),
]
SHAPE = (6, 5, 4)


def save(path, array, affine=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(array, np.eye(4) if affine is None else affine), path)


def label_array(*values):
    array = np.zeros(SHAPE, dtype=np.uint8)
    array.flat[: len(values)] = values
    return array


def made(root, names=("a", "b", "c"), **changes):
    rng = np.random.default_rng(0)
    for name in names:
        save(root / f"imagesTr/{name}.nii.gz", rng.normal(100, 9, SHAPE).astype(np.float32))
        save(root / f"labelsTr/{name}.nii.gz", label_array(1, 1, 2))
    description = {
        "name": "Made",
        "modality": {"0": "MRI"},
        "labels": {"0": "background", "1": "organ", "2": "tumour"},
        "training": [{"image": f"imagesTr/{n}.nii.gz", "label": f"labelsTr/{n}.nii.gz"} for n in names],
        **changes,
    }
    (root / "dataset.json").write_text(json.dumps(description))
    return root


def check(root, group=None, **options):
    return check_dataset(read_dataset(root), group=group, **options)


def test_a_valid_data_set_has_facts_and_no_problems(tmp_path):
    facts = check(made(tmp_path))
    assert (facts.problems, facts.notes) == ((), ())
    assert facts.spacing_median == (1.0, 1.0, 1.0)
    assert facts.shape_median == SHAPE
    assert facts.voxels_per_class == (351, 6, 3)
    assert facts.groups == {"a": "a", "b": "b", "c": "c"}
    assert facts.cases[0].voxels_per_class == (117, 2, 1)
    assert len({case.digest for case in facts.cases}) == 3


def test_shape_and_spacing_are_along_ras_axes(tmp_path):
    root = made(tmp_path, ("a",))
    affine = np.array([[0, 0, -3.0, 9], [1.5, 0, 0, 0], [0, 2.0, 0, 0], [0, 0, 0, 1]])
    save(root / "imagesTr/a.nii.gz", np.ones(SHAPE), affine)
    save(root / "labelsTr/a.nii.gz", label_array(1, 2), affine)
    case = check(root).cases[0]
    assert case.shape == (4, 6, 5)
    assert case.spacing == (3.0, 1.5, 2.0)


def test_all_problems_of_the_volumes_are_found_at_once(tmp_path):
    root = made(tmp_path, tuple("abcdefghij"))
    images, labels = root / "imagesTr", root / "labelsTr"
    (images / "a.nii.gz").write_bytes((images / "a.nii.gz").read_bytes()[:-30])
    nan = np.ones(SHAPE, dtype=np.float32)
    nan[0, 0, 0] = np.nan
    save(images / "b.nii.gz", nan)
    save(labels / "c.nii.gz", np.zeros((6, 5, 3), dtype=np.uint8))
    save(labels / "d.nii.gz", label_array(1, 2), np.diag([1.0, 1.0, 2.0, 1.0]))
    save(labels / "e.nii.gz", label_array(1, 4, 4, 9))
    save(labels / "f.nii.gz", label_array(1, 2) * np.float32(0.5))
    save(images / "g.nii.gz", np.ones((*SHAPE, 2), dtype=np.float32))
    save(images / "h.nii.gz", np.ones((6, 5), dtype=np.float32))
    save(labels / "i.nii.gz", np.ones((*SHAPE, 3), dtype=np.uint8))
    facts = check(root)
    expected = [
        "a.nii.gz: cannot be read (",
        "b.nii.gz: contains NaN or infinite values (1 of 120 voxels)",
        "c.nii.gz: has shape (6, 5, 3) instead of (6, 5, 4), unlike its image c.nii.gz",
        "d.nii.gz: has a different affine: corners are up to 3 mm apart (allowed: 0.1 mm), unlike its image d.nii",
        "e.nii.gz: contains the value 4 (2 voxels), which dataset.json does not list",
        "e.nii.gz: contains the value 9 (1 voxels), which dataset.json does not list",
        "f.nii.gz: contains non-integer values (1 voxels, such as 0.5)",
        "g.nii.gz: has 2 channels, but dataset.json lists 1",
        "h.nii.gz: has shape (6, 5), but a volume must have 3 axes",
        "i.nii.gz: has shape (6, 5, 4, 3), but a label must have 3 axes",
    ]
    assert len(facts.problems) == len(expected)
    for problem, part in zip(facts.problems, expected, strict=True):
        assert part in problem
        assert "\n" not in problem
    assert [case.name for case in facts.cases] == ["j"]


def test_problems_of_description_and_volumes_are_reported_together(tmp_path):
    root = made(tmp_path)
    (root / "imagesTr/a.nii.gz").unlink()
    save(root / "labelsTr/b.nii.gz", label_array(7))
    with pytest.raises(DataError) as caught:
        check_folder(root, group=r"(\d)")
    assert [problem.split("/")[-1] for problem in caught.value.problems] == [
        "a.nii.gz: no such file",
        "case b: the group pattern '(\\\\d)' does not match this name",
        "case c: the group pattern '(\\\\d)' does not match this name",
        "b.nii.gz: contains the value 7 (1 voxels), which dataset.json does not list",
    ]
    with pytest.raises(DataError, match="no such folder"):
        check_folder(root / "absent", group=None)


def test_a_file_lost_after_reading_the_description_is_a_problem(tmp_path):
    dataset = read_dataset(made(tmp_path))
    (tmp_path / "labelsTr/b.nii.gz").unlink()
    facts = check_dataset(dataset, group=None)
    assert facts.problems == (f"{tmp_path}/labelsTr/b.nii.gz: no such file",)


def test_a_class_in_no_case_is_a_problem_and_in_some_cases_a_note(tmp_path):
    root = made(tmp_path, labels={"0": "background", "1": "organ", "2": "tumour", "5": "cyst"})
    save(root / "labelsTr/b.nii.gz", label_array(1))
    facts = check(root)
    assert facts.problems == ("class 'cyst' (value 5): has no voxels in any case",)
    assert facts.notes == ("class 'tumour': absent from 1 of 3 cases (b)",)


def test_headers_whose_sform_and_qform_disagree_are_noted_with_what_is_used(tmp_path):
    root = made(tmp_path)
    for name in ("b", "c"):
        file = root / f"imagesTr/{name}.nii.gz"
        image = nibabel.Nifti1Image(np.asarray(nibabel.load(file).dataobj), np.eye(4))
        image.set_qform(np.diag([2.0, 1.0, 1.0, 1.0]) if name == "b" else np.eye(4), code=1)
        nibabel.save(image, file)
    (note,) = check(root, cache_dir=tmp_path / "cache").notes
    assert note == (
        "sform and qform disagree in 1 of 3 cases (b), by up to 5 mm: the sform is used; check that it is the one that "
        "the labels were drawn with"
    )
    assert check(root, cache_dir=tmp_path / "cache").notes == (note,)


def test_a_changed_byte_in_a_compressed_volume_is_found_by_its_checksum(tmp_path):
    root = made(tmp_path)
    file = root / "imagesTr/b.nii.gz"
    save(file, np.random.default_rng(1).normal(100, 9, (20, 20, 20)).astype(np.float32))
    save(root / "labelsTr/b.nii.gz", np.ones((20, 20, 20), np.uint8))
    content = gzip.compress(gzip.decompress(file.read_bytes()), compresslevel=0)  # stored as it is
    file.write_bytes(content + b"bytes after the end")
    assert check(root).problems == ()
    middle = len(content) // 2
    file.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    (problem,) = check(root).problems
    assert f"{file}: cannot be read (BadGzipFile: CRC check failed" in problem


def test_facts_that_a_disk_changed_are_read_again_from_the_files(tmp_path):
    root, cache = made(tmp_path), tmp_path / "cache"
    first = check(root, cache_dir=cache)
    (file,) = cache.glob("facts-*.json")
    for old, new in (('"affine": [1.0', '"affine": [2.0'), ('"sha256": "', '"sha256": "0'), ("format", "farmat")):
        text = file.read_text()
        file.write_text(text.replace(old, new))
        assert file.read_text() != text and check(root, cache_dir=cache) == first


def test_two_cases_with_one_image_are_noted(tmp_path):
    root = made(tmp_path)
    (root / "imagesTr/c.nii.gz").write_bytes((root / "imagesTr/a.nii.gz").read_bytes())
    assert check(root).notes == ("case c: has the same image as case a",)


def test_a_data_set_without_valid_cases_has_empty_facts(tmp_path):
    root = made(tmp_path, ("a",))
    (root / "imagesTr/a.nii.gz").write_bytes(b"")
    facts = check(root)
    assert facts.cases == ()
    assert (facts.spacing_median, facts.shape_median, facts.voxels_per_class) == ((0.0,) * 3, (0,) * 3, ())


def test_channel_files_must_lie_on_one_grid(tmp_path):
    root = made(tmp_path, ("a",), modality={"0": "T1", "1": "T2"})
    (root / "imagesTr/a.nii.gz").rename(root / "imagesTr/a_0000.nii.gz")
    save(root / "imagesTr/a_0001.nii.gz", np.ones((6, 5, 9)))
    assert check(root).problems == (
        f"{root}/imagesTr/a_0001.nii.gz: has shape (6, 5, 9) instead of (6, 5, 4), unlike its image a_0000.nii.gz",
    )
    save(root / "imagesTr/a_0001.nii.gz", np.ones(SHAPE))
    assert check(root).problems == ()


def test_the_share_inside_a_margin_of_zeros_is_measured(tmp_path):
    root = made(tmp_path, ("a",))
    image = np.zeros(SHAPE, dtype=np.float32)
    image[1:4, 0:5, 2] = 5
    save(root / "imagesTr/a.nii.gz", image)
    assert check(root).cases[0].filled == pytest.approx(0.5 * 1.0 * 0.25)
    save(root / "imagesTr/a.nii.gz", image * 0)
    assert check(root).problems == (f"{root}/imagesTr/a.nii.gz: contains only zeros",)


def test_facts_are_cached_until_a_file_changes(tmp_path, monkeypatch):
    root, read = made(tmp_path / "data"), []
    real = facts_room.file_facts
    monkeypatch.setattr(facts_room, "file_facts", lambda path, kind: read.append(path) or real(path, kind=kind))
    first = check(root, cache_dir=tmp_path / "cache")
    assert len(read) == 6
    assert check(root, cache_dir=tmp_path / "cache") == first
    assert len(read) == 6
    save(root / "labelsTr/b.nii.gz", label_array(1, 2, 2))
    os.utime(root / "labelsTr/b.nii.gz", ns=(1, 1))
    second = check(root, cache_dir=tmp_path / "cache")
    assert read[6:] == [f"{root}/labelsTr/b.nii.gz"]
    assert second.cases[1].voxels_per_class == (117, 1, 2)
    assert second.cases[1].digest != first.cases[1].digest
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [
        path.name for path in (tmp_path / "cache").glob("facts-*.json")
    ]


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"format": 1}', '{"format": 1, "files": {"a": 3}}', '{"format": 0}']
)
def test_a_damaged_cache_is_rebuilt(content, tmp_path):
    root = made(tmp_path / "data")
    facts = check(root, cache_dir=tmp_path / "cache")
    next((tmp_path / "cache").iterdir()).write_text(content)
    assert check(root, cache_dir=tmp_path / "cache") == facts


def test_problems_are_not_cached(tmp_path):
    root = made(tmp_path / "data", ("a", "b"))
    path = root / "imagesTr/a.nii.gz"
    sound, stamp = path.read_bytes(), path.stat().st_mtime_ns
    path.write_bytes(b"\0" * len(sound))
    os.utime(path, ns=(stamp, stamp))
    assert len(check(root, cache_dir=tmp_path / "cache").problems) == 1
    path.write_bytes(sound)
    os.utime(path, ns=(stamp, stamp))
    assert check(root, cache_dir=tmp_path / "cache").problems == ()


def test_a_read_only_cache_only_costs_time(tmp_path):
    (tmp_path / "cache").write_text("a file where a folder should be")
    assert check(made(tmp_path / "data"), cache_dir=tmp_path / "cache").problems == ()


def test_progress_counts_files(tmp_path):
    seen = []
    check(made(tmp_path), progress=lambda done, total: seen.append((done, total)))
    assert seen == [(done, 6) for done in range(1, 7)]


def test_labels_of_any_type_are_whole_numbers(tmp_path):
    for dtype in (np.uint8, np.int16, np.int32, np.float32, np.float64):
        save(tmp_path / "label.nii.gz", label_array(1, 2).astype(dtype)[..., None])
        values, _ = read_label(tmp_path / "label.nii.gz")
        assert values.dtype.kind in "iu"
        assert values.shape == SHAPE
    save(tmp_path / "nan.nii.gz", np.full(SHAPE, np.nan))
    with pytest.raises(ValueError, match=r"nan.nii.gz: contains NaN or infinite values \(120 voxels\)"):
        read_label(tmp_path / "nan.nii.gz")


def test_label_values_become_indices_in_order():
    assert to_classes(np.array([[[0, 7, 2]]]), (0, 2, 7)).tolist() == [[[0, 2, 1]]]
    for values in ([0, 3], [-1, 0], [0, 1000]):
        with pytest.raises(ValueError, match=r"unknown label values \[-?\d+\], expected values from \[0, 2, 7\]"):
            to_classes(np.array([[values]]), (0, 2, 7))


@pytest.mark.parametrize(("name", "group", "spacing", "shape", "groups"), REAL)
def test_real_data_is_valid_and_checked_quickly(name, group, spacing, shape, groups, tmp_path):
    if not (DATA / name).is_dir():
        pytest.skip(f"{DATA / name} is absent: real volumes are not part of the repository")
    start = time.perf_counter()
    _, facts = check_folder(DATA / name, group=group, cache_dir=tmp_path)
    assert time.perf_counter() - start < 10
    assert (facts.problems, facts.notes) == ((), ())
    assert (facts.spacing_median, facts.shape_median) == (spacing, shape)
    assert len(facts.cases) == 60
    assert len(set(facts.groups.values())) == groups
    start = time.perf_counter()
    assert check_folder(DATA / name, group=group, cache_dir=tmp_path)[1] == facts
    assert time.perf_counter() - start < 1
