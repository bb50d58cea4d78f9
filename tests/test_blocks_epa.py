"""EPA and its block: the folded form compared with the equations, other grids, forms, counts, memory, messages."""

import pytest
import torch
from bench_blocks import literal_epa
from torch import nn

from blocks.epa import EPA, ORDERS, PROJECTIONS, EPABlock
from search.costs.live_bytes import LiveBytes

GRID = (4, 3, 5)


def randomised(module: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    return module.double()


@pytest.mark.parametrize("tokens", [7, 64, 201])
@pytest.mark.parametrize("heads", [1, 2, 8])
def test_equals_the_papers_equations_and_their_gradients(tokens, heads):
    block = randomised(EPA(16, tokens=tokens, projection=5, heads=heads))
    x = torch.randn(2, tokens, 16).double().requires_grad_()
    leaves = [x, *block.parameters()]
    ours, theirs = block(x), literal_epa(block, x)
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-11)
    gradients = [torch.autograd.grad(y.square().sum(), leaves) for y in (ours, theirs)]
    for mine, reference in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-9, atol=1e-9)


def test_nearly_constant_tokens_stay_finite_and_close_in_float32():
    block = randomised(EPA(16, tokens=64, projection=5, heads=4))
    for spread in (0.0, 1e-3):
        x = (torch.ones(1, 64, 16) + spread * torch.randn(1, 64, 16)).requires_grad_()
        expected = literal_epa(block.double(), x.double())
        y = block.float()(x)
        torch.testing.assert_close(y, expected.float(), rtol=1e-4, atol=1e-4)
        y.sum().backward()
        assert x.grad.isfinite().all()
    zeros = torch.zeros(1, 64, 16, requires_grad=True)
    block(zeros).sum().backward()
    assert zeros.grad.isfinite().all()


@pytest.mark.parametrize("projections", PROJECTIONS)
@pytest.mark.parametrize("order", ORDERS)
def test_at_the_built_grid_resampling_is_the_identity(projections, order):
    block = randomised(EPABlock(16, grid=GRID, projection=6, heads=4, projections=projections, order=order)).eval()
    x = torch.randn(2, 16, *GRID).double()
    tokens = x.flatten(2).transpose(1, 2) + block.pos_embed
    tokens = tokens + block.gamma * block.epa_block(block.norm(tokens))
    volume = tokens.transpose(1, 2).unflatten(2, GRID)
    torch.testing.assert_close(block(x), volume + block.conv8(block.conv51(volume)), rtol=1e-12, atol=1e-12)


def test_a_finer_grid_sums_the_tokens_to_the_same_scale():
    block = randomised(EPABlock(16, grid=GRID, projection=6, heads=4))
    finer = tuple(2 * size for size in GRID)
    weights = block._resample(torch.ones(6, 60).double(), finer) * (60 / 480)
    torch.testing.assert_close(weights.sum(dim=1), torch.full((6,), 60.0).double())
    smooth = torch.linspace(0, 1, 4).double()[:, None, None].expand(GRID).reshape(1, -1)
    resampled = block._resample(smooth, (8, 3, 5)).reshape(8, 3, 5)[:, 0, 0]
    assert (resampled.diff() >= 0).all() and resampled[0] == 0 and resampled[-1] == 1


def test_corrected_order_is_equivariant_to_tokens_and_the_released_one_is_not():
    x = torch.randn(1, 24, 16).double()
    order = torch.randperm(24)
    for name in ORDERS:
        block = randomised(EPA(16, tokens=24, projection=6, heads=4, order=name))
        permuted = EPA(16, tokens=24, projection=6, heads=4, order=name).double()
        permuted.load_state_dict(block.state_dict())
        with torch.no_grad():
            permuted.E.weight.copy_(block.E.weight[:, order])
        same = torch.allclose(permuted(x[:, order]), block(x)[:, order], rtol=1e-9, atol=1e-9)
        assert same == (name == "corrected")


def test_the_shared_projection_is_one_tensor_under_two_names():
    block = EPA(16, tokens=24, projection=6, heads=4)
    assert block.E is block.F and {"E.weight", "F.weight"} < set(block.state_dict())


@pytest.mark.parametrize(
    ("grid", "form", "units", "attention", "whole"),
    [((32, 32, 32), "shared", 1, 2_102_376, 3_207_528), ((16, 40, 40), "separate", 2, 3_282_088, 4_213_288)],
)
def test_parameter_counts_equal_the_released_ones(grid, form, units, attention, whole):
    with torch.device("meta"):
        block = EPABlock(32, grid=grid, projection=64, heads=4, projections=form, residual_units=units)
    assert sum(parameter.numel() for parameter in block.epa_block.parameters()) == attention
    assert sum(parameter.numel() for parameter in block.parameters()) == whole


