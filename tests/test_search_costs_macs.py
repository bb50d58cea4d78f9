"""Multiply-adds of the published operations, compared with torch's counter and the papers' numbers."""

from contextlib import nullcontext
from random import Random

import pytest
import torch
from literal_forms import make_literal
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from blocks import CSAM, EPA, ISA, EPABlock, JointAttention
from search.costs.abstract import AbstractTensors
from search.costs.block_macs import counted_macs, specs_by_class
from search.costs.macs import count_modules, params_and_macs
from space.architecture import Architecture
from space.build import build
from space.canonical import Context
from space.feasible import why_not
from space.narrow import narrow
from space.presets import PRESETS
from space.specs.epa import epa_macs
from space.unet_axes import ENCODERS

PUBLISHED = {"unetrpp_synapse": 47.47e9, "unetrpp_acdc": 43.41e9, "unetrpp_lung": 124.98e9, "unetrpp_tumor": 72.79e9}
SHAPE = (2, 32, 5, 7, 6)


def macs(block, shape):
    return epa_macs(block, shape) if isinstance(block, EPA) else specs_by_class()[type(block)].macs(block, shape)


def counted(function):
    """Return torch's own count of matrix products and convolutions, in multiply-adds."""
    with FlopCounterMode(display=False) as counter:
        function()
    return counter.get_total_flops() // 2


@pytest.mark.parametrize("name", PUBLISHED)
def test_unetrpp_has_the_published_macs(name):
    _, found = params_and_macs(PRESETS[name].architecture, PRESETS[name].context)
    assert found == pytest.approx(PUBLISHED[name], rel=0.005)
    assert found < PUBLISHED[name]  # which count the deep supervision's heads, unused when segmenting


@pytest.mark.parametrize(
    ("projections", "units", "epa", "block"),
    [
        ("shared", 1, 0.453e9, 2.299e9),
        ("separate", 2, 0.354e9, 3.211e9),
    ],
)
def test_first_stages_have_the_measured_macs(projections, units, epa, block):
    grid = (32, 32, 32) if projections == "shared" else (16, 40, 40)
    with AbstractTensors():
        made = EPABlock(32, grid=grid, projection=64, heads=4, projections=projections, residual_units=units)
    assert macs(made.epa_block, (1, grid[0] * grid[1] * grid[2], 32)) == pytest.approx(epa, rel=0.002)
    assert macs(made, (1, 32, *grid)) == pytest.approx(block, rel=0.001)


