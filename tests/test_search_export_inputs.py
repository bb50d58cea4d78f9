"""predict.py on all kinds of volumes: an asymmetric phantom with a label per octant, compared in world coordinates.

The network is a model.py that computes the label from the intensity: the tests check reading, resampling and writing.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest

import search.export.contents as contents
from search.export.contents import SHARED, write_shared

LABELS = tuple(range(9))  # background, then the octants
SPACING_MM = (4.0, 1.0, 1.0)  # of the network's grid, (D, H, W)
CENTRE = np.array([3.0, -5.0, 7.0])  # mm; where the octants meet
NETWORK = """
import torch


class Network(torch.nn.Module):
    def forward(self, x):
        labels = torch.arange(9.0, device=x.device)[:, None, None, None]
        return -((x.sum(dim=1, keepdim=True) - labels) ** 2)


def load_network(path):
    return Network()
"""


def settings(channels: int) -> dict:
    return {
        "spacing": SPACING_MM,
        "axes": (2, 1, 0),
        "normalisation": [("ct", -100.0, 100.0, 0.0, 1.0)] * channels,
        "channels": [f"c{number}" for number in range(channels)],
        "labels": [f"octant {label}" for label in LABELS],
        "label_values": LABELS,
        "outputs": len(LABELS),
        "order": (),
        "keep_largest": (),
        "mirror": (),
        "patch": (3, 24, 20),
        "overlap": 0.5,
        "window_bytes": 0,
    }


def loaded_program(folder: Path, *, channels: int = 1):
    """Write an export's folder with the network above; return its predict.py as a module."""
    for name in contents.STANDALONE:
        shutil.copyfile(Path(contents.__file__).parent / "standalone" / name, folder / name)
    write_shared(folder)
    (folder / "model.py").write_text(NETWORK)
    (folder / "weights.safetensors").touch()
    (folder / "preprocessing.json").write_text(json.dumps(settings(channels)))
    digests = {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for name in ("model.py", "weights.safetensors", "preprocessing.json")
    }
    (folder / contents.CARD).write_text("\n".join(f"| {name} | `{digest}` |" for name, digest in digests.items()))
    spec = importlib.util.spec_from_file_location("inputs_predict", folder / "predict.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def make_program(tmp_path_factory):
    before = list(sys.path)

    def forget():
        sys.path[:] = before
        own = [Path(name).stem for name in contents.STANDALONE]
        for name in (*own, *(file.stem for file in SHARED), "model", "inputs_predict"):
            sys.modules.pop(name, None)

    def make(channels: int = 1):
        forget()
        return loaded_program(tmp_path_factory.mktemp("export"), channels=channels)

    yield make
    forget()


@pytest.fixture(scope="module")
def program(make_program):
    return make_program()


def octants(shape: tuple[int, int, int], affine: np.ndarray, *, margin: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Labels 1 to 8 by octant around CENTRE in world space, 0 in the margin; and distances in mm to the borders."""
    places = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    world = places @ affine[:3, :3].T + affine[:3, 3] - CENTRE
    labels = 1 + (world > 0) @ np.array([1, 2, 4])
    near = np.abs(world).min(axis=-1)
    for axis, size in enumerate(shape):
        edge = np.minimum(places[..., axis], size - 1 - places[..., axis])
        if margin and size > 2 * margin:
            labels[edge < margin] = 0
            near = np.minimum(near, np.abs(edge - margin + 0.5) * 4.0)
    return labels, near


def affine_of(spacing, *, turned=0.0, flips=(1, 1, 1), order=(0, 1, 2), shape=(30, 34, 9)) -> np.ndarray:
    """An affine with CENTRE off the volume's middle, rotated about z by `turned` degrees, axes flipped and permuted."""
    angle = np.radians(turned)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = (turn * np.array(flips) * np.array(spacing))[:, order]
    affine[:3, 3] = CENTRE - affine[:3, :3] @ (np.array(shape) * np.array([0.4, 0.55, 0.45]))
    return affine


VOLUMES = {
    "rotated": ((30, 34, 9), affine_of((1, 1, 4), turned=15), np.float32, ".nii.gz", 0),
    "flipped": ((30, 34, 9), affine_of((1, 1, 4), flips=(-1, 1, -1)), np.int16, ".nii.gz", 0),
    "anisotropic": ((21, 50, 13), affine_of((1.7, 0.6, 2.5), shape=(21, 50, 13)), np.float64, ".nii", 0),
    "one slice": ((31, 27, 1), affine_of((1, 1, 4), shape=(31, 27, 1)), np.int16, ".nii", 0),
    "permuted": ((9, 30, 34), affine_of((1, 1, 4), order=(2, 0, 1), shape=(9, 30, 34)), np.float32, ".nii.gz", 0),
    "margin of zeros": ((40, 38, 12), affine_of((1, 1, 4), shape=(40, 38, 12)), np.uint8, ".nii.gz", 4),
    "smaller than the patch": ((11, 13, 2), affine_of((1, 1, 4), shape=(11, 13, 2)), np.float32, ".nii.gz", 0),
}


def found_in_world(mask: Path, volume: Path, labels: np.ndarray, near: np.ndarray, *, within_mm: float) -> None:
    """Assert that the mask has its volume's grid, and each octant's label at the right place in world space."""
    image = nibabel.load(mask)
    assert np.allclose(image.affine, nibabel.load(volume).affine, atol=1e-3)
    assert image.shape == labels.shape and image.get_data_dtype() == np.uint8
    found = np.asarray(image.dataobj)
    sure = near > within_mm
    assert sure.mean() > 0.3
    assert np.array_equal(found[sure], labels[sure])


@pytest.mark.parametrize("name", VOLUMES)
def test_each_octant_is_found_at_its_place_in_world_space(program, tmp_path, name):
    shape, affine, dtype, suffix, margin = VOLUMES[name]
    labels, near = octants(shape, affine, margin=margin)
    image = nibabel.Nifti1Image(labels.astype(dtype), affine, dtype=dtype)
    nibabel.save(image, tmp_path / f"image{suffix}")
    out = tmp_path / f"mask{suffix}"
    assert program.main([str(tmp_path / f"image{suffix}"), "--out", str(out), "--device", "cpu"]) == 0
    step = max(np.linalg.norm(affine[:3, :3], axis=0).max(), 4.0)
    found_in_world(out, tmp_path / f"image{suffix}", labels, near, within_mm=step if name == "anisotropic" else 0.0)
    assert len(np.unique(np.asarray(nibabel.load(out).dataobj))) >= 4


def test_the_masks_header_contains_the_label_names(program, tmp_path):
    labels, _ = octants((8, 9, 5), affine_of((1, 1, 4)))
    nibabel.save(nibabel.Nifti1Image(labels.astype(np.int16), affine_of((1, 1, 4))), tmp_path / "a.nii.gz")
    program.main([str(tmp_path / "a.nii.gz"), "--out", str(tmp_path / "b.nii.gz"), "--device", "cpu"])
    header = nibabel.load(tmp_path / "b.nii.gz").header
    assert json.loads(header.extensions[0].get_content())["labels"]["8"] == "octant 8"
    assert header.get_intent()[0] == "label"


def test_strips_and_probabilities_do_not_change_the_mask(program, tmp_path, monkeypatch, capsys):
    affine = affine_of((0.8, 1.3, 3.0), shape=(60, 70, 12))
    labels, _ = octants((60, 70, 12), affine)
    noisy = labels + np.random.default_rng(0).normal(0, 0.6, labels.shape)
    nibabel.save(nibabel.Nifti1Image(noisy.astype(np.float32), affine), tmp_path / "a.nii.gz")
    whole, strips = tmp_path / "whole.nii.gz", tmp_path / "strips.nii.gz"
    assert program.main([str(tmp_path / "a.nii.gz"), "--out", str(whole), "--device", "cpu", "--probabilities"]) == 0
    monkeypatch.setattr(program, "_peak_bytes", lambda: 0)
    monkeypatch.setattr(program, "MAX_STRIPS", 7)
    limited = [str(tmp_path / "a.nii.gz"), "--out", str(strips), "--device", "cpu", "--max-memory"]
    cuts = []
    original = program.geometry.strips
    monkeypatch.setattr(program.geometry, "strips", lambda grid, count: cuts.append(count) or original(grid, count))
    assert program.main([*limited, "1.2MB"]) == 0
    assert 1 < cuts[-1] <= 7
    assert np.array_equal(np.asarray(nibabel.load(whole).dataobj), np.asarray(nibabel.load(strips).dataobj))
    probabilities = np.asarray(nibabel.load(tmp_path / "whole_probabilities.nii.gz").dataobj)
    assert probabilities.shape == (60, 70, 12, 9) and np.allclose(probabilities.sum(axis=3), 1, atol=1e-5)
    assert np.array_equal(probabilities.argmax(axis=3), np.asarray(nibabel.load(whole).dataobj))
    capsys.readouterr()
    assert program.main([*limited, "10KB"]) == 2
    assert "--max-memory: this volume needs at least 1 MiB" in capsys.readouterr().err


def test_unreadable_files_do_not_stop_the_rest_of_a_folder(program, tmp_path, capsys):
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    labels, _ = octants((12, 14, 5), affine_of((1, 1, 4)))
    for name in ("a", "c"):
        nibabel.save(nibabel.Nifti1Image(labels.astype(np.int16), affine_of((1, 1, 4))), folder / f"{name}.nii.gz")
    (folder / "b.nii.gz").write_bytes((folder / "a.nii.gz").read_bytes()[:90])
    nibabel.save(nibabel.Nifti1Image(np.zeros((5, 5, 5, 3), np.int16), np.eye(4)), folder / "d.nii")
    (folder / "notes.txt").write_text("no volume")
    assert program.main([str(folder), "--out", str(out), "--device", "cpu"]) == 1
    output = capsys.readouterr()
    masks = [line.partition(": ")[0] for line in output.out.splitlines()]
    assert masks == [str(out / "a.nii.gz"), str(out / "c.nii.gz")]
    assert "840 voxels of octant 1, " in output.out and " s in 3 windows); peak memory " in output.out
    errors = output.err.splitlines()
    assert len(errors) == 2 and "b.nii.gz: cannot be read" in errors[0]
    assert "d.nii: has 3 channels, but the network takes 1 (c0)" in errors[1]
    assert sorted(entry.name for entry in out.iterdir()) == ["a.nii.gz", "c.nii.gz"]


def test_an_invalid_command_exits_with_code_two(program, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "x").mkdir()
    for name in ("a.nii.gz", "x/a.nii.gz"):
        nibabel.save(nibabel.Nifti1Image(np.zeros((4, 4, 4), np.int16), np.eye(4)), tmp_path / name)
    a, x, empty, out = (tmp_path / name for name in ("a.nii.gz", "x", "empty", "out"))
    for words, message in (
        ([empty, "--out", out], "empty: contains no volumes"),
        ([a, x, "--out", out], "a.nii.gz: have the same output file (case is ignored); rename one; left out"),
        ([a, empty, "--out", tmp_path / "m.nii"], "contains no volumes"),
    ):
        assert program.main([*map(str, words), "--device", "cpu"]) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    if (tmp_path / "empty").stat().st_uid:  # root writes everywhere
        (tmp_path / "empty").chmod(0o500)
        assert program.main([str(tmp_path / "a.nii.gz"), "--out", str(tmp_path / "empty" / "m.nii")]) == 2


def test_channels_are_one_4d_file_or_files_with_nnunet_names(make_program, tmp_path):
    program = make_program(2)
    affine = affine_of((1, 1, 4))
    labels, near = octants((30, 34, 9), affine)
    parts = [labels // 2, labels - labels // 2]
    for number, part in enumerate(parts):
        nibabel.save(nibabel.Nifti1Image(part.astype(np.int16), affine), tmp_path / f"case_{number:04d}.nii.gz")
    nibabel.save(nibabel.Nifti1Image(np.stack(parts, -1).astype(np.int16), affine), tmp_path / "four.nii")
    files = [str(tmp_path / f"case_{number:04d}.nii.gz") for number in range(2)]
    for number, words in enumerate(([files[0]], [files[0], "--channel", files[1]], [str(tmp_path / "four.nii")])):
        out = tmp_path / f"mask{number}.nii.gz"
        assert program.main([*words, "--out", str(out), "--device", "cpu"]) == 0
        found_in_world(out, tmp_path / "four.nii", labels, near, within_mm=0.0)


def inputs(folder: Path, shapes: dict[str, int]) -> str:
    """Write zeros with the given number of channels (1 gives a 3D file) under each name; return the folder."""
    folder.mkdir()
    for name, channels in shapes.items():
        shape = (12, 14, 5) if channels == 1 else (12, 14, 5, channels)
        nibabel.save(nibabel.Nifti1Image(np.zeros(shape, np.int16), affine_of((1, 1, 4))), folder / name)
    return str(folder)


TWO = {"A_0000.nii.gz": 1, "A_0001.nii.gz": 1}


@pytest.mark.parametrize(
    ("files", "masks", "messages"),
    [
        ({**TWO, "B_0000.nii": 1, "B_0001.nii": 1}, "A B", []),
        ({**TWO, "A.nii.gz": 1, "notes.nii": 1}, "A", ["A.nii.gz: has 1 channel and no name", "notes.nii: has 1 chan"]),
        ({**TWO, "B_0001.nii": 1}, "A", ["B: has the channels 0001, but the network takes 0000, 0001; left out"]),
        ({**TWO, "B_0001.nii": 1, "B_0002.nii": 1}, "A", ["B: has the channels 0001, 0002, but"]),
        ({**TWO, **{f"B_000{n}.nii": 1 for n in range(3)}}, "A", ["B: has the channels 0000, 0001, 0002, but"]),
        ({**TWO, "A_0000.nii": 1, "B.nii": 2}, "B", ["A: has the channels 0000, 0000, 0001, but"]),
        ({f"pat_000{number}.nii.gz": 2 for number in range(3)}, "pat_0000 pat_0001 pat_0002", []),
        ({**TWO, "B.nii": 2, "B.nii.gz": 2}, "A", ["B.nii.gz: have the same output file"]),
        ({"pat_0001.nii": 1, "pat_0002.nii": 1}, "", ["pat: has the channels 0001, 0002, but the network takes"]),
    ],
)
def test_a_case_has_each_channel_once_and_all_else_is_named_and_left_out(
    make_program, tmp_path, capsys, files, masks, messages
):
    program, out = make_program(2), tmp_path / "out"
    code = program.main([inputs(tmp_path / "in", files), "--out", str(out), "--device", "cpu"])
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == len(messages) and all(map(str.__contains__, errors, messages)), errors
    assert sorted(path.name for path in out.glob("*")) == [f"{name}.nii.gz" for name in masks.split()]
    assert code == (0 if not messages else 1 if masks else 2)


@pytest.mark.parametrize(
    ("files", "name", "mask", "message"),
    [
        (TWO, "A_0000.nii.gz", "A", ""),
        (TWO, "A.nii.gz", "A", ""),
        ({**TWO, "A_0002.nii.gz": 1}, "A_0000.nii.gz", "", "A: has the channels 0000, 0001, 0002, but"),
        ({"A_0000.nii.gz": 1}, "A_0000.nii.gz", "", "A: has the channels 0000, but"),
        (TWO, "A_0001.nii.gz", "", "has 1 channel, but the network takes 2 (c0, c1)"),
        ({"A_0000.nii": 2, "A_0001.nii": 2}, "A_0000.nii", "A_0000", ""),
        ({"A_0000.nii": 2, "A_0001.nii": 2}, "A_0001.nii", "A_0001", ""),
    ],
)
def test_a_file_given_by_its_name_brings_exactly_its_channels(
    make_program, tmp_path, capsys, files, name, mask, message
):
    program, out = make_program(2), tmp_path / "out"
    code = program.main([f"{inputs(tmp_path / 'in', files)}/{name}", "--out", str(out), "--device", "cpu"])
    assert code == (2 if message else 0) and message in capsys.readouterr().err
    assert [path.name for path in out.glob("*")] == ([f"{mask}.nii.gz"] if mask else [])


def test_the_bundle_names_what_it_leaves_out_and_what_fails_and_segments_the_rest(make_program, tmp_path, capsys):
    from monai.data import Dataset  # slow to import for all processes that run tests
    from monai.inferers import SlidingWindowInferer

    program = make_program(2)
    folder = program.FOLDER
    shutil.copyfile(Path(contents.__file__).parent / "bundle" / "scripts" / "segment.py", folder / "segment.py")
    spec = importlib.util.spec_from_file_location("inputs_segment", folder / "segment.py")
    segment = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(segment)
    found = inputs(tmp_path / "in", {**TWO, "B_0001.nii": 1, "C.nii": 3})
    values = settings(2)
    segmenter = segment.Segmenter(
        device="cpu",
        dataset=Dataset(segment.cases(found, channels=2), segment.ReadVolume(values)),
        network=importlib.import_module("model").Network(),
        inferer=SlidingWindowInferer(values["patch"], overlap=0.5, mode="gaussian"),
        postprocessing=segment.WriteMask(values, output_dir=str(tmp_path / "out")),
    )
    with pytest.raises(SystemExit, match="segment.py: 1 of 2 cases failed"):
        segmenter.run()
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("segment.py: ")]
    assert len(errors) == 2 and "B: has the channels 0001, but the network takes 0000, 0001" in errors[0]
    assert "C.nii: has 3 channels, but the network takes 2 (c0, c1)" in errors[1]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["A.nii.gz"]


def test_masks_of_mha_and_dicom_follow_their_headers(make_program, tmp_path, capsys):
    sitk = pytest.importorskip("SimpleITK")
    program = make_program()
    affine = affine_of((1.0, 1.0, 4.0), turned=15, flips=(-1, 1, 1))
    labels, near = octants((30, 34, 9), affine)
    nibabel.save(nibabel.Nifti1Image(labels.astype(np.int16), affine), tmp_path / "same.nii.gz")
    lps = np.diag([-1, -1, 1, 1]) @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image = sitk.GetImageFromArray(labels.astype(np.int16).transpose(2, 1, 0))
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    folder = tmp_path / "in"
    folder.mkdir()
    sitk.WriteImage(image, str(folder / "meta.mha"))
    write_dicom(folder / "series", labels, lps)
    assert program.main([str(folder), "--out", str(tmp_path / "out"), "--device", "cpu"]) == 0
    found_in_world(tmp_path / "out" / "meta.nii.gz", tmp_path / "same.nii.gz", labels, near, within_mm=0.0)
    series = nibabel.load(tmp_path / "out" / "series.nii.gz")  # slices are ordered along their normal: here reversed
    assert np.allclose(series.affine[:3, :2], affine[:3, :2], atol=1e-3)
    assert np.allclose(series.affine @ [0, 0, 8, 1], affine @ [0, 0, 0, 1], atol=1e-3)
    assert np.array_equal(np.asarray(series.dataobj), octants(series.shape, series.affine)[0])
    next((folder / "series").iterdir()).unlink()
    sorted((folder / "series").iterdir())[3].unlink()
    assert program.main([str(folder / "series"), "--out", str(tmp_path / "no.nii.gz"), "--device", "cpu"]) == 2
    assert "the slices are not evenly spaced; a slice may be missing" in capsys.readouterr().err


def write_dicom(folder: Path, values: np.ndarray, lps: np.ndarray) -> None:
    """Write one file per slice of (X, Y, Z), with intensities stored as value * 2 - 6."""
    pydicom = pytest.importorskip("pydicom")
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    folder.mkdir()
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    across, down = lps[:3, 0] / spacing[0], lps[:3, 1] / spacing[1]
    series = generate_uid()
    for number in range(values.shape[2]):
        data = pydicom.Dataset()
        data.file_meta = pydicom.dataset.FileMetaDataset()
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = CTImageStorage
        data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = generate_uid()
        data.SeriesInstanceUID, data.Modality = series, "CT"
        data.ImageOrientationPatient = [f"{part:.8f}" for part in (*across, *down)]
        data.ImagePositionPatient = [f"{part:.8f}" for part in lps[:3, 3] + number * lps[:3, 2]]
        data.PixelSpacing = [f"{spacing[1]:.8f}", f"{spacing[0]:.8f}"]
        data.Rows, data.Columns = values.shape[1], values.shape[0]
        data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
        data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 1
        data.RescaleSlope, data.RescaleIntercept = 0.5, 3
        data.PixelData = (values[:, :, number].T * 2 - 6).astype(np.int16).tobytes()
        data.save_as(folder / f"{values.shape[2] - number:03d}.dcm", enforce_file_format=True)