def test_dropout_is_active_only_in_training():
    block = randomised(EPABlock(16, grid=GRID, projection=6, heads=4, dropout=0.15))
    x = torch.randn(2, 16, *GRID).double()
    assert not torch.equal(block(x), block(x))
    block.eval()
    assert torch.equal(block(x), block(x))
    assert block.conv8[0].p == 0.1
    assert EPABlock(16, grid=GRID, projection=6, heads=4).conv8[0].p == 0.0


def test_memory_stays_within_the_limits_relative_to_the_plain_equations():
    block, x = EPA(32, tokens=4096, projection=64, heads=4), torch.randn(1, 4096, 32)
    cotangent = torch.randn_like(x)

    def peak(run, *, backward: bool) -> int:
        leaf = x.detach().requires_grad_(backward)
        block.zero_grad()
        with torch.set_grad_enabled(backward), LiveBytes().hold(leaf, cotangent) as counter:
            out = run(leaf)
            if backward:
                out.backward(cotangent)
        return counter.peak_bytes

    for backward, limit in ((False, 0.4), (True, 0.7)):
        ours = peak(block, backward=backward)
        assert ours <= limit * peak(lambda leaf: literal_epa(block, leaf), backward=backward)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": 3}, "heads must divide its channels, got 3 heads and 16 channels"),
        ({"projection": 61}, "from 1 to its number of tokens, got 61 and 60 tokens"),
        ({"projections": "both"}, "unknown projections 'both'; choose from shared, separate, raw"),
        ({"order": "random"}, "unknown order 'random'; choose from released, corrected"),
        ({"dropout": -0.1}, "dropout is a probability below 1, got -0.1"),
        ({"residual_units": 3}, "1 or 2 residual units, got 3"),
        ({"grid": (4, 0, 5)}, r"3 sizes of at least 1, got \(4, 0, 5\)"),
    ],
)
def test_invalid_options_are_refused_with_the_reason(options, message):
    with pytest.raises(ValueError, match=message):
        EPABlock(16, **{"grid": GRID, "projection": 6, "heads": 4, **options})


def test_other_invalid_options_are_refused_with_the_reason():
    with pytest.raises(ValueError, match="must be even, got 15"):
        EPA(15, tokens=24, projection=6, heads=3)
    with pytest.raises(ValueError, match=r"EPA expects \(B, 24, 16\), got \(1, 25, 16\)"):
        EPA(16, tokens=24, projection=6, heads=4)(torch.zeros(1, 25, 16))
    block = EPABlock(16, grid=(1, 1, 1), projection=1, heads=4)
    with pytest.raises(ValueError, match=r"more than 1 value per channel, got the shape \(1, 16, 1, 1, 1\)"):
        block(torch.zeros(1, 16, 1, 1, 1))


@pytest.mark.parametrize("projections", ["shared", "separate", "raw"])
def test_a_single_branch_equals_that_branch_of_both(projections):
    options = {"tokens": 30, "heads": 2, "projections": projections, "order": "corrected"}
    both = EPA(8, projection=7, **options)
    space = EPA(8, projection=7, branches="spatial", **options)
    channel = EPA(8, branches="channel", **options)
    query, key, of_channel, of_space = both.qkvv.weight.detach().chunk(4)
    with torch.no_grad():
        space.qkvv.weight.copy_(torch.cat([query, key, of_space]))
        channel.qkvv.weight.copy_(torch.cat([query, key, of_channel]))
        for alone, name in ((space, "out_proj"), (channel, "out_proj2")):
            if projections != "raw":  # alone as wide as the channels: the first half of them is that of both
                getattr(alone, name).weight[:4].copy_(getattr(both, name).weight)
                getattr(alone, name).bias[:4].copy_(getattr(both, name).bias)
        for name, value in space.state_dict().items():
            if name.partition(".")[0] in ("E", "F", "EF"):
                value.copy_(both.state_dict()[name])
    x = torch.randn(2, 30, 8)
    if projections == "raw":
        torch.testing.assert_close(space(x) + channel(x), both(x))
    else:
        torch.testing.assert_close(torch.cat([space(x)[..., :4], channel(x)[..., :4]], dim=2), both(x))
    made = [sum(value.numel() for value in block.parameters()) for block in (both, space, channel)]
    assert made[2] < made[1] < made[0]


def test_an_unknown_branch_is_refused():
    with pytest.raises(ValueError, match="unknown branches 'all'; choose from both, spatial, channel"):
        EPA(8, tokens=30, projection=7, heads=2, branches="all")