@pytest.mark.parametrize("projections", ["shared", "separate", "raw"])
def test_the_macs_of_epa_follow_its_equations(projections):
    batch, tokens, channels, heads, projection = 2, 30, 16, 4, 5
    block = EPA(channels, tokens=tokens, projection=projection, heads=heads, projections=projections)

    def as_written():
        parts = nn.Linear(channels, 4 * channels)(torch.randn(batch, tokens, channels))
        q, k, v, w = parts.reshape(batch, tokens, 4, heads, -1).permute(2, 0, 3, 4, 1)  # (B, heads, d, N) each
        e, f = torch.randn(2, tokens, projection)
        k_few, w_few = k @ e, w @ f
        over_channels = (q @ k.transpose(2, 3)) @ v
        over_tokens = (q.transpose(2, 3) @ k_few) @ w_few.transpose(2, 3)
        assert over_channels.shape[2:] == (channels // heads, tokens) and over_tokens.shape[2] == tokens
        if projections != "raw":
            half = nn.Linear(channels, channels // 2)
            half(torch.randn(batch, tokens, channels)), half(torch.randn(batch, tokens, channels))

    assert macs(block, (batch, tokens, channels)) == counted(as_written)


@pytest.mark.parametrize("axes", ["plane", "volume"])
@pytest.mark.parametrize("mode", ["joint", "pointwise", "self"])
def test_the_macs_of_joint_attention_follow_its_equations(mode, axes):
    block = JointAttention(32, mode=mode, axes=axes)
    groups, positions = (10, 42) if axes == "plane" else (2, 210)

    def as_written():
        x = torch.randn(groups, positions, 32)
        value = block.value(x)
        if mode != "self":
            block.gate(x)
        if mode != "pointwise":
            (block.query(x) @ block.key(x).transpose(1, 2)) @ value

    assert macs(block, SHAPE) == counted(as_written)


@pytest.mark.parametrize("uncertainty", [False, True])
def test_the_macs_of_csam_follow_its_equations(uncertainty):
    block = CSAM(32, slices=5, uncertainty=uncertainty).eval()

    def as_written():
        for _ in range(2):  # maximum and mean
            block.semantic_att.linear(torch.randn(2, 32))
            block.slice_att.linear(torch.randn(2, 5))
        block.positional_att.conv(torch.randn(2, 2, 7, 6))
        if uncertainty:
            hidden = torch.randn(2, 5)
            block.slice_att.mean(hidden), block.slice_att.log_diag(hidden)
            block.slice_att.factor(hidden).reshape(2, 5, 5) @ torch.randn(2, 5, 1)

    assert macs(block, SHAPE) == counted(as_written)
    assert macs(CSAM(32, slices=5, semantic=False, slice=False), SHAPE) == 2 * 98 * 42


class Attend(nn.Module):
    """Self-attention over all voxels, after a linear map."""

    def __init__(self, channels):
        super().__init__()
        self.linear = nn.Linear(channels, channels)

    def forward(self, x):
        tokens = self.linear(x.flatten(2).transpose(1, 2))[:, None]  # (B, 1, N, C)
        return nn.functional.scaled_dot_product_attention(tokens, tokens, tokens)[:, 0].transpose(1, 2).reshape(x.shape)


@pytest.mark.parametrize("tensors", [AbstractTensors, nullcontext])
def test_a_block_without_a_rule_counts_as_torch_counts_it_also_attention_on_a_cpu(tensors):
    batch, channels, *size = SHAPE
    tokens = size[0] * size[1] * size[2]
    with tensors():
        found = counted_macs(Attend(channels), (torch.zeros(SHAPE),))
    assert found == batch * (tokens * channels**2 + 2 * tokens**2 * channels)


def test_isa_counts_one_mask_per_slice_or_one_per_neighbour():
    one_mask = 2 * 32 * 32 * 42
    assert macs(ISA(32), SHAPE) == 5 * one_mask
    assert macs(ISA(32, shared=False), SHAPE) == 8 * one_mask
    assert macs(ISA(32), (2, 32, 1, 7, 6)) == macs(ISA(32, shared=False), (2, 32, 1, 7, 6)) == 0


@pytest.mark.parametrize("upsampling", ["transposed", "nearest", "linear-conv"])
def test_the_macs_of_a_network_equal_torchs_count(upsampling):
    values = {
        "encoder": "residual",
        "channels": (4, 8, 16),
        "kernels": ((1, 3, 3), (3, 3, 3), (3, 3, 3)),
        "repeats": 2,
        "pooling": ((1, 2, 2), (2, 2, 2)),
        "norm": "layer",
        "activation": "gelu",
        "dropout": 0.0,
        "skip": "concat",
        "downsampling": "strided",
        "upsampling": upsampling,
        "deep_supervision": True,
    }
    architecture, context = Architecture.of(values), Context((4, 16, 8), (1.0, 1.0, 1.0), 2, 3)
    network = build(architecture, context).eval()
    with torch.inference_mode():
        wanted = counted(lambda: network(torch.zeros(1, 2, 4, 16, 8)))
    assert params_and_macs(architecture, context)[1] == wanted


def test_the_parts_of_a_network_add_up():
    preset = PRESETS["unetrpp_tumor"]
    with AbstractTensors():
        counts = count_modules(build(preset.architecture, preset.context), preset.context)
    for kind in ("params", "macs"):
        parts = [getattr(count, kind) for name, count in counts.items() if name.count(".") == 0 and name]
        assert sum(parts) == getattr(counts[""], kind)
    assert counts["attention.encoder1.0.conv51"].macs == 0  # counted with its block


def literal_macs(architecture, context):
    """Return torch's count for a network whose blocks run in their literal form."""
    with AbstractTensors():
        network = make_literal(build(architecture, context).eval())
        with torch.no_grad():
            return counted(lambda: network(torch.zeros(1, context.in_channels, *context.patch)))


@pytest.mark.parametrize("name", PRESETS)
def test_the_macs_of_a_papers_network_equal_torchs_count_of_its_literal_form(name):
    preset = PRESETS[name]
    _, macs = params_and_macs(preset.architecture, preset.context)
    assert macs == pytest.approx(literal_macs(preset.architecture, preset.context), rel=0.005)


@pytest.mark.parametrize("number", [*range(20), *(pytest.param(n, marks=pytest.mark.long) for n in range(20, 50))])
def test_the_macs_of_a_random_network_equal_torchs_count_of_its_literal_form(number):
    context = Context((6, 48, 40), (8.0, 1.5, 1.5), 2, 3)
    choices = {"encoder": [*ENCODERS, "timm:resnet18", "timm:convnext_atto"], "levels": [3, 4]}
    space = narrow(context, placement="each", fix={"pretrained": False}, choices=choices)
    rng = Random(number)
    architecture = next(
        each for _ in range(1000) if why_not(each := space.architecture(space.sample(rng)), context) is None
    )
    _, macs = params_and_macs(architecture, context)
    assert macs == pytest.approx(literal_macs(architecture, context), rel=0.005)
