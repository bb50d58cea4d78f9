"""predict.py on odd inputs and damaged exports: a sentence for each, no traceback, and all other cases segmented."""

from __future__ import annotations

import errno
import gzip
import importlib
import json
import os
import shutil
import struct
import sys
import unicodedata
from pathlib import Path

import nibabel
import numpy as np
import pytest
from other_user import as_nobody, make_readable
from test_search_export_inputs import affine_of, inputs, make_program, program, settings, write_dicom  # noqa: F401

import search.export.contents as contents


def image(path: Path, shape=(12, 14, 5), **header) -> Path:
    """Write zeros with these header fields."""
    volume = nibabel.Nifti1Image(np.zeros(shape, np.int16), affine_of((1, 1, 4)))
    nibabel.save(volume, path)
    if header:
        raw = bytearray(path.read_bytes())
        for field, value in header.items():
            place = {"pixdim": 80, "dim": 42, "forms": 252, "sform": 280}[field]
            struct.pack_into({"dim": "<3h", "forms": "<2h", "pixdim": "<3f", "sform": "<f"}[field], raw, place, *value)
        path.write_bytes(bytes(raw))
    return path


def run(program, *words) -> int:  # noqa: F811
    return program.main([*map(str, words), "--device", "cpu"])


def one_line_each(capsys) -> list[str]:
    """Return the lines on stderr, each of which is a message."""
    lines = capsys.readouterr().err.splitlines()
    assert all(line.startswith("predict.py: ") for line in lines), lines
    return lines


def write_damaged(folder: Path) -> dict[str, str]:
    """Write files that can't be segmented; return a part of the message by name."""
    whole = image(folder / "whole.nii.gz").read_bytes()
    (folder / "crc.nii.gz").write_bytes(whole[:-8] + bytes(4) + whole[-4:])
    (folder / "cut.nii.gz").write_bytes(whole[:-9])
    (folder / "whole.nii.gz").unlink()
    large = image(folder / "large.nii", dim=(30_000, 30_000, 30_000)).read_bytes()
    (folder / "zipped.nii.gz").write_bytes(gzip.compress(large))
    image(folder / "flat.nii", (12, 14))
    image(folder / "none.nii", pixdim=(0, 1, 1), forms=(0, 0))
    image(folder / "wide.nii", pixdim=(1e30, 1, 1), forms=(0, 0))
    image(folder / "plane.nii", sform=(0,))
    nibabel.save(nibabel.Nifti1Image(np.full((3, 3, 3), np.nan), np.eye(4)), folder / "nan.nii")
    (folder / "folder.nii").mkdir()
    (folder / "gone.nii").symlink_to("nowhere")
    (folder / "loop.nii").symlink_to("loop.nii")
    os.mkfifo(folder / "pipe.nii")
    return {
        "crc.nii.gz": "CRC check failed",
        "cut.nii.gz": "cannot be read (EOFError",
        "large.nii": "the header states shape (30000, 30000, 30000), but the file has only",
        "zipped.nii.gz": "the header states shape (30000, 30000, 30000), but the file has only",
        "flat.nii": "has shape (12, 14), but a volume must have 3 axes",
        "none.nii": "states no voxel sizes: pixdim is [0.0, 1.0, 1.0], and there is no sform",
        "wide.nii": "has voxels of 1e+30, 1, 1 mm",
        "plane.nii": "has voxels of 0, 1, 4 mm",
        "nan.nii": "contains NaN or infinite values (27 of 27 voxels)",
        "folder.nii": "is a folder, not a file",
        "gone.nii": "is a link that leads to no file",
        "loop.nii": "cannot be read (Too many levels of symbolic links)",
        "pipe.nii": "is a pipe, a socket or a device, not a file",
    }


def test_each_damaged_file_is_named_and_all_others_are_segmented(program, tmp_path, capsys):  # noqa: F811
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    messages = write_damaged(folder)
    names = ["A b.nii.gz", "-c.nii.gz", "%d[1].nii.gz", "two\nlines\x1b[31m.nii.gz", "d" * 240 + ".nii.gz", "U.NII.GZ"]
    for name in names:
        image(folder / name)
    for number in range(200):
        (folder / f"stray{number}.txt").touch()
    assert run(program, folder, "--out", out) == 1
    masks = {path.name for path in out.iterdir()}
    assert masks == {name.replace(".NII.GZ", ".nii.gz") for name in names}
    output = capsys.readouterr()
    assert len(output.out.splitlines()) == len(names) and "\x1b" not in output.out
    found = dict(line.removeprefix(f"predict.py: {folder}/").split(": ", 1) for line in output.err.splitlines())
    assert found.keys() == messages.keys()
    assert [name for name in found if messages[name] not in found[name]] == []


