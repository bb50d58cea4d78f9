"""The space: decisions, architectures, networks."""

from random import Random

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from space.architecture import Architecture, places
from space.axes import DecisionError
from space.build import Refused, build
from space.canonical import Context
from space.feasible import why_not
from space.narrow import narrow
from space.pooling import kernels_from_spacing, level_sizes, pooling_from_spacing

THICK = Context(patch=(5, 33, 28), spacing=(8.0, 1.5, 1.5), in_channels=2, classes=3)
CUBIC = Context(patch=(16, 16, 16), spacing=(1.0, 1.0, 1.0), in_channels=1, classes=4)
SMALL = {"levels": 3, "width": 16, "width_cap": 32, "repeats": 1}
FULL = narrow(THICK, placement="each", fix={}, choices={})


def spaces(context=THICK, **fix):
    return narrow(context, placement="each", fix={**SMALL, **fix}, choices={})


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 2**32), context=st.sampled_from([THICK, CUBIC]))
def test_any_sampled_architecture_builds_or_says_why_and_keeps_odd_sizes(seed, context):
    space = spaces(context)
    architecture = space.architecture(space.sample(Random(seed)))
    if why_not(architecture, context):
        with pytest.raises(Refused):
            build(architecture, context)
        return
    network = build(architecture, context)
    x = torch.randn(2, context.in_channels, *context.patch)
    outputs = network.train().supervised(x)
    assert outputs[0].shape == (2, context.classes, *context.patch)
    sum(output.sum() for output in outputs).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    other = torch.randn(1, context.in_channels, 3, 21, 19)
    with torch.inference_mode():
        assert network.eval()(other).shape == (1, context.classes, 3, 21, 19)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_a_sampled_architecture_survives_json_and_completes_to_itself(seed):
    decisions = FULL.sample(Random(seed))
    architecture = FULL.architecture(decisions)
    again = Architecture.from_json(architecture.to_json())
    assert again == architecture and again.fingerprint == architecture.fingerprint
    assert hash(again) == hash(architecture)
    assert FULL.complete(decisions) == decisions


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_neighbours_differ_in_one_decision_and_hold_exactly_the_open_axes(seed):
    decisions = FULL.sample(Random(seed))
    for other in FULL.neighbours(decisions):
        shared = decisions.keys() & other.keys()
        assert sum(decisions[name] != other[name] for name in shared) == 1
        assert list(other) == [axis.name for axis in FULL.open_axes(other)]


def test_crossover_takes_each_decision_from_a_parent():
    one, other = FULL.sample(Random(1)), FULL.sample(Random(2))
    child = FULL.crossover(one, other, Random(3))
    for name, value in child.items():
        held = [parent[name] for parent in (one, other) if name in parent]
        assert not held or value in held


@pytest.mark.parametrize("placement", ["each", "tied"])
def test_the_size_is_counted_without_enumerating(placement):
    fix = {name: FULL.by_name[name].choices[0] for name in ("width", "growth", "kernels", "norm", "activation",
           "dropout", "downsampling", "upsampling", "skip", "deep_supervision", "encoder", "repeats")}  # fmt: skip
    fix |= {"attention@encoders": "none", "attention@decoders": "none", "csam.positional": True}
    space = narrow(THICK, placement=placement, fix=fix, choices={"levels": [3, 4]})
    listed = [tuple(decisions.items()) for decisions in space.enumerate()]
    assert space.size == len(listed) == len(set(listed))


def test_what_does_not_reach_the_network_is_not_written():
    space = narrow(CUBIC, placement="each", fix={}, choices={})
    partial = {"levels": 3, "attention@skip0": "csam", "csam.semantic@skip0": False,
               "csam.positional@skip0": False, "csam.slice@skip0": False}  # fmt: skip
    without = space.architecture(space.complete(partial))
    assert without == space.architecture(space.complete({"levels": 3}))
    explicit = space.architecture(space.complete({"levels": 3, "kernels": "3d"}))
    assert explicit.fingerprint == space.architecture(space.complete({"levels": 3, "kernels": "auto"})).fingerprint
    capped = narrow(CUBIC, placement="each", fix={"width_cap": 16, "levels": 3}, choices={"growth": [2, 4]})
    widths = {
        capped.architecture(d)["channels"] for d in (capped.complete({"width": 16, "growth": g}) for g in (2.0, 4.0))
    }
    assert widths == {(16, 16, 16)}


def test_tied_places_hold_one_block_and_each_level_is_written():
    space = narrow(CUBIC, placement="tied", fix={"levels": 4, "width": 16}, choices={})
    architecture = space.architecture(space.complete({"attention@skips": "csam"}))
    assert architecture.attention() == {"skip2": "csam", "skip1": "csam", "skip0": "csam"}
    assert architecture.options("skip1") == {
        "semantic": True,
        "positional": True,
        "slice": True,
        "uncertainty": False,
    }


