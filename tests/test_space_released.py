"""Released names of whole networks' weights: both ways, and against recorded values of CSAM's encoder."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from search.costs.abstract import AbstractTensors
from space.architecture import Architecture
from space.build import build
from space.canonical import Context
from space.place import Place
from space.presets import PRESETS
from space.released_weights import from_released, to_released

FOLDER = Path(os.environ.get("VOXNAS_GOLDEN", Path(__file__).parents[2] / "shared" / "golden"))


def abstract_state(name):
    preset = PRESETS[name]
    with AbstractTensors():
        return build(preset.architecture, preset.context).state_dict()


@pytest.mark.parametrize("name", [name for name in PRESETS if name.startswith("unetrpp")])
def test_unetrpp_names_survive_the_round_trip(name):
    ours, architecture = abstract_state(name), PRESETS[name].architecture
    theirs = to_released(ours, architecture)
    assert len(theirs) == len(ours)
    back = from_released(theirs, architecture)
    assert back.keys() == ours.keys() and all(back[key] is ours[key] for key in ours)
    assert {key.partition(".")[0] for key in theirs} == {
        "unetr_pp_encoder",
        "encoder1",
        "decoder5",
        "decoder4",
        "decoder3",
        "decoder2",
        "out1",
        "out2",
        "out3",
    }


def test_unetrpp_names_equal_the_released_ones():
    theirs = to_released(abstract_state("unetrpp_acdc"), PRESETS["unetrpp_acdc"].architecture)
    shapes = {key: tuple(value.shape) for key, value in theirs.items()}
    assert shapes["unetr_pp_encoder.downsample_layers.0.0.conv.weight"] == (32, 1, 1, 4, 4)
    assert shapes["unetr_pp_encoder.downsample_layers.3.1.weight"] == (256,)
    assert shapes["unetr_pp_encoder.stages.0.2.epa_block.E.weight"] == (64, 25_600)
    assert shapes["unetr_pp_encoder.stages.3.0.pos_embed"] == (1, 50, 256)
    assert shapes["encoder1.conv3.conv.weight"] == (16, 1, 1, 1, 1)
    assert shapes["decoder5.transp_conv.conv.weight"] == (256, 128, 2, 2, 2)
    assert shapes["decoder5.decoder_block.0.1.conv52.norm2.running_mean"] == (128,)
    assert shapes["decoder2.decoder_block.0.conv1.conv.weight"] == (16, 16, 3, 3, 3)
    assert shapes["out3.conv.conv.bias"] == (4,)


def csam_network(channels, slices):
    values = dict(PRESETS["csam_unet"].architecture.entries)
    kept = {"encoder", "downsampling", "upsampling", "skip", "deep_supervision"}
    architecture = Architecture.of(
        {name: value for name, value in values.items() if name in kept}
        | {"channels": channels, "pooling": ((1, 2, 2),) * (len(channels) - 1)}
        | {f"attention@{place}": "csam" for place in (*[f"skip{n}" for n in range(len(channels) - 1)], "bottleneck")}
    )
    return architecture, build(architecture, Context((slices, 16, 16), (1.0, 1.0, 1.0), 1, 2)).eval()


def test_csam_encoder_weights_give_the_released_maps():
    file = FOLDER / "csam_encoder.npz"
    if not file.exists():
        pytest.skip(f"no golden vectors of CSAM's encoder in {FOLDER}")
    with np.load(file, allow_pickle=False) as arrays:
        golden = {key: torch.from_numpy(arrays[key]) for key in arrays.files if key != "meta"}
    architecture, network = csam_network((16, 32), 4)
    released = {key[2:]: value.double() for key, value in golden.items() if key.startswith("w:")}
    ours = from_released(released, architecture)
    missing, unexpected = network.double().load_state_dict(ours, strict=False)
    assert not unexpected and all(key.startswith(("grow.", "up.", "heads.")) for key in missing)
    with torch.inference_mode():
        maps = network.encode(golden["x"].double().movedim(0, 1)[None])  # (S, C, H, W) to (1, C, S, H, W)
        found = {"y": maps[-1], "skip0": network.attend(Place("skip", 0), maps[0])}
    for key, value in found.items():
        torch.testing.assert_close(value[0].movedim(0, 1), golden[key], rtol=1e-10, atol=1e-12)
    again = to_released(network.state_dict(), architecture)
    assert again.keys() == released.keys()
    assert all(torch.equal(again[key], released[key]) for key in again)


def test_unknown_names_and_networks_are_refused():
    with pytest.raises(ValueError, match=r"no counterpart for 1 of \d+ names, e\.g\. encoder9.weight"):
        from_released({"encoder9.weight": torch.zeros(1)}, PRESETS["unetrpp_acdc"].architecture)
    with pytest.raises(ValueError, match="no released weights are known for 'me' networks"):
        to_released({}, PRESETS["meunet"].architecture)