def test_inputs_with_the_same_output_file_are_named_and_left_out(program, tmp_path, capsys):  # noqa: F811
    folder, out = tmp_path / "in", tmp_path / "out"
    accented = unicodedata.normalize("NFD", "é.nii")
    inputs(folder, dict.fromkeys(["Case.nii", "case.nii.gz", "é.nii.gz", accented, "a.nii", "a_probabilities.nii"], 1))
    assert run(program, folder, "--out", out) == 1
    assert {path.name for path in out.iterdir()} == {"a.nii.gz", "a_probabilities.nii.gz"}
    lines = one_line_each(capsys)
    assert len(lines) == 2 and all(line.endswith("(case is ignored); rename one; left out") for line in lines)
    assert f"{folder}/Case.nii, {folder}/case.nii.gz: have the same output file" in lines[0]
    assert run(program, folder / "a.nii", folder / "a_probabilities.nii", "--out", out, "--probabilities") == 2
    assert "a.nii, " in capsys.readouterr().err


def test_masks_are_not_written_among_the_inputs_and_not_read_as_inputs(program, tmp_path, capsys):  # noqa: F811
    folder = Path(inputs(tmp_path / "in", {"a.nii": 1}))
    for out in (folder, folder / "mask.nii.gz", tmp_path / "link"):
        (tmp_path / "link").exists() or (tmp_path / "link").symlink_to("in")
        assert run(program, folder, "--out", out) == 2
        assert "is an input folder, in which masks would become volumes" in one_line_each(capsys)[0]
    for _ in range(2):
        assert run(program, folder, "--out", folder / "masks") == 0
    assert run(program, folder, "--out", tmp_path / "elsewhere") == 1
    assert "masks: is a folder inside an input folder and no DICOM series; left out" in one_line_each(capsys)[0]
    os.link(folder / "a.nii", tmp_path / "b.nii")
    assert run(program, folder / "a.nii", "--out", tmp_path / "b.nii") == 2
    assert "b.nii: can't be written: it is an input; left out" in one_line_each(capsys)[0]


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("mask.mha", "--out mask.mha: a mask is written as .nii.gz or .nii"),
        ("MASK.NII.GZ", "--out MASK.NII.GZ: a mask is written as .nii.gz or .nii"),
        ("no/mask.nii", "no: can't be written: the folder no doesn't exist"),
        ("no/masks", "no/masks: can't be written: the folder no doesn't exist"),
        ("a.nii/masks", "a.nii/masks: can't be written: a.nii is a file, not a folder"),
        ("folder", "folder/a.nii.gz: can't be written: it is a folder; left out"),
    ],
)
def test_an_output_that_cannot_be_written_is_refused(program, tmp_path, capsys, monkeypatch, out, message):  # noqa: F811
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(program.forms, "load", None)
    image(Path("a.nii"))
    Path("folder/a.nii.gz").mkdir(parents=True)
    assert run(program, "a.nii", "--out", out) == 2
    assert one_line_each(capsys) == [f"predict.py: {message}"]
    assert {path.name for path in tmp_path.iterdir()} == {"a.nii", "folder"}


@pytest.mark.parametrize("words", [["", "--out", "x.nii"], ["x.nii", "--out", ""]])
def test_an_empty_path_is_not_the_working_folder(program, capsys, words):  # noqa: F811
    with pytest.raises(SystemExit, match="2"):
        program.main(words)
    assert "is empty; give a path" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("fault", "code", "message"),
    [
        (RuntimeError("CUDA out of memory"), 1, "a.nii: RuntimeError: CUDA out of memory"),
        (AssertionError(), 1, "a.nii: AssertionError"),
        (MemoryError("Unable to allocate 9 TiB"), 1, "a.nii: MemoryError: Unable to allocate 9 TiB"),
        (OSError(errno.ENOSPC, "No space left on device"), 1, "a.nii: No space left on device"),
        (ValueError("no class can be chosen"), 2, "a.nii: no class can be chosen"),
    ],
)
def test_the_exit_code_separates_a_machines_faults_from_a_users(
    program,  # noqa: F811
    tmp_path,
    capsys,
    monkeypatch,
    fault,
    code,
    message,
):
    inputs(tmp_path / "in", {"a.nii": 1, "b.nii": 1})

    def failing(cuts, *_, **__):
        if failing.left:
            failing.left -= 1
            raise fault
        return original(cuts, *_, **__)

    original = program.windows.cut
    monkeypatch.setattr(program.windows, "cut", failing)
    failing.left = 2
    assert run(program, tmp_path / "in", "--out", tmp_path / "out") == code
    assert one_line_each(capsys)[0].endswith(message)
    failing.left = 1
    assert run(program, tmp_path / "in", "--out", tmp_path / "out") == 1
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["b.nii.gz"]


