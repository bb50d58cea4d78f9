"""timm's encoders, slice by slice: sizes, channels, cut stages, unavailable weights."""

from random import Random

import pytest
import torch

from search.config.errors import UserError
from search.config.training_section import Training
from search.training.pretrained import WeightsUnavailable, fetch, load_pretrained_encoders, require_pretrained
from search.training.schemes import make_phases
from search.training.step import to_memory_format
from space.axes import DecisionError
from space.build import build
from space.canonical import Context
from space.narrow import narrow
from space.timm_info import KNOWN, PREFIX, Stages, timm_stages


@pytest.fixture(scope="module")
def timm_slices():
    """timm is imported here, since each process that runs tests would import it with this file, which takes long."""
    from space.timm_encoder import TimmSlices

    return TimmSlices


each_model = pytest.mark.parametrize("name", KNOWN)


def network_of(name, context, **decisions):
    space = narrow(context, placement="each", fix={"encoder": PREFIX + name, "pretrained": False}, choices={})
    return build(space.architecture(space.complete({"width": 8, **decisions})), context)


@each_model
def test_the_facts_of_a_model_equal_timms(name, timm_slices):
    encoder = timm_slices(name, 1, levels=len(KNOWN[name].channels))
    info = encoder.net.feature_info
    assert Stages(tuple(info.channels()), tuple(info.reduction())) == KNOWN[name]


@each_model
@pytest.mark.parametrize("size", [(3, 33, 28), (1, 17, 40), (2, 7, 70)])
def test_odd_and_tiny_planes_give_maps_with_sizes_rounded_up(name, size, timm_slices):
    levels = 3
    encoder = timm_slices(name, 2, levels=levels).eval()
    with torch.inference_mode():
        maps = encoder(torch.randn(2, 2, *size))
    depth, height, width = size
    for features, channels, step in zip(maps, KNOWN[name].channels, KNOWN[name].reductions, strict=False):
        assert features.shape == (2, channels, depth, -(-height // step), -(-width // step))


@each_model
def test_every_weight_of_a_network_trains(name):
    context = Context((3, 40, 33), (8.0, 1.0, 1.0), 3, 2)
    network = to_memory_format(network_of(name, context, levels=3)).train()
    (phase,) = make_phases(network, patch=context.patch, training=Training(patch=context.patch))
    labels = torch.randint(0, 2, (2, 1, *context.patch)).float()
    assert phase.add_gradients(torch.randn(2, 3, *context.patch), labels).isfinite()
    assert all(p.grad is not None for p in network.parameters())


def test_slices_interact_only_at_the_attention_places():
    context = Context((4, 32, 32), (8.0, 1.0, 1.0), 1, 2)
    x = torch.randn(1, 1, *context.patch)
    other = x.clone()
    other[:, :, 3] += 1.0
    flat = {"levels": 3, "kernels": "2d", "norm": "slice"}
    with torch.inference_mode():
        apart = network_of("resnet18", context, **flat).eval()
        assert torch.equal(apart(x)[:, :, 0], apart(other)[:, :, 0])
        joined = network_of("resnet18", context, **flat, **{"attention@skip1": "isa"}).eval()
        assert torch.equal(joined(x)[:, :, 0], joined(other)[:, :, 0])  # a neighbour of a neighbour
        assert not torch.equal(joined(x)[:, :, 2], joined(other)[:, :, 2])


def test_timm_encoders_have_no_attention_places_and_end_with_their_stages():
    context = Context((4, 32, 32), (8.0, 1.0, 1.0), 1, 2)
    space = narrow(context, placement="each", fix={"encoder": "timm:convnext_atto"}, choices={})
    assert not [axis.name for axis in space.axes if axis.name.startswith("attention@encoder")]
    architecture = space.architecture(space.complete({"levels": 6}))
    assert architecture.levels == 5 and architecture["pooling"][0] == (1, 4, 4)
    assert architecture["channels"][1:] == KNOWN["convnext_atto"].channels
    assert architecture.decoder_channels == (8, 16, 32, 64)


def test_any_convolutional_model_of_timm_can_be_named():
    assert timm_stages("regnety_002") == Stages((32, 24, 56, 152, 368), (2, 4, 8, 16, 32))
    context = Context((2, 32, 32), (8.0, 1.0, 1.0), 1, 2)
    space = narrow(context, placement="tied", fix={}, choices={"encoder": ["plain", "timm:regnety_002"]})
    drawn = {str(space.sample(Random(seed))["encoder"]) for seed in range(20)}
    assert drawn == {"plain", "timm:regnety_002"}


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        ("timm:resnet19", "timm has no model 'resnet19'; did you mean 'timm:resnet1"),
        ("timm:swin_tiny_patch4_window7_224", "has no multi-scale features for images of any size: Input height"),
        ("timmy", r"'timmy' is not a choice .*\(choices: plain, residual, dense, unetrpp, timm:NAME\)"),
    ],
)
def test_an_unknown_timm_model_is_refused(encoder, message):
    with pytest.raises(DecisionError, match=message.replace(" .*", ".*")):
        narrow(Context((4, 32, 32), (8.0, 1.0, 1.0), 1, 2), placement="each", fix={"encoder": encoder}, choices={})


def test_pretrained_weights_are_loaded_by_timm_or_reported_as_missing(monkeypatch):
    """Without internet and without a cache, timm can't load them."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    context = Context((4, 32, 32), (8.0, 1.0, 1.0), 2, 2)
    space = narrow(context, placement="each", fix={"encoder": "timm:resnet18", "pretrained": True}, choices={})
    architecture = space.architecture(space.complete({"levels": 3}))
    assert architecture["pretrained"] is True
    with pytest.raises(
        WeightsUnavailable, match="can't fetch the pretrained weights of resnet18 .*set pretrained: false"
    ):
        load_pretrained_encoders(build(architecture, context), architecture)
    with pytest.raises(WeightsUnavailable):
        fetch("resnet18", 2, levels=2)
    with pytest.raises(UserError, match="can't fetch the pretrained weights of resnet18"):
        require_pretrained(space)
    require_pretrained(narrow(context, placement="each", fix={"pretrained": False}, choices={}))
