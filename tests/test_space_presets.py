"""The papers' networks: their sizes, and that each one runs."""

import pytest
import torch

from blocks.meunet import expanded_patch, one_hot_predictions, two_patch_step
from search.costs.abstract import AbstractTensors
from search.training.schemes import two_patch_network
from space.architecture import Architecture
from space.build import Refused, build
from space.canonical import Context
from space.encoders import dense_channels
from space.narrow import narrow
from space.presets import PRESETS

PARAMETERS = {
    "unetrpp_synapse": 42_952_850,
    "unetrpp_acdc": 66_796_404,
    "unetrpp_lung": 121_174_798,
    "unetrpp_tumor": 42_647_604,
    "csam_unet": 34_720_718,
    "meunet": 2_515_062,
    "nnunet": 5_603_177,
    "nnunet_resenc_m": 100_945_876,
    "meunet_cascade": 2 * 2_515_062 + 2_534_499,  # two first networks, and the second with 6 channels more a level
}
NAMES = (
    "sau_net",
    "csam_unet",
    "joint_denseunet",
    "unetrpp_synapse",
    "unetrpp_acdc",
    "unetrpp_lung",
    "unetrpp_tumor",
    "meunet",
    "meunet_cascade",
    "nnunet",
    "nnunet_resenc_m",
)
each_preset = pytest.mark.parametrize("name", NAMES)


def count(architecture, context):
    with AbstractTensors():
        return sum(parameter.numel() for parameter in build(architecture, context).parameters())


def changed(architecture, **values):
    """Replace entries by name, or at every place of a kind."""
    return Architecture.of(
        {
            name: values.get(name, values.get(name.partition("@")[0].replace(".", "_"), value))
            for name, value in architecture.entries
        }
    )


def tiny(name):
    """The preset with few channels, and a small patch that its strides divide."""
    architecture = PRESETS[name].architecture
    patch, narrower = (3, 32, 32), {"channels": (4, 8, 8, 8, 8)}
    if name == "csam_unet":
        narrower = {"channels": (16,) * 5}
    if name == "joint_denseunet":
        layers = (1, 2, 1, 1)
        narrower = {
            "channels": dense_channels(stem=8, layers=layers, growth=4),
            "dense_layers": layers,
            "dense_growth": 4,
            "decoder_channels": (8, 4, 8, 8),
        }
    if name.startswith("unetrpp"):
        narrower = {"channels": (4, 8, 8, 16, 16), "epa_projection": 2, "epa_dropout": 0.0}
        patch = tuple(8 * step for step in architecture["pooling"][0][:2]) + (64,)
    if name.startswith("meunet"):
        narrower = {"channels": (4, 4, 6, 6, 6), "decoder_channels": (4, 5, 4, 4)}
        patch = (16, 16, 32)
    if name.startswith("nnunet"):
        narrower = {"channels": (4, 6, 8, 8, 8, 8)[: architecture.levels]}
        patch = (16, 64, 64)
    context = PRESETS[name].context
    return changed(architecture, **narrower), Context(patch, context.spacing, context.in_channels, context.classes)


def test_the_papers_networks_have_their_names():
    assert tuple(PRESETS) == NAMES
    assert all(preset.name == name and preset.paper and preset.note for name, preset in PRESETS.items())
    assert len({preset.architecture.fingerprint for preset in PRESETS.values()}) == len(NAMES) - 1  # ACDC is Lung
    assert PRESETS["unetrpp_acdc"].architecture == PRESETS["unetrpp_lung"].architecture


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_equal_the_released_networks(name):
    assert count(PRESETS[name].architecture, PRESETS[name].context) == PARAMETERS[name]


def test_csam_without_uncertainty_has_the_released_parameters():
    preset = PRESETS["csam_unet"]
    assert count(changed(preset.architecture, csam_uncertainty=False), preset.context) == 34_706_018


def test_networks_without_a_published_count_are_near_their_notes():
    counts = {name: count(PRESETS[name].architecture, PRESETS[name].context) for name in ("sau_net", "joint_denseunet")}
    # 38.87 M with biases before the norms, which ours leaves out, and without ISA's 64 * 64 + 64
    assert counts["sau_net"] == pytest.approx(38.87e6, rel=0.001)
    assert counts["joint_denseunet"] == 24_397_512


