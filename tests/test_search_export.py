"""Exported folders, run as a user runs them, compared with voxnas's own masks."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from types import SimpleNamespace

import nibabel
import numpy as np
import pytest
import torch
from conftest import quiet_view
from exported import predict_module
from nibabel.orientations import apply_orientation, inv_ornt_aff
from other_user import as_nobody, make_readable

from search.analysis.choose import Choice
from search.config import UserError, load_study
from search.config.errors import RunError
from search.data.geometry import mask_from_logits, to_grid
from search.data.phantom import write_phantom
from search.data.prepare import prepare
from search.data.volume_files import read_volume
from search.export import export, export_trained
from search.export.contents import FILES
from search.export.model import BUNDLE
from search.export.origin import Origin
from search.export.trained import Trained
from search.runner.plan import make_plan
from search.storage import Store
from search.training.checkpoint import load_weights, save_tensors, save_weights
from search.training.validation import segment, validate, window_logits
from search.trials.job import Job, Task
from search.trials.records import CaseDice, Costs, Latency, Measurement, Record
from space.build import build

STUDY = """
name: tiny
data: {path: phantom, folds: 2, spacing: [8.0, 1.5, 1.5]}
objectives: {dice: maximize, memory: minimize}
space:
  fix: {encoder: plain, levels: 3, width: 16, width_cap: 16, repeats: 1, attention: none, kernels: 3d,
        attention@encoder0: isa, attention@bottleneck: csam, norm: instance, activation: leakyrelu,
        dropout: 0.0, downsampling: strided, upsampling: linear, skip: add, deep_supervision: true,
        isa.shared: true, csam.uncertainty: true, csam.semantic: true, csam.positional: true,
        csam.slice: true, stages: single, stem_stride: 1}
