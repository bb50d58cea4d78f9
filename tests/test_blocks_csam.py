"""CSAM: the fast gates compared with the plain equations, other depths, the uncertain gate, memory, messages."""

import pytest
import torch
import torch.nn.functional as F
from bench_blocks import literal_csam
from torch import nn

from blocks.csam import CSAM, PositionalGate, SemanticGate, SliceGate, _gated_plainly
from search.costs.live_bytes import LiveBytes


def randomised(module: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    return module.double()


FLAGS = [(a, b, c) for a in (True, False) for b in (True, False) for c in (True, False) if a or b or c]


@pytest.mark.parametrize("flags", FLAGS)
@pytest.mark.parametrize("depth", [1, 3, 5])
@pytest.mark.parametrize("channels", [16, 37])
def test_equals_the_plain_equations_and_their_gradients(flags, depth, channels):
    semantic, positional, slices = flags
    block = randomised(CSAM(channels, slices=3, semantic=semantic, positional=positional, slice=slices))
    x = torch.randn(2, channels, depth, 4, 3).double().requires_grad_()
    gates = {"semantic": block.semantic_att, "positional": block.positional_att, "slices": block.slice_att}
    ours, theirs = block(x), _gated_plainly(x, noise=None, **gates)
    torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-12)
    leaves = [x, *block.parameters()]
    gradients = [torch.autograd.grad(y.square().sum(), leaves) for y in (ours, theirs)]
    for mine, reference in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("freeze", ["input", "weights"])
def test_gradients_are_equal_if_a_side_needs_none(freeze):
    block = randomised(CSAM(16, slices=3))
    x = torch.randn(1, 16, 3, 4, 3).double().requires_grad_()
    full = torch.autograd.grad(block(x).square().sum(), [x, *block.parameters()])
    if freeze == "input":
        part = torch.autograd.grad(block(x.detach()).square().sum(), list(block.parameters()))
        expected = full[1:]
    else:
        part, expected = torch.autograd.grad(block.requires_grad_(False)(x).square().sum(), [x]), full[:1]
    for mine, reference in zip(part, expected, strict=True):
        torch.testing.assert_close(mine, reference)


def test_tied_maxima_give_the_gradient_to_one_of_them():
    block = randomised(CSAM(16, slices=2))
    x = torch.zeros(1, 16, 2, 3, 3).double().requires_grad_()
    block(x).sum().backward()
    assert x.grad.isfinite().all()
    torch.testing.assert_close(x.grad.sum(), _numerical_shift(block, x), rtol=1e-5, atol=1e-7)


