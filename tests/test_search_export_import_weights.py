"""Imported weights: conversion, refusals, and initialisation of trainings."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from search.config import UserError
from search.export.import_weights import import_weights
from search.training.checkpoint import save_tensors
from search.training.initial import NoMatchingWeights, load_matching_weights, weights_file
from space.build import build
from space.canonical import Context
from space.presets import PRESETS
from space.released_weights import to_released
from space.unet import UNet


@pytest.fixture(scope="module")
def acdc():
    """UNETR++'s state by our names and by the released names, with different values in each tensor."""
    preset = PRESETS["unetrpp_acdc"]
    with torch.device("meta"):
        network = build(preset.architecture, preset.context)
    shapes = {name: value.shape for name, value in network.state_dict().items()}
    state = {name: torch.full(shape, float(index)) for index, (name, shape) in enumerate(shapes.items())}
    return state, to_released(state, preset.architecture)


def test_a_released_checkpoint_is_matched_to_its_preset_and_our_names(acdc, tmp_path):
    ours, theirs = acdc
    wrapped = {"epoch": 3, "state_dict": {f"module.{name}": tensor for name, tensor in theirs.items()}}
    torch.save(wrapped, tmp_path / "model_final.model")
    done = import_weights(tmp_path / "model_final.model", tmp_path / "start.safetensors")
    assert (done.network, done.tensors, done.skipped) == ("unetrpp_acdc", len(ours), ())
    written = load_file(tmp_path / "start.safetensors")
    assert written.keys() == ours.keys()
    assert all(torch.equal(written[name], ours[name]) for name in ours)
    assert str(done).startswith(f"{tmp_path / 'start.safetensors'}: {len(ours)} tensors of unetrpp_acdc; start")


def test_a_head_with_another_number_of_classes_is_skipped_and_named(acdc, tmp_path):
    ours, theirs = acdc
    changed = {**theirs, "out1.conv.conv.weight": torch.zeros(9, 16, 1, 1, 1), "out1.conv.conv.bias": torch.zeros(9)}
    torch.save(changed, tmp_path / "other.pt")
    done = import_weights(tmp_path / "other.pt", tmp_path / "start.safetensors", preset="unetrpp_acdc")
    assert done.skipped == ("out1.conv.conv.weight", "out1.conv.conv.bias")
    assert done.tensors == len(ours) - 2
    assert "; skipped 2 tensors (out1.conv.conv.weight, out1.conv.conv.bias); start trainings" in str(done)


def test_csams_encoder_is_read_from_the_whole_networks_checkpoint(tmp_path):
    preset = PRESETS["csam_unet"]
    with torch.device("meta"):
        ours = build(preset.architecture, preset.context).state_dict()
    encoder = {
        f"encoder.{name}": torch.ones(1).expand(value.shape)
        for name, value in to_released(ours, preset.architecture).items()
    }
    torch.save({**encoder, "decoder.up.0.weight": torch.zeros(2)}, tmp_path / "csam.pth")
    done = import_weights(tmp_path / "csam.pth", tmp_path / "start.safetensors")
    assert "; skipped 1 tensor (decoder.up.0.weight); " in str(done)
    assert (done.network, done.tensors, done.skipped) == ("csam_unet", len(encoder), ("decoder.up.0.weight",))


def test_an_invalid_checkpoint_is_refused(tmp_path):
    out = tmp_path / "start.safetensors"
    torch.save({"state_dict": {"a": torch.zeros(1)}, "more": Path}, tmp_path / "code.pt")
    torch.save({"epoch": 3}, tmp_path / "empty.pt")
    torch.save({"strange": torch.zeros(3)}, tmp_path / "strange.pt")
    (tmp_path / "cut.safetensors").write_bytes(b"cut")
    (tmp_path / "folder").mkdir()
    for source, message in (
        ("code.pt", "was not loaded: it contains objects other than tensors"),
        ("empty.pt", "contains no state dict"),
        ("strange.pt", r"no tensor matches a preset by name and shape \(tried: csam_unet, unetrpp_synapse"),
        ("cut.safetensors", "cut.safetensors: can't be read"),
        ("gone.pt", "gone.pt: no such file"),
        ("folder", "is not an export: architecture.json is missing"),
    ):
        with pytest.raises(UserError, match=message):
            import_weights(tmp_path / source, out)
    with pytest.raises(UserError, match="there is no preset 'unetr'"):
        import_weights(tmp_path / "strange.pt", out, preset="unetr")
    with pytest.raises(UserError, match="the file name must end in .safetensors"):
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


def test_an_exports_weights_are_imported_and_initialise_the_tensors_that_fit(tmp_path):
    network, architecture = small()
    context = Context((8, 8, 8), (1.0, 1.0, 1.0), 1, 2)
    export = tmp_path / "export"
    export.mkdir()
    save_tensors(network, export / "weights.safetensors")
    described = {"architecture": dict(architecture.entries), **asdict(context)}
    (export / "architecture.json").write_text(json.dumps(described))
    done = import_weights(export, tmp_path / "start.safetensors")
    other, _ = small(classes=5)
    assert load_matching_weights(other, str(weights_file(tmp_path / "start.safetensors"))) == done.tensors - 2
    assert torch.equal(other.state_dict()["down.0.0.0.conv.weight"], network.state_dict()["down.0.0.0.conv.weight"])
    assert weights_file(export) == export / "weights.safetensors"
    (export / "architecture.json").write_text(json.dumps({**described, "classes": 3}))
    with pytest.raises(UserError, match="the weights don't match architecture.json"):
        import_weights(export, tmp_path / "start.safetensors")


def test_weights_that_do_not_fit_or_are_missing_are_reported(tmp_path):
    save_file({"strange": torch.zeros(3)}, tmp_path / "strange.safetensors")
    with pytest.raises(NoMatchingWeights, match="no tensor in .*strange.safetensors matches this network"):
        load_matching_weights(small()[0], str(tmp_path / "strange.safetensors"))
    for name, message in (("gone.safetensors", "no such file"), ("old.pt", "convert it with `voxnas import`")):
        (tmp_path / "old.pt").touch()
        with pytest.raises(UserError, match=f"training.init: .*{name}: .*{message}"):
            weights_file(tmp_path / name)
    (tmp_path / "cut.safetensors").write_bytes(b"cut")
    with pytest.raises(UserError, match="cut.safetensors: can't be read"):
        weights_file(tmp_path / "cut.safetensors")
