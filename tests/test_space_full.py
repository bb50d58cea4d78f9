"""The whole space: any point builds or is refused with the reason, trains, and has one spelling."""

import hashlib
from random import Random

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from search.config.training_section import Training
from search.costs.abstract import AbstractTensors
from search.costs.macs import params_and_macs
from search.training.schemes import make_phases
from space.architecture import Architecture
from space.build import Refused, build
from space.canonical import Context
from space.feasible import why_not
from space.narrow import narrow
from space.unet_axes import ENCODERS

THICK = Context(patch=(5, 33, 28), spacing=(8.0, 1.5, 1.5), in_channels=2, classes=3)
CUBIC = Context(patch=(16, 16, 18), spacing=(1.0, 1.0, 1.0), in_channels=1, classes=4)
FLAT = Context(patch=(1, 40, 33), spacing=(5.0, 1.0, 1.0), in_channels=1, classes=2)
LARGE = Context((64, 64, 64), (1.0, 1.0, 1.0), 1, 2)
CONTEXTS = (THICK, CUBIC, FLAT)
TIMM = ("timm:resnet18", "timm:mobilenetv4_conv_small")
NARROW = {"pretrained": False, "repeats": 1, "width_cap": 32}
EPA = [4, 8]


def space_of(context, placement="each"):
    """The full space with few channels, for fast steps."""
    choices = {"encoder": [*ENCODERS, *TIMM], "levels": [3, 4], "width": [4, 16], "epa.projection": EPA}
    return narrow(context, placement=placement, fix=NARROW, choices=choices)


SPACES = {context: space_of(context) for context in CONTEXTS}


def one_step(network, context):
    """Sum the gradients of one step of each phase."""
    training = Training(patch=context.patch, batch=2, precision="float32")
    for phase in make_phases(network.train(), patch=context.patch, training=training):
        phase.trained.zero_grad()
        images = torch.randn(2, context.in_channels, *phase.patch)
        labels = torch.randint(0, context.classes, (2, 1, *phase.patch)).float()
        assert phase.add_gradients(images, labels).isfinite()


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 2**32), context=st.sampled_from(CONTEXTS))
def test_any_point_trains_at_odd_sizes_or_is_refused_with_the_reason(seed, context):
    torch.manual_seed(0)
    architecture = SPACES[context].architecture(SPACES[context].sample(Random(seed)))
    if why_not(architecture, context):
        with pytest.raises(Refused):
            build(architecture, context)
        return
    network = build(architecture, context)
    one_step(network, context)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    assert sum(p.numel() for p in network.parameters()) == params_and_macs(architecture, context)[0]
    other = torch.randn(1, context.in_channels, 3, 37, 45)
    with torch.inference_mode():
        assert network.eval()(other).shape == (1, context.classes, 3, 37, 45)


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**32), context=st.sampled_from(CONTEXTS))
def test_any_point_survives_json_and_completes_to_itself(seed, context):
    space = SPACES[context]
    decisions = space.sample(Random(seed))
    architecture = space.architecture(decisions)
    assert Architecture.from_json(architecture.to_json()) == architecture
    assert space.complete(decisions) == decisions
    assert architecture.describe()


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_neighbours_differ_in_exactly_one_decision(seed):
    space = SPACES[THICK]
    decisions = space.sample(Random(seed))
    for other in space.neighbours(decisions):
        shared = decisions.keys() & other.keys()
        assert sum(decisions[name] != other[name] for name in shared) == 1
        assert list(other) == [axis.name for axis in space.open_axes(other)]


def signature(architecture, context):
    """Return the graph of one training step: operators, their connections, shapes and plain arguments."""
    seen: dict[int, int] = {}
    alive, lines = [], []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            flat = [*tree_flatten((args, kwargs))[0], *tree_flatten(out)[0]]
            alive.append(flat)  # so that no identity is used twice
            described = [
                (seen.setdefault(id(v), len(seen)), tuple(v.shape)) if isinstance(v, torch.Tensor) else str(v)
                for v in flat
            ]
            lines.append(f"{func} {described}")
            return out

    with AbstractTensors():
        network = build(architecture, context)
        training = Training(patch=context.patch, batch=2, precision="float32")
        with Watch():
            for phase in make_phases(network.train(), patch=context.patch, training=training):
                phase.add_gradients(torch.zeros(2, context.in_channels, *phase.patch), torch.zeros(2, 1, *phase.patch))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


@pytest.mark.parametrize("context", [THICK, CUBIC], ids=["thick", "cubic"])
def test_different_fingerprints_give_different_graphs(context):
    """Check some points and their neighbours: two spellings of one network would differ in one decision."""
    rng, graphs = Random(3), {}
    space = SPACES[context]
    for _ in range(2):
        decisions = space.sample(rng)
        others = list(space.neighbours(decisions))
        for each in (decisions, *rng.sample(others, min(10, len(others)))):
            architecture = space.architecture(each)
            if why_not(architecture, context) is None:
                made = graphs.setdefault(signature(architecture, context), architecture)
                assert made == architecture, (made.to_json(), architecture.to_json())
    assert len(graphs) > 6


def test_equal_networks_have_equal_fingerprints():
    space = narrow(FLAT, placement="each", fix={}, choices={})
    plain = space.architecture(space.complete({"levels": 3}))
    for same in (
        {"attention@skip0": "isa"},  # a single slice has no neighbours
        {"stages": "single", "stem_stride": 1},
    ):
        assert space.architecture(space.complete({"levels": 3, **same})) == plain, same
    joint = {"levels": 3, "attention@bottleneck": "joint"}
    one, other = ({**joint, "joint.axes@bottleneck": axes} for axes in ("plane", "volume"))
    assert space.architecture(space.complete(one)) == space.architecture(space.complete(other))
    dense = {"levels": 3, "encoder": "dense", "repeats": 1}
    one, other = (space.architecture(space.complete({**dense, "encoder": name})) for name in ("dense", "plain"))
    assert one == other


@pytest.mark.parametrize(
    ("context", "decisions", "message"),
    [
        (THICK, {"attention@skip0": "joint", "joint.axes@skip0": "volume"}, ""),
        (
            LARGE,
            {"attention@skip0": "joint", "joint.axes@skip0": "volume"},
            r"joint at skip0 has 262144 tokens \(64x64x64\) in one attention, over 32768",
        ),
        (
            LARGE,
            {"attention@skip0": "epa"},
            r"epa at skip0 has 262144 tokens \(64x64x64\) with own weights, over 131072",
        ),
        (
            CUBIC,
            {"attention@bottleneck": "epa", "epa.heads@bottleneck": 3},
            "32 channels, not a multiple of its 3 heads",
        ),
        (
            LARGE,
            {"encoder": "unetrpp", "stages": "two-patch"},
            "two-patch training needs a level that reads the first level: unetrpp has none",
        ),
        (LARGE, {"encoder": "unetrpp", "stages": "cascade", "cascade.levels": "finest"}, "unetrpp has none"),
        (
            LARGE,
            {"encoder": "unetrpp", "stages": "cascade", "cascade.first": (1.0,)},
            "unetrpp has no decoder unit below full resolution that predictions could join: use cascade.levels finest",
        ),
    ],
)
def test_a_network_that_cannot_be_built_is_refused_with_the_numbers(context, decisions, message):
    space = narrow(context, placement="each", fix={"levels": 3, "width": 8}, choices={"epa.heads": [4, 3]})
    reason = why_not(space.architecture(space.complete(decisions)), context) or ""
    assert bool(reason) == bool(message)
    if message:
        with pytest.raises(Refused, match=message):
            build(space.architecture(space.complete(decisions)), context)