@each_preset
def test_a_preset_is_an_architecture_like_any_other(name):
    architecture = PRESETS[name].architecture
    assert Architecture.from_json(architecture.to_json()) == architecture
    assert architecture.describe().startswith(architecture["encoder"])


def test_options_of_presets_only_are_not_part_of_the_space():
    space = narrow(PRESETS["meunet"].context, placement="each", fix={}, choices={})
    architecture = space.architecture(space.complete({}))
    assert {name for name, _ in architecture.entries} == {
        "activation",
        "channels",
        "deep_supervision",
        "downsampling",
        "dropout",
        "encoder",
        "kernels",
        "norm",
        "pooling",
        "repeats",
        "skip",
        "upsampling",
    }


@each_preset
def test_a_preset_runs_at_its_papers_patch(name):
    architecture, context = PRESETS[name].architecture, PRESETS[name].context
    with AbstractTensors(), torch.no_grad():
        logits = build(architecture, context).eval()(torch.zeros(1, context.in_channels, *context.patch))
    assert logits.shape == (1, context.classes, *context.patch)


@each_preset
def test_a_small_preset_learns_everywhere_and_takes_odd_sizes(name):
    torch.manual_seed(0)
    architecture, context = tiny(name)
    network = build(architecture, context).train()
    outputs = network.supervised(torch.randn(2, context.in_channels, *context.patch))
    assert outputs[0].shape == (2, context.classes, *context.patch)
    heads = {"nnunet": 3, "nnunet_resenc_m": 5}
    assert len(outputs) == heads.get(name, 3 if name.startswith("unetrpp") else 1)
    sum(output.square().mean() for output in outputs).backward()
    without = {name for name, p in network.named_parameters() if p.grad is None or not p.grad.isfinite().all()}
    without = {each for each in without if not each.startswith("first.")}  # a cascade's first networks train before
    assert without == ({"heads.1.weight", "heads.1.bias"} if name == "meunet" else set())
    with torch.inference_mode():
        logits = network.eval()(torch.randn(1, context.in_channels, 17, 37, 45))
    assert logits.shape == (1, context.classes, 17, 37, 45)


def test_deep_supervision_is_on_the_first_two_stages_grids():
    architecture, context = tiny("unetrpp_acdc")
    outputs = build(architecture, context).supervised(torch.randn(1, 1, *context.patch))
    assert [tuple(output.shape[2:]) for output in outputs] == [(8, 32, 64), (8, 8, 16), (4, 4, 8)]


def test_the_stem_and_the_full_resolution_branch_both_read_the_image():
    architecture, context = tiny("unetrpp_tumor")
    network = build(architecture, context)
    assert network.down[0].conv1.conv.in_channels == network.down[1].conv.in_channels == 4
    assert network.down[1].norm.num_groups == 4  # the number of image channels
    assert network.down[3].norm.num_groups == 8  # two channels a group


def test_sizes_that_the_stem_does_not_divide_do_not_change_the_rest():
    architecture, context = tiny("unetrpp_synapse")
    stem = build(architecture, context).down[1]
    x = torch.randn(1, 1, 5, 9, 11)
    out = stem.conv(x[:, :, :4, :8, :8])
    padded = stem.conv(torch.nn.functional.pad(x, (0, 1, 0, 3, 0, 1)))
    assert stem(x).shape[2:] == (3, 3, 3)
    torch.testing.assert_close(padded[:, :, :2, :2, :2], out)
    torch.testing.assert_close(stem(x), stem.norm(padded))


def test_the_released_initialisation_applies_only_to_the_encoder():
    torch.manual_seed(0)
    architecture = changed(PRESETS["unetrpp_synapse"].architecture, epa_projection=8)
    network = build(architecture, Context((32, 64, 64), (1.0, 1.0, 1.0), 1, 2))
    encoder, decoder = (network.attention[place][0].epa_block.E for place in ("encoder1", "decoder1"))
    assert float(encoder.weight.detach().std()) == pytest.approx(0.02, rel=0.02) and not encoder.bias.any()
    assert float(decoder.weight.detach().abs().max()) <= decoder.in_features**-0.5 and decoder.bias.any()