def test_different_fingerprints_give_different_graphs():
    space = spaces(CUBIC, norm="instance", activation="relu", dropout=0.0)
    seen = {}
    rng = Random(0)
    for _ in range(12):
        architecture = space.architecture(space.sample(rng))
        if why_not(architecture, CUBIC):
            continue
        network = build(architecture, CUBIC).eval()
        program = torch.export.export(network, (torch.randn(1, 1, *CUBIC.patch),))
        shapes = sorted(tuple(p.shape) for p in network.parameters())
        graph = (str([node.target for node in program.graph.nodes]), str(shapes), architecture["pooling"],
                 architecture["kernels"], architecture["deep_supervision"])  # fmt: skip
        assert seen.setdefault(graph, architecture.fingerprint) == architecture.fingerprint


def test_thick_slices_are_not_pooled_until_voxels_are_near_isotropic():
    pooling = pooling_from_spacing((12, 128, 128), spacing=(10.0, 1.5625, 1.5625), levels=5)
    assert pooling == ((1, 2, 2), (1, 2, 2), (2, 2, 2), (1, 2, 2))
    kernels = kernels_from_spacing((10.0, 1.5625, 1.5625), pooling=pooling)
    assert kernels == ((1, 3, 3), (1, 3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3))
    assert level_sizes((7, 33, 1), ((1, 2, 2), (2, 2, 1))) == ((7, 33, 1), (7, 17, 1), (4, 9, 1))


def test_places_are_named_as_data_meets_them():
    assert places(3) == ("encoder0", "encoder1", "bottleneck", "skip1", "skip0", "decoder1", "decoder0")


def test_what_cannot_be_built_says_why():
    space = narrow(CUBIC, placement="each", fix={"width": 8, "levels": 3}, choices={})
    with pytest.raises(Refused, match="csam at skip0 has 8 channels: its semantic gate needs 16 or more"):
        build(space.architecture(space.complete({"attention@skip0": "csam"})), CUBIC)
    tiny = Context((4, 8, 8), (1.0, 1.0, 1.0), 1, 2)
    space = narrow(tiny, placement="each", fix={"levels": 4}, choices={})
    with pytest.raises(Refused, match="a patch of 4x8x8 is too small for 4 levels: level 2 pools no axis"):
        build(space.architecture(space.complete({})), tiny)


@pytest.mark.parametrize(
    ("fix", "choices", "message"),
    [
        ({"encodr": "plain"}, {}, "no axis is called 'encodr'; did you mean 'encoder'"),
        ({"encoder": "plian"}, {}, "'plian' is not a choice; did you mean 'plain'"),
        ({"width": 0}, {}, "0 is not a whole number from 1 to 1024"),
        ({"dropout": True}, {}, "True is not a number from 0 to 0.9"),
        ({}, {"attention@skips": []}, "an empty list leaves nothing to choose"),
        ({"width": 8}, {"width": [8, 16]}, "'width' is fixed already"),
        ({"deep_supervision": 1}, {}, "1 is not a choice"),
    ],
)
def test_a_wrong_narrowing_is_named(fix, choices, message):
    with pytest.raises(DecisionError, match=message.replace("(", r"\(")):
        narrow(CUBIC, placement="each", fix=fix, choices=choices)


def test_the_narrower_name_wins():
    space = narrow(CUBIC, placement="each", fix={"attention": "none", "attention@skip1": "isa"},
                   choices={"attention@skips": ["none", "csam"]})  # fmt: skip
    assert space.by_name["attention@encoder0"].choices == ("none",)
    assert space.by_name["attention@skip0"].choices == ("none", "csam")
    assert space.by_name["attention@skip1"].choices == ("isa",)
    assert "csam.slice@skip1" not in space.by_name and "csam.slice@skip0" in space.by_name


def test_completing_names_every_unknown_axis_and_value():
    with pytest.raises(DecisionError) as error:
        FULL.complete({"depth": 3, "encoder": "vgg"})
    assert [name for name, _ in error.value.problems] == ["depth", "encoder"]


def test_an_architecture_is_described_in_a_line():
    space = narrow(CUBIC, placement="each", fix={"levels": 3, "width": 16, "repeats": 2}, choices={})
    partial = {"attention@skip0": "csam", "csam.positional@skip0": False, "attention@bottleneck": "isa"}
    described = space.architecture(space.complete(partial)).describe()
    assert described == "plain x2 16-32-64; isa(shared) at bottleneck; csam(semantic+slice) at skip0"
    assert space.architecture(space.complete({})).describe() == "plain x2 16-32-64; no attention"