def test_a_mask_is_written_after_everything_else_of_its_case(program, tmp_path, monkeypatch):  # noqa: F811
    a, out = image(tmp_path / "a.nii"), tmp_path / "out"

    def full(path, array):
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(program.np, "save", full)
        assert run(program, a, "--out", out, "--logits", out) == 1
        assert list(out.iterdir()) == []
    assert run(program, a, "--out", out, "--logits", out) == 0
    assert {path.name for path in out.iterdir()} == {"a.npy", "a.nii.gz"}


def test_a_line_that_cannot_be_printed_does_not_stop_the_segmentation(program, monkeypatch, capsys):  # noqa: F811
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert [program._print("one"), program._print("two")] == [1, 0]
    assert one_line_each(capsys) == ["predict.py: standard output: No space left on device"]


def test_a_rule_of_normalisation_is_known_to_predict_py(program):  # noqa: F811
    assert program.preprocessing.RULE_LENGTHS.keys() == set(program.geometry.RULES)


def edited(file: Path, **values) -> None:
    import pydicom

    read = pydicom.dcmread(file)
    for name, value in values.items():
        setattr(read, name, value)
    read.save_as(file)


def test_the_slices_of_a_series_are_those_of_one_patient_and_one_volume(program, tmp_path, capsys):  # noqa: F811
    pytest.importorskip("pydicom")
    folder, messages = tmp_path / "in", {}
    folder.mkdir()

    def series(name: str, message: str) -> Path:
        write_dicom(folder / name, np.zeros((6, 5, 4), np.int16), np.diag([1.0, 1.0, 4.0, 1.0]))
        messages[name] = message
        return folder / name / "001.dcm"

    edited(series("patients", "contains 2 DICOM series, not 1"), PatientID="another")
    edited(series("stacks", "the slices differ in ImageOrientationPatient"), ImageOrientationPatient=[0, 1, 0, 0, 0, 1])
    edited(series("sizes", "the slices differ in PixelSpacing"), PixelSpacing=[3, 3])
    edited(series("colours", "a slice must be one image with one value per pixel"), SamplesPerPixel=3)
    last = series("cut", "001.dcm: is an incomplete slice")
    last.write_bytes(last.read_bytes()[:300])
    series("text", "001.dcm: cannot be read (InvalidDicomError").write_text("no slice")
    series("good", "")
    for number in range(4):
        (folder / "good" / f"0{number}.txt").touch()
    image(folder / "good" / "converted.nii")
    (folder / "deep" / "series").mkdir(parents=True)
    assert run(program, folder, "--out", tmp_path / "out") == 1
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["good.nii.gz"]
    lines = one_line_each(capsys)
    for name, message in messages.items():
        assert not message or any(f"in/{name}" in line and message in line for line in lines), (name, lines)
    assert any("in/good/converted.nii: is in the folder of a DICOM series; left out" in line for line in lines)
    assert any("in/deep: is a folder inside an input folder and no DICOM series; left out" in line for line in lines)
    assert len(lines) == len(messages) + 1


def test_a_stray_slice_is_named_and_the_volumes_beside_it_are_segmented(program, tmp_path, capsys, monkeypatch):  # noqa: F811
    folder = Path(inputs(tmp_path / "in", {"a.nii": 1, "b.nii": 1}))
    (folder / "scout.dcm").write_bytes(bytes(128) + b"DICM")
    assert run(program, folder, "--out", tmp_path / "out") == 1
    assert "scout.dcm: is a DICOM file or unreadable, among other volumes; left out" in one_line_each(capsys)[0]
    assert len(list((tmp_path / "out").iterdir())) == 2
    monkeypatch.chdir(folder)
    (case,) = program.volumes.find_cases([Path(".")], channels=1)[0][:1]
    assert case.name == "a"
    (folder / "a.nii").unlink(), (folder / "b.nii").unlink()
    assert [case.name for case in program.volumes.find_cases([Path(".")], channels=1)[0]] == ["in"]