def test_a_two_patch_network_trains_its_first_level_only_on_the_standard_patch():
    torch.manual_seed(0)
    architecture, context = tiny("meunet")
    network = build(architecture, context).train()
    large = expanded_patch(context.patch, factor=architecture["expansion"])
    image, labels = torch.randn(2, 1, *large), torch.randint(0, 3, (2, *large))
    two_patch_step(
        two_patch_network(network),
        image=image,
        labels=labels,
        patch=context.patch,
        loss=torch.nn.functional.cross_entropy,
    )
    assert all(p.grad is not None for p in network.parameters())
    network.zero_grad()
    parts = two_patch_network(network)
    with torch.no_grad():
        features = parts.first_level(image)
    logits = parts.deeper(features)
    assert logits.shape[2:] == tuple(size // 2 for size in large)
    logits.sum().backward()
    without = {name.rpartition(".")[0] for name, p in network.named_parameters() if p.grad is None}
    assert {name.partition(".")[0] + name.partition(".")[2][:2] for name in without} == {"down0.", "up0.", "heads0"}


def test_only_a_two_patch_network_has_the_three_forward_functions():
    network = build(*tiny("meunet_cascade")).second
    with pytest.raises(ValueError, match="needs a network built with stages: two-patch"):
        two_patch_network(network)


def test_the_cascade_joins_predictions_at_every_decoder_level_and_never_in_the_encoder():
    torch.manual_seed(0)
    architecture, context = tiny("meunet_cascade")
    network = build(architecture, context).second.eval()
    maps = [torch.randint(0, 3, (1, *context.patch)) for _ in range(2)]
    image = torch.randn(1, 1, *context.patch)
    one, other = (torch.cat([image, one_hot_predictions(given, classes=3)], dim=1) for given in (maps, maps[::-1]))
    assert one.shape[1] == 7
    seen = []
    network.down[-1].register_forward_hook(lambda module, inputs, output: seen.append(output))
    with torch.inference_mode():
        assert not torch.equal(network(one), network(other))
    assert torch.equal(*seen)


def test_predictions_can_join_the_image_instead():
    architecture, context = tiny("meunet_cascade")
    values = dict(architecture.entries)
    del values["cascade.levels"]
    network = build(Architecture.of(values | {"cascade.join": "pre"}), context)
    assert network.second.down[0][0][0].in_channels == 7
    assert network(torch.randn(1, 1, *context.patch)).shape == (1, 3, *context.patch)


def test_no_gradient_reaches_a_cascades_first_networks_through_the_second():
    torch.manual_seed(0)
    network = build(*tiny("meunet_cascade")).train()
    image = torch.randn(2, 1, 16, 16, 32)
    network.supervised(image)[0].sum().backward()
    assert all(p.grad is None for p in network.first.parameters())
    assert all(p.grad is not None for p in network.second.parameters())
    network.eval()
    with torch.inference_mode():
        labels = [first(image).argmax(dim=1) for first in network.first]
        whole = network.with_predictions(image)
    assert torch.equal(whole[:, 1:], one_hot_predictions(labels, classes=3)) and torch.equal(whole[:, :1], image)


@pytest.mark.parametrize(
    ("name", "values", "context", "message"),
    [
        ("meunet_cascade", {"cascade_first": ()}, {}, "a cascade needs at least one first network"),
        ("meunet", {"downsampling": "strided"}, {}, "two-patch training pools the features of its first level"),
        ("unetrpp_synapse", {"epa_heads": 3}, {}, "epa at encoder1 has 8 channels, not a multiple of its 3 heads"),
        ("unetrpp_synapse", {"epa_projection": 65}, {}, "has 16 tokens .2x2x4., too few to project to 65"),
        ("csam_unet", {"channels": (8, 16, 16, 16, 16)}, {}, "csam at skip0 has 8 channels"),
    ],
)
def test_a_preset_that_does_not_fit_is_refused_with_the_reason(name, values, context, message):
    architecture, usual = tiny(name)
    with pytest.raises(Refused, match=message):
        build(changed(architecture, **values), Context(**{**usual.__dict__, **context}))


def test_fixed_units_and_dense_channels_are_checked():
    architecture, context = tiny("csam_unet")
    with pytest.raises(ValueError, match="'csam' units have no stride, but level 1 has"):
        build(changed(architecture, downsampling="strided"), context)
    architecture, context = tiny("joint_denseunet")
    with pytest.raises(ValueError, match="layers .1, 2, 1, 1. and growth 5 has channels"):
        build(changed(architecture, dense_growth=5), context)
