"""Weights from elsewhere: renamed, refused, and started from."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from search.config import UserError
from search.export.import_weights import import_weights
from search.training.checkpoint import save_file_apart
from search.training.initial import NothingFits, start_from, weights_file
from space.build import build
from space.canonical import Context
from space.presets import PRESETS
from space.released_weights import to_released
from space.unet import UNet


@pytest.fixture(scope="module")
def acdc():
    """UNETR++'s released names with values that tell tensors apart."""
    preset = PRESETS["unetrpp_acdc"]
    with torch.device("meta"):
        network = build(preset.architecture, preset.context)
    shapes = {name: value.shape for name, value in network.state_dict().items()}
    state = {name: torch.full(shape, float(index)) for index, (name, shape) in enumerate(shapes.items())}
    return state, to_released(state, preset.architecture)


def test_a_released_checkpoint_finds_its_preset_and_our_names(acdc, tmp_path):
    ours, theirs = acdc
    wrapped = {"epoch": 3, "state_dict": {f"module.{name}": tensor for name, tensor in theirs.items()}}
    torch.save(wrapped, tmp_path / "model_final.model")
    done = import_weights(tmp_path / "model_final.model", tmp_path / "start.safetensors")
    assert (done.network, done.tensors, done.left_out) == ("unetrpp_acdc", len(ours), ())
    written = load_file(tmp_path / "start.safetensors")
    assert written.keys() == ours.keys()
    assert all(torch.equal(written[name], ours[name]) for name in ours)
    assert str(done).startswith(f"{tmp_path / 'start.safetensors'}: {len(ours)} tensors of unetrpp_acdc; start")


def test_a_head_of_other_classes_is_left_out_and_named(acdc, tmp_path):
    ours, theirs = acdc
    changed = {**theirs, "out1.conv.conv.weight": torch.zeros(9, 16, 1, 1, 1), "out1.conv.conv.bias": torch.zeros(9)}
    torch.save(changed, tmp_path / "other.pt")
    done = import_weights(tmp_path / "other.pt", tmp_path / "start.safetensors", preset="unetrpp_acdc")
    assert done.left_out == ("out1.conv.conv.weight", "out1.conv.conv.bias")
    assert done.tensors == len(ours) - 2


def test_csams_encoder_is_taken_from_a_whole_networks_checkpoint(tmp_path):
    preset = PRESETS["csam_unet"]
    with torch.device("meta"):
        ours = build(preset.architecture, preset.context).state_dict()
    encoder = {
        f"encoder.{name}": torch.ones(1).expand(value.shape)
        for name, value in to_released(ours, preset.architecture).items()
    }
    torch.save({**encoder, "decoder.up.0.weight": torch.zeros(2)}, tmp_path / "csam.pth")
    done = import_weights(tmp_path / "csam.pth", tmp_path / "start.safetensors")
    assert (done.network, done.tensors, done.left_out) == ("csam_unet", len(encoder), ("decoder.up.0.weight",))


def test_what_is_no_checkpoint_is_refused(tmp_path):
    out = tmp_path / "start.safetensors"
    torch.save({"state_dict": {"a": torch.zeros(1)}, "more": Path}, tmp_path / "code.pt")
    torch.save({"epoch": 3}, tmp_path / "empty.pt")
    torch.save({"strange": torch.zeros(3)}, tmp_path / "strange.pt")
    (tmp_path / "cut.safetensors").write_bytes(b"cut")
    (tmp_path / "folder").mkdir()
    for source, said in (
        ("code.pt", "is not loaded: it holds more than tensors"),
        ("empty.pt", "holds no state dict"),
        ("strange.pt", r"none of its weights fit by name and shape \(tried: csam_unet, unetrpp_synapse"),
        ("cut.safetensors", "cut.safetensors: can't be read"),
        ("gone.pt", "gone.pt: no such file"),
        ("folder", "is no export: it has no architecture.json"),
    ):
        with pytest.raises(UserError, match=said):
            import_weights(tmp_path / source, out)
    with pytest.raises(UserError, match="'unetr' is no paper's network"):
        import_weights(tmp_path / "strange.pt", out, preset="unetr")
    with pytest.raises(UserError, match="the weights' name ends in .safetensors"):
        import_weights(tmp_path / "strange.pt", tmp_path / "start.pt")
    assert not out.exists()


def small(classes: int = 2):
    from space.architecture import Architecture

    architecture = Architecture.of(
        {
            "encoder": "plain",
            "channels": (4, 8),
            "pooling": ((2, 2, 2),),
            "kernels": ((3, 3, 3),) * 2,
            "repeats": 1,
            "norm": "instance",
            "activation": "relu",
            "dropout": 0.0,
            "downsampling": "max",
            "upsampling": "linear",
            "skip": "add",
            "deep_supervision": False,
        }
    )
    return UNet(architecture, in_channels=1, classes=classes, patch=(8, 8, 8)), architecture


def test_an_exports_weights_are_taken_over_and_started_from_where_they_fit(tmp_path):
    network, architecture = small()
    context = Context((8, 8, 8), (1.0, 1.0, 1.0), 1, 2)
    export = tmp_path / "export"
    export.mkdir()
    save_file_apart(network, export / "weights.safetensors")
    described = {"architecture": dict(architecture.entries), **asdict(context)}
    (export / "architecture.json").write_text(json.dumps(described))
    done = import_weights(export, tmp_path / "start.safetensors")
    other, _ = small(classes=5)
    assert start_from(other, str(weights_file(tmp_path / "start.safetensors"))) == done.tensors - 2
    assert torch.equal(other.state_dict()["down.0.0.0.conv.weight"], network.state_dict()["down.0.0.0.conv.weight"])
    assert weights_file(export) == export / "weights.safetensors"
    (export / "architecture.json").write_text(json.dumps({**described, "classes": 3}))
    with pytest.raises(UserError, match="doesn't hold the weights that architecture.json describes"):
        import_weights(export, tmp_path / "start.safetensors")


def test_weights_that_do_not_fit_or_are_not_there_are_said(tmp_path):
    save_file({"strange": torch.zeros(3)}, tmp_path / "strange.safetensors")
    with pytest.raises(NothingFits, match="none of the weights in .*strange.safetensors fit this network"):
        start_from(small()[0], str(tmp_path / "strange.safetensors"))
    for name, said in (("gone.safetensors", "no such file"), ("old.pt", "make one with `voxnas import`")):
        (tmp_path / "old.pt").touch()
        with pytest.raises(UserError, match=f"training.init: .*{name}: .*{said}"):
            weights_file(tmp_path / name)
    (tmp_path / "cut.safetensors").write_bytes(b"cut")
    with pytest.raises(UserError, match="cut.safetensors: can't be read"):
        weights_file(tmp_path / "cut.safetensors")