def test_an_unreadable_file_or_folder_is_named_and_the_others_are_segmented(program, tmp_path, capsys):  # noqa: F811
    folder = Path(inputs(tmp_path / "in", {"a.nii": 1, "b.nii": 1}))
    (folder / "locked").mkdir(mode=0)
    (folder / "b.nii").chmod(0)
    (tmp_path / "out").mkdir()
    (tmp_path / "out").chmod(0o777)
    make_readable(export := Path(program.__file__).parent)
    with as_nobody(folder), as_nobody(export):
        assert run(program, folder, "--out", tmp_path / "out") == 1
    lines = one_line_each(capsys)
    assert "b.nii: cannot be read (Permission denied)" in lines[0] and "locked: cannot be read (Perm" in lines[1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("{", "is not valid JSON (Expecting property name"),
        ("[]", "is not a JSON object"),
        ({"patch": None}, "'patch' is missing"),
        ({"patch": [3, 24]}, "'patch' is [3, 24], expected three positive integers"),
        ({"overlap": 1}, "'overlap' is 1, expected a number from 0 to below 1"),
        ({"spacing": [float("nan"), 1, 1]}, "'spacing' is [nan, 1, 1], expected three positive numbers"),
        ({"axes": [0, 0, 1]}, "'axes' is [0, 0, 1], expected an order of 0, 1 and 2"),
        ({"mirror": [3]}, "'mirror' is [3], expected different ones of 0, 1 and 2"),
        ({"normalisation": [["ct", 1]]}, "'normalisation' is [['ct', 1]], expected a rule per channel"),
        ({"channels": ["a", "b"]}, "'normalisation' must have a rule for each of 2 channels"),
        ({"label_values": [0, 1]}, "'label_values' must have a value for each of 9 labels"),
        ({"outputs": 4}, "'outputs' is 4, but 'order' and 'labels' need 9"),
        ({"keep_largest": [[9]]}, "'order' and 'keep_largest' must be indices of the 9 labels"),
    ],
)
def test_edited_settings_are_refused_and_named_with_no_verify(make_program, tmp_path, capsys, change, message):  # noqa: F811
    program = make_program()  # noqa: F811
    values = {**settings(1), **(change if isinstance(change, dict) else {})}
    text = json.dumps({key: value for key, value in values.items() if value is not None})
    (program.FOLDER / "preprocessing.json").write_text(change if isinstance(change, str) else text)
    a = image(tmp_path / "a.nii")
    assert run(program, a, "--out", tmp_path / "mask.nii") == 2
    assert "preprocessing.json differs from the SHA-256 in MODEL_CARD.md" in one_line_each(capsys)[0]
    assert run(program, a, "--out", tmp_path / "mask.nii", "--no-verify") == 2
    (line,) = one_line_each(capsys)
    assert "preprocessing.json: " in line and message in line


@pytest.mark.parametrize(
    ("lost", "message"),
    [
        (["model.py"], "none of model.py, model.pt2, model.onnx is in"),
        (["weights.safetensors"], "weights.safetensors is missing from this folder"),
        (["preprocessing.json"], "preprocessing.json is missing from this folder"),
        (["MODEL_CARD.md"], "MODEL_CARD.md is missing"),
    ],
)
def test_an_incomplete_export_is_named(make_program, tmp_path, capsys, lost, message):  # noqa: F811
    program = make_program()  # noqa: F811
    for name in lost:
        (program.FOLDER / name).unlink()
    try:
        code = run(program, image(tmp_path / "a.nii"), "--out", tmp_path / "mask.nii")
    except SystemExit as ended:
        code = ended.code
    assert code == 2 and message in capsys.readouterr().err


def test_a_network_that_cannot_be_loaded_is_named(make_program, tmp_path, capsys):  # noqa: F811
    program = make_program()  # noqa: F811
    (program.FOLDER / "model.py").write_text("def (")
    assert run(program, image(tmp_path / "a.nii"), "--out", tmp_path / "out", "--no-verify") == 2
    assert "model.py: can't be loaded (SyntaxError: " in one_line_each(capsys)[0]
    assert not (tmp_path / "out").exists()


def test_the_bundle_neither_merges_patients_nor_overwrites_volumes(make_program, tmp_path, capsys):  # noqa: F811
    program = make_program()  # noqa: F811
    shutil.copyfile(Path(contents.__file__).parent / "bundle/scripts/segment.py", program.FOLDER / "segment.py")
    segment = importlib.import_module("segment")
    sys.modules.pop("segment")
    folder = inputs(tmp_path / "in", {"a.nii": 1, "a.nii.gz": 1, "b.nii": 1})
    (found,) = segment.cases(folder, channels=1)
    assert found["case"].name == "b" and "have the same output file" in capsys.readouterr().err
    with pytest.raises(ValueError, match="is the input folder, in which masks would become volumes"):
        segment.WriteMask(settings(1), output_dir=folder)(found)