def _numerical_shift(block: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """The derivative of the sum with respect to a shift of all values, which moves no maximum."""
    with torch.no_grad():
        return (block(x + 1e-6).sum() - block(x - 1e-6).sum()) / 2e-6


def test_each_gate_works_alone():
    x = torch.randn(2, 32, 4, 5, 3)
    assert SemanticGate(32)(x).shape == PositionalGate()(x).shape == SliceGate(4)(x).shape == x.shape
    whole = CSAM(32, slices=4).eval()
    in_turn = whole.slice_att(whole.positional_att(whole.semantic_att(x)))
    torch.testing.assert_close(whole(x), in_turn)
    names = set(whole.state_dict())
    assert {"semantic_att.linear.0.weight", "positional_att.conv.bias", "slice_att.linear.2.bias"} < names


def test_another_depth_is_interpolated_and_the_built_depth_is_unchanged():
    gate = randomised(SliceGate(6)).eval()
    maximum, mean = torch.randn(2, 6).double(), torch.randn(2, 6).double()
    expected = torch.sigmoid(gate.linear(maximum) + gate.linear(mean))
    torch.testing.assert_close(gate.gate(maximum, mean), expected, rtol=1e-12, atol=1e-12)
    coarse = [descriptor.unflatten(1, (3, 2)).mean(dim=2) for descriptor in (maximum, mean)]
    fine = [F.interpolate(descriptor[:, None], size=6, mode="linear")[:, 0] for descriptor in coarse]
    expected = torch.sigmoid(gate.linear(fine[0]) + gate.linear(fine[1])).unflatten(1, (3, 2)).mean(dim=2)
    torch.testing.assert_close(gate.gate(*coarse), expected, rtol=1e-12, atol=1e-12)  # 6 -> 3 averages pairs


def test_the_uncertain_gate_samples_in_training_learns_and_is_deterministic_in_eval():
    block = randomised(CSAM(16, slices=4, uncertainty=True, rank=3))
    x = torch.randn(2, 16, 4, 5, 3).double()
    assert not torch.equal(block(x), block(x))
    torch.manual_seed(3)
    first = block(x)
    torch.manual_seed(3)
    assert torch.equal(first, block(x))
    first.square().sum().backward()
    uncertain = [parameter for name, parameter in block.named_parameters() if name.startswith("slice_att")]
    assert len(uncertain) == 10 and all(parameter.grad.abs().max() > 0 for parameter in uncertain)
    block.eval()
    assert torch.equal(block(x), block(x))
    zeros = (torch.zeros(2, 3).double(), torch.zeros(2, 4).double())
    torch.testing.assert_close(block(x), block(x, noise=zeros), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("slices", "plain", "uncertain"), [(20, 3300, 6240), (10, 850, 1620), (32, 8352, 15744)])
def test_parameter_counts(slices, plain, uncertain):
    count = lambda module: sum(parameter.numel() for parameter in module.parameters())  # noqa: E731
    assert count(SliceGate(slices)) == plain
    assert count(SliceGate(slices, uncertainty=True)) == uncertain
    assert count(PositionalGate()) == 99
    assert [count(SemanticGate(channels)) for channels in (16, 64, 1024)] == [49, 580, 132160]


def test_memory_stays_within_the_limits_relative_to_the_plain_equations():
    block, x = CSAM(64, slices=20), torch.randn(1, 64, 20, 32, 32)
    cotangent = torch.randn_like(x)

    def peak(run, *, backward: bool) -> int:
        leaf = x.detach().requires_grad_(backward)
        block.zero_grad()
        with torch.set_grad_enabled(backward), LiveBytes().hold(leaf, cotangent) as counter:
            out = run(leaf)
            if backward:
                out.backward(cotangent)
        return counter.peak_bytes - (0 if backward else x.numel() * x.element_size())

    for backward in (False, True):
        ours = peak(block, backward=backward)
        assert ours <= 0.7 * peak(lambda leaf: literal_csam(block, leaf), backward=backward)


def test_invalid_options_are_refused_with_the_reason():
    with pytest.raises(ValueError, match=r"at least 16 channels, got 8: its hidden layer has channels // 16 = 0"):
        CSAM(8, slices=4)
    assert CSAM(8, slices=4, semantic=False)(torch.randn(1, 8, 4, 3, 3)).shape == (1, 8, 4, 3, 3)
    with pytest.raises(ValueError, match="at least 1 slice, got slices=0"):
        CSAM(16, slices=0)
    with pytest.raises(ValueError, match="covariance is at least 1, got 0"):
        CSAM(16, slices=4, uncertainty=True, rank=0)
    with pytest.raises(ValueError, match="at least one of the gates"):
        CSAM(16, slices=4, semantic=False, positional=False, slice=False)
    with pytest.raises(ValueError, match=r"SemanticGate expects \(B, 16, D, H, W\), got \(1, 17, 2, 2, 2\)"):
        SemanticGate(16)(torch.zeros(1, 17, 2, 2, 2))
    with pytest.raises(ValueError, match=r"PositionalGate expects \(B, C, D, H, W\), got \(1, 17, 2, 2\)"):
        PositionalGate()(torch.zeros(1, 17, 2, 2))
    with pytest.raises(ValueError, match=r"SliceGate expects \(B, C, D, H, W\), got \(5, 2\)"):
        SliceGate(5)(torch.zeros(5, 2))