training: {patch: [3, 24, 20], overlap: 0.4, mirror: [D, W], epochs: 1, steps_per_epoch: 1}
executor: {device: cpu, threads: 1}
"""
WHY = "trial 0, the only trial"


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def rewrite_values(folder: Path) -> None:
    """Give the classes label values that differ from their indices."""
    file = folder / "dataset.json"
    values = json.loads(file.read_text())
    values["labels"] = {"0": "background", "7": "core", "200": "ring"}
    file.write_text(json.dumps(values))
    for path in (folder / "labelsTr").iterdir():
        image = nibabel.load(path)
        values = np.array([0, 7, 200], dtype=np.uint8)[np.asarray(image.dataobj)]
        nibabel.save(nibabel.Nifti1Image(values, image.affine), path)


def phantom_study(root: Path, text: str = STUDY) -> SimpleNamespace:
    """A study on synthetic volumes with one trained trial: random weights that predict every class somewhere."""
    write_phantom(root / "phantom", cases=4, shape=(31, 27, 7), classes=2, seed=3)
    rewrite_values(root / "phantom")
    file = root / "tiny.yaml"
    file.write_text(text)
    plan = make_plan(load_study(file, data_root=root), runs=root / "runs")
    prepared = prepare(
        plan.dataset, plan.facts, spacing=plan.study.data.spacing, normalisation="auto", cache_dir=plan.cache
    )
    decisions = plan.space.sample(Random(0))
    architecture = plan.space.architecture(decisions)
    torch.manual_seed(5)
    network = build(architecture, plan.context).eval()
    folder = plan.folder / "trials" / "000000"
    save_weights(folder, network)
    latency = Latency(0.0123, 0.001, 20, True, "a slow CPU", 1, "float32")
    measured = Measurement(
        "trained",
        costs=Costs(1234, 5_600_000, 7 << 20, 1 << 20, latency),
        dice=0.5,
        cases=tuple(CaseDice(name, (0.4, None)) for name in plan.fold.validation),
        versions=(("torch", "2"),),
    )
    record = Record(
        0,
        architecture,
        tuple(decisions.items()),
        0,
        0,
        measured,
        "2026-01-01T00:00:00+00:00",
        "2026-01-02",
    )
    task = Task(prepared.folder, 1, prepared.labels, plan.context.spacing, plan.fold.train, plan.fold.validation)
    job = Job(architecture, task, plan.training, (), 0, 0, "cpu", 1, str(folder))
    return SimpleNamespace(
        root=root,
        file=file,
        plan=plan,
        prepared=prepared,
        record=record,
        folder=folder,
        network=network,
        job=job,
    )


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return phantom_study(tmp_path_factory.mktemp("study"))


def origin_of(study, folder: Path | None = None) -> Origin:
    how = "trained on fold 0 (of 0 to 1)"
    trained = Trained((folder or study.folder,), ("",), how, study.record.measurement.cases)
    return Origin(Choice(study.record, WHY, ("trial 9 would give more",)), trained, study.plan, study.prepared)


@pytest.fixture(scope="module")
def exported(study):
    return export_trained(origin_of(study), study.root / "model")


def predict(exported, *arguments) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", "-B", str(exported.folder / "predict.py"), *map(str, arguments)]
    return subprocess.run([*command, "--threads", "1"], capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def program(exported):
    """The exported predict.py as a module: many images in one process."""
    with predict_module(exported.folder) as module:
        loaded = module.forms.load("source", device="cpu", precision="auto", threads=1)
        module.forms.load = lambda *_, **__: loaded
        yield module


@pytest.mark.parametrize(
    ("form", "changed"), [("pt2", "model.pt2"), ("source", "model.py"), ("source", "weights.safetensors")]
)
def test_a_file_that_was_changed_after_the_export_is_not_loaded(exported, tmp_path, form, changed):
    copy = Path(shutil.copytree(exported.folder, tmp_path / "copy"))
    image = noise(tmp_path / "image.nii.gz", (21, 19, 3))
    with (copy / changed).open("ab") as file:
        file.write(b"\n")
    out = tmp_path / "mask.nii.gz"
    command = [sys.executable, "-I", "-B", str(copy / "predict.py"), str(image), "--out", str(out), "--form", form]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and not out.exists()
    assert f"predict.py: {changed} differs from the SHA-256 in MODEL_CARD.md: it was changed after" in done.stderr
    (copy / "MODEL_CARD.md").unlink()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "MODEL_CARD.md is missing, so the network's files can't be checked" in done.stderr


def values_of(path: Path) -> np.ndarray:
    return np.asarray(nibabel.load(path).dataobj)


def expected_mask(study, image: Path) -> np.ndarray:
    """voxnas's own mask of an image that is not in a data set: label values on the image's grid."""
    array, grid = to_grid(read_volume(image), study.prepared.preprocessing)
    logits = window_logits(study.network, torch.from_numpy(array)[None], job=study.job)
    return np.array(study.prepared.label_values, dtype=np.uint8)[mask_from_logits(logits[0].numpy(), grid)]


def test_the_folder_is_complete_and_the_card_names_every_file(exported):
    assert {entry.name for entry in exported.folder.iterdir()} == {*FILES, BUNDLE}
    card = (exported.folder / "MODEL_CARD.md").read_text()
    for name in set(FILES) - {"MODEL_CARD.md"}:
        assert f"| {name} | `" in card
    of_study = (WHY, "CC0", "fold 0 (of 0 to 1)", "a slow CPU, 1 thread, float32", "12.3 ms", "CSAM", "200 = ring")
    of_training = ("4 labelled cases in 2 folds", "1 epoch of 1 step, batch size 2", "Input: 1 channel (MRI)")
    of_bundle = "`bundle/` is the same network as a MONAI bundle"
    for text in (*of_study, *of_training, of_bundle, "Not a medical device"):
        assert text in card
    assert f"Exported on {datetime.now(UTC):%Y-%m-%d}" in card and "* Contact: to be filled in" in card
    assert "* **Warning:** the mean Dice is only 0.4000" in card and "warning: the mean Dice is only" in str(exported)
    assert "| core | 0.4000 | 0.4000 to 0.4000 | 0.4000 | 0.4000 | 2 |" in card
    assert "| ring | - | - | - | - | 0 |" in card
    assert os.access(exported.folder / "predict.py", os.X_OK)
    assert f"verified {exported.checks[2]}" in str(exported) and "all labels equal" in str(exported)
    assert "trial 9 would give more" in card and "trial 9 would give more" in str(exported)


def test_no_path_of_this_machine_is_in_the_export(exported, study):
    for name in set(FILES):
        content = (exported.folder / name).read_bytes()
        assert str(study.root).encode() not in content
        assert str(Path(__file__).parents[1]).encode() not in content


def test_the_verification_finds_every_voxel_equal(exported):
    assert [check.form for check in exported.checks] == ["source", "pt2", "onnx"]
    for check in exported.checks:
        assert (check.differing_voxels, len(check.cases), check.max_dice_difference) == (0, 3, 0.0)
        assert check.max_logit_difference < 1e-4
    assert exported.forms.pt2.sizes == "any"
    assert exported.bundle.startswith("bundle: 3 cases with `monai.bundle run`, 0 of ")


def test_predict_writes_the_same_mask_as_voxnas(exported, study, tmp_path):
    name = study.plan.fold.validation[-1]
    case = next(case for case in study.plan.dataset.cases if case.name == name)
    ended = predict(exported, case.images[0], "--out", tmp_path / "mask.nii.gz")
    assert (ended.returncode, ended.stderr) == (0, "")
    mask, _ = segment(study.network, study.prepared, name, job=study.job, device=torch.device("cpu"))
    found = nibabel.load(tmp_path / "mask.nii.gz")
    assert np.array_equal(np.asarray(found.dataobj), np.array([0, 7, 200])[mask])
    assert found.get_data_dtype() == np.uint8
    assert len(np.unique(mask)) == 3
    assert np.allclose(found.affine, nibabel.load(case.images[0]).affine)
    assert [entry.name for entry in tmp_path.iterdir()] == ["mask.nii.gz"]


def noise(path: Path, shape, affine=None, dtype=np.float32) -> Path:
    smooth = np.random.default_rng(1).normal(size=shape).cumsum(0).cumsum(1)
    affine = np.eye(4) if affine is None else affine
    nibabel.save(nibabel.Nifti1Image((100 * smooth).astype(dtype), affine), path)
    return path


def rotated(degrees: float, spacing) -> np.ndarray:
    turn = np.radians(degrees)
    cosine, sine = np.cos(turn), np.sin(turn)
    affine = np.eye(4)
    affine[:3, :3] = [[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]] * np.array(spacing)
    affine[:3, 3] = -7, 11, 3
    return affine


@pytest.mark.parametrize(
    ("shape", "affine", "dtype", "suffix"),
    [
        pytest.param((41, 37, 5), rotated(0, (1.5, 1.5, 8)), np.int16, ".nii.gz", id="odd sizes"),
        pytest.param((61, 29, 9), rotated(0, (0.9, 2.1, 5)), np.float64, ".nii", id="another spacing"),
        pytest.param((31, 7, 45), rotated(20, (1.4, 1.6, 7)), np.float32, ".nii.gz", id="rotated"),
        pytest.param((11, 13, 2), rotated(0, (1.5, 1.5, 8)), np.float32, ".nii", id="under the patch"),
        pytest.param((33, 27, 1), rotated(0, (-1.5, 1.5, 8)), np.float32, ".nii.gz", id="one slice, flipped"),
    ],
)
def test_an_image_on_any_grid_gets_the_same_mask_as_from_voxnas(program, study, tmp_path, shape, affine, dtype, suffix):
    image = noise(tmp_path / f"image{suffix}", shape, affine, dtype)
    out = tmp_path / f"mask{suffix}"
    assert program.main([str(image), "--out", str(out), "--device", "cpu"]) == 0
    assert np.array_equal(values_of(out), expected_mask(study, image))
    assert values_of(out).shape == shape
    assert np.allclose(nibabel.load(out).affine, affine, atol=1e-4)


def test_a_reoriented_image_gets_the_same_mask_reoriented(program, study, tmp_path):
    image = noise(tmp_path / "image.nii.gz", (35, 31, 5), rotated(0, (1.5, 1.5, 8)))
    program.main([str(image), "--out", str(tmp_path / "mask.nii.gz"), "--device", "cpu"])
    orientation = np.array([[2, 1], [0, -1], [1, 1]])
    loaded = nibabel.load(image)
    turned = apply_orientation(np.asarray(loaded.dataobj), orientation)
    affine = loaded.affine @ inv_ornt_aff(orientation, loaded.shape)
    nibabel.save(nibabel.Nifti1Image(turned, affine), tmp_path / "turned.nii.gz")
    other = tmp_path / "other.nii.gz"
    program.main([str(tmp_path / "turned.nii.gz"), "--out", str(other), "--device", "cpu"])
    back = apply_orientation(values_of(tmp_path / "mask.nii.gz"), orientation)
    assert np.array_equal(back, values_of(other))
    assert len(np.unique(back)) > 1


def test_nnunet_names_give_the_channels(program, tmp_path):
    for number in range(3):
        (tmp_path / f"case_{number:04d}.nii.gz").touch()
    files = tuple(tmp_path / f"case_{number:04d}.nii.gz" for number in range(3))
    find = program.volumes.find_cases
    for given in (tmp_path / "case.nii.gz", files[0], tmp_path):
        cases, left = find([given], channels=3)
        assert [(case.name, case.files) for case in cases] == [("case", files)] and left == []
    assert [case.files for case in find([files[0]], channels=1)[0]] == [files[:1]]
    assert [case.name for case in find([tmp_path], channels=1)[0]] == ["case_0000", "case_0001", "case_0002"]


def wrong(program, capsys, *arguments) -> str:
    """Run predict.py with invalid input; return the one line that it prints."""
    assert program.main([*map(str, arguments), "--device", "cpu"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("predict.py: ") and captured.err.count("\n") == 1
    return captured.err


def test_an_invalid_image_gives_one_line_and_writes_nothing(program, tmp_path, capsys):
    out = tmp_path / "out" / "mask.nii.gz"
    out.parent.mkdir()
    whole = noise(tmp_path / "whole.nii.gz", (21, 19, 3))
    (tmp_path / "cut.nii.gz").write_bytes(whole.read_bytes()[:900])
    (tmp_path / "text.nii.gz").write_text("no image")
    four = noise(tmp_path / "four.nii.gz", (21, 19, 3, 2))
    assert "gone.nii.gz: no such file" in wrong(program, capsys, tmp_path / "gone.nii.gz", "--out", out)
    assert "cut.nii.gz: cannot be read" in wrong(program, capsys, tmp_path / "cut.nii.gz", "--out", out)
    assert "text.nii.gz: cannot be read" in wrong(program, capsys, tmp_path / "text.nii.gz", "--out", out)
    message = wrong(program, capsys, four, "--out", out)
    assert "four.nii.gz: has 2 channels, but the network takes 1 (MRI)" in message
    message = wrong(program, capsys, whole, "--channel", whole, "--out", out)
    assert "has 2 channels, but the network takes 1 (MRI)" in message
    message = wrong(program, capsys, whole, whole, "--channel", whole, "--out", out)
    assert "--channel: give exactly one input image with --channel" in message
    assert list(out.parent.iterdir()) == []


def test_an_output_that_cannot_be_written_is_refused_before_segmentation(program, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(program.volume_files, "read_volume", None)
    image = noise(tmp_path / "image.nii.gz", (21, 19, 3))
    assert "no doesn't exist" in wrong(program, capsys, image, "--out", tmp_path / "no" / "mask.nii")
    (tmp_path / "file").touch()
    assert "file is a file, not a folder" in wrong(program, capsys, image, "--out", tmp_path / "file")
    message = wrong(program, capsys, image, "--out", tmp_path / "no" / "masks")
    assert "no doesn't exist" in message
    assert "it is an input" in wrong(program, capsys, image, "--out", image)
    make_readable(export := Path(program.__file__).parent)
    make_readable(tmp_path)
    tmp_path.chmod(0o555)
    with as_nobody(export), as_nobody(tmp_path):
        assert "is read-only" in wrong(program, capsys, image, "--out", tmp_path / "mask.nii")
    tmp_path.chmod(0o755)


def test_a_full_disk_leaves_no_partial_files(program, tmp_path, capsys, monkeypatch):
    image = noise(tmp_path / "image.nii.gz", (21, 19, 3))

    def full(image, path):
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(program.volume_files.nibabel, "save", full)
    assert program.main([str(image), "--out", str(tmp_path / "mask.nii.gz"), "--device", "cpu"]) == 1
    assert "mask.nii.gz: No space left on device" in capsys.readouterr().err
    assert [entry.name for entry in tmp_path.iterdir()] == ["image.nii.gz"]


def test_predict_refuses_invalid_options(program, capsys):
    image = ["a.nii", "--out", "b.nii"]
    for words, message in (
        (["a.nii"], "--out"),
        ([*image, "--threads", "0"], "'0' is not an integer from 1 to 1024"),
        ([*image, "--max-memory", "much"], "'much' is not a size; examples: 4GiB, 800MB"),
    ):
        with pytest.raises(SystemExit, match="2"):
            program.main(words)
        assert message in capsys.readouterr().err


def test_a_missing_package_is_named_with_the_remedy(exported, tmp_path):
    code = "import sys, runpy; sys.modules[{!r}] = None; del sys.argv[0]; "
    code += "runpy.run_path(sys.argv[0], None, '__main__')"
    image = noise(tmp_path / "image.nii.gz", (21, 19, 3))
    for name in ("nibabel", "torch"):
        words = (exported.folder / "predict.py", image, "--out", tmp_path / "mask.nii.gz")
        command = [sys.executable, "-I", "-B", "-c", code.format(name), *map(str, words)]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        assert ended.returncode == 2
        assert "; install the packages in requirements.txt" in ended.stderr and name in ended.stderr
    assert [entry.name for entry in tmp_path.iterdir()] == ["image.nii.gz"]


def test_the_whole_network_moves_to_another_device(exported):
    from torch.export.passes import move_to_device_pass

    moved = move_to_device_pass(torch.export.load(exported.folder / "model.pt2"), "meta").module()
    assert moved(torch.zeros(1, 1, 3, 24, 20, device="meta")).shape == (1, 3, 3, 24, 20)


def test_a_missing_gpu_is_reported(program, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="--device cuda: torch finds no CUDA device; use --device cpu"):
        program.forms.choose_device("cuda")
    assert program.forms.choose_device("auto") == "cpu"


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.9])
@pytest.mark.parametrize("shape", [(7, 13, 5), (4, 5, 6), (2, 30, 6), (1, 3, 11)])
def test_the_sliding_window_equals_monais(program, shape, overlap):
    from monai.inferers import SlidingWindowInferer

    patch = (4, 5, 6)
    image = np.random.default_rng(0).normal(size=(2, *shape)).astype(np.float32)
    mix = torch.nn.Conv3d(2, 3, 3, padding=1).requires_grad_(False)
    inferer = SlidingWindowInferer(patch, sw_batch_size=1, overlap=overlap, mode="gaussian")
    expected = inferer(torch.from_numpy(image)[None], mix)[0]
    cuts = program.windows.cut(shape, list(patch), overlap)

    def run(window):
        return mix(torch.from_numpy(np.ascontiguousarray(window))[None])[0].numpy()

    for rows in (slice(0, shape[1]), slice(shape[1] // 2, shape[1] // 2 + 2)):
        slabs = program.windows.logit_slabs(run, image, cuts, rows, done=lambda: None)
        firsts, parts = zip(*((first, slab.copy()) for first, slab in slabs), strict=True)
        found = np.concatenate(parts, axis=1)
        assert firsts[0] == 0 and found.shape == (3, shape[0], rows.stop - rows.start, shape[2])
        assert np.allclose(found, expected[:, :, rows].numpy(), atol=2e-6)


def test_predict_imports_only_its_requirements(exported):
    import ast

    names = set()
    own = {path.stem for path in exported.folder.glob("*.py")}
    for file in exported.folder.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names.add(node.module.partition(".")[0])
    optional = {"onnxruntime", "SimpleITK", "pydicom"}
    assert names - set(sys.stdlib_module_names) - own - optional == {"torch", "numpy", "nibabel"}
    required = (exported.folder / "requirements.txt").read_text().splitlines()
    assert {line.partition(">=")[0] for line in required if line[0] != "#"} == {"torch", "numpy", "nibabel"}


def test_the_isolated_process_cannot_import_voxnas(tmp_path):
    from search.export.verification import ISOLATED

    (tmp_path / "script.py").write_text("import numpy\nimport search")
    command = [sys.executable, "-I", "-B", str(ISOLATED), str(tmp_path / "script.py")]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.stderr.splitlines()[-1] == "ModuleNotFoundError: No module named 'search'"


def test_weights_load_strictly_into_the_written_architecture(exported, study, tmp_path):
    from space.architecture import Architecture
    from space.canonical import Context

    values = json.loads((exported.folder / "architecture.json").read_text())
    architecture = Architecture.of(values["architecture"])
    assert architecture.fingerprint == values["fingerprint"] == study.record.architecture.fingerprint
    context = Context(tuple(values["patch"]), tuple(values["spacing"]), values["in_channels"], values["classes"])
    network = build(architecture, context).eval()
    shutil.copyfile(exported.folder / "weights.safetensors", tmp_path / "best.safetensors")
    load_weights(tmp_path, network, sha256="")
    x = torch.randn(1, 1, 3, 24, 20)
    with torch.inference_mode():
        assert torch.equal(network(x), study.network(x))


def test_a_folder_that_is_not_an_export_is_never_replaced(study, tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / "model.py").write_text("mine")
    with pytest.raises(UserError, match=r"contains files that no export writes \(mine.txt\)"):
        export_trained(origin_of(study), tmp_path / "notes")
    with pytest.raises(UserError, match=r"part: is not an export \(MODEL_CARD.md is missing\)"):
        export_trained(origin_of(study), tmp_path / "part")
    with pytest.raises(UserError, match="is a file; give a folder"):
        export_trained(origin_of(study), tmp_path / "file")
    assert (tmp_path / "notes" / "mine.txt").read_text() == "mine"


def test_a_loop_of_links_is_no_place_for_an_export(study, tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(UserError, match="--out .*loop: is a loop of links"):
        export_trained(origin_of(study), tmp_path / "loop")


def test_an_export_with_files_of_the_user_is_not_replaced(exported, study, tmp_path):
    shutil.copytree(exported.folder, tmp_path / "model")
    (tmp_path / "model" / BUNDLE / "output").mkdir(exist_ok=True)
    (tmp_path / "model" / BUNDLE / "output" / "a.nii.gz").touch()
    with pytest.raises(UserError, match=r"no export writes \(bundle/output/a.nii.gz\)"):
        export_trained(origin_of(study), tmp_path / "model", force=True)
    (tmp_path / "model" / "mask.nii.gz").touch()
    with pytest.raises(UserError, match=r"no export writes \(mask.nii.gz\)"):
        export_trained(origin_of(study), tmp_path / "model")


def test_deleted_or_damaged_weights_are_reported(study, tmp_path):
    with pytest.raises(UserError, match="trial 0: its weights were deleted: .*`keep: all`"):
        export_trained(origin_of(study, tmp_path), tmp_path / "model")
    (tmp_path / "best.safetensors").write_bytes(b"half")
    with pytest.raises(UserError, match="best.safetensors can't be loaded"):
        export_trained(origin_of(study, tmp_path), tmp_path / "model")
    assert not (tmp_path / "model").exists()


@pytest.fixture
def quick(monkeypatch, exported):
    """Copy the forms of an earlier export instead of writing them, check one case and write no bundle."""

    def copied(network, folder, **_):
        for name in ("model.py", "model.pt2", "model.onnx"):
            shutil.copyfile(exported.folder / name, folder / name)
        return replace(exported.forms, missing=(("pt2", "not tried"), ("onnx", "not tried")))

    monkeypatch.setattr("search.export.contents.write_forms", copied)
    monkeypatch.setattr("search.export.model._bundle", lambda *_: "")
    monkeypatch.setattr("search.export.model.CHECKED_CASES", 1)
    return monkeypatch


def test_an_export_that_fails_verification_is_deleted_and_the_earlier_one_stays(quick, exported, study, tmp_path):
    shutil.copytree(exported.folder, tmp_path / "model")
    other = build(study.record.architecture, study.plan.context)
    save_weights(tmp_path / "trial", other)
    quick.setattr("search.export.contents.save_tensors", lambda network, path: save_tensors(study.network, path))
    with pytest.raises(UserError, match="failed verification and was deleted: form source: logits differ by up to"):
        export_trained(origin_of(study, tmp_path / "trial"), tmp_path / "model", force=True)
    assert {entry.name for entry in tmp_path.iterdir()} == {"model", "trial"}
    assert {entry.name for entry in (tmp_path / "model").iterdir()} == {*FILES, BUNDLE}


def test_a_failing_predict_fails_the_verification_with_its_last_line(quick, exported, study, tmp_path):
    def broken(network, folder, **_):
        (folder / "model.py").write_text("def load_network(path):\n    raise ValueError('no network')\n")
        return replace(exported.forms, missing=(("pt2", "not tried"), ("onnx", "not tried")))

    quick.setattr("search.export.contents.write_forms", broken)
    with pytest.raises(UserError, match="exited with code 2: .*model.py: can't be loaded .ValueError: no network"):
        export_trained(origin_of(study), tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_a_machine_that_fails_during_the_verification_is_not_the_exports_fault(quick, exported, study, tmp_path):
    def broken(network, folder, **_):
        code = "import torch\n\nclass Network(torch.nn.Module):\n    def forward(self, x):\n"
        code += "        raise MemoryError('9 TiB')\n\ndef load_network(path):\n    return Network()\n"
        (folder / "model.py").write_text(code)
        return replace(exported.forms, missing=(("pt2", "not tried"), ("onnx", "not tried")))

    quick.setattr("search.export.contents.write_forms", broken)
    with pytest.raises(RunError, match="could not be verified and was deleted: form source: .* MemoryError: 9 TiB"):
        export_trained(origin_of(study), tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_an_export_whose_dice_is_not_the_records_is_refused(quick, study, tmp_path):
    (case, *rest) = validate(study.network, study.prepared, study.job, device=torch.device("cpu"), last=False)
    wrong = CaseDice(case.case, tuple(None if dice is None else dice + 0.1 for dice in case.dice))
    origin = origin_of(study)
    trained = replace(origin.trained, recorded=(wrong, *rest))
    with pytest.raises(UserError, match="was deleted: .* class . has Dice .*, but .* in the record: these are not the"):
        export_trained(replace(origin, trained=trained), tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_a_study_is_exported_by_rule_and_an_earlier_export_is_replaced(quick, exported, study, tmp_path):
    quick.setattr("search.export.model.check_form", lambda *_, **__: exported.checks[0])
    plan = study.plan
    store = Store.open(plan.url, plan.study.name, directions=plan.directions, values=plan.identity())
    choices = {name: axis.choices for name, axis in plan.space.by_name.items()}
    running = replace(study.record, measurement=Measurement("running"), ended="")
    started = store.write_new(running, choices=choices)
    assert started.number == 0
    scored = validate(study.network, study.prepared, study.job, device=torch.device("cpu"), last=False)
    record = replace(study.record, measurement=replace(study.record.measurement, cases=scored))
    store.write_finished(record, objectives=list(plan.directions), budgets=plan.budgets)
    view, stages = quiet_view(), []
    view.on_stage = lambda stage, done=0, total=0: stages.append((stage, done, total))
    first = export(plan, "knee", tmp_path / "out", contact="A. Person", view=view)
    assert ("verifying the form source in a process without voxnas", 1, 1) in stages
    assert "* Contact: A. Person." in (tmp_path / "out" / "MODEL_CARD.md").read_text()
    assert str(first).startswith("trial 0, the knee of a front of 1 network: closest to the best Dice and ")
    card = (tmp_path / "out" / "MODEL_CARD.md").read_text()
    with pytest.raises(UserError, match=r"--out .*out: holds an earlier export; .* replace it with --force"):
        export(plan, "0", tmp_path / "out", view=quiet_view())
    assert (tmp_path / "out" / "MODEL_CARD.md").read_text() == card
    export(plan, "0", tmp_path / "out", force=True, view=quiet_view())
    assert (tmp_path / "out" / "MODEL_CARD.md").read_text() != card
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]
    study.file.write_text(STUDY.replace("overlap: 0.4", "overlap: 0.3"))
    changed = make_plan(load_study(study.file, data_root=study.root), runs=study.root / "runs")
    with pytest.raises(UserError, match="training.overlap: the study began with 0.4, the file now has 0.3"):
        export(changed, "best", tmp_path / "out", view=quiet_view())
