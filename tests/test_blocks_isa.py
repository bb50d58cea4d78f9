"""ISA: its equation slice by slice, the pruned ends, the sign property."""

import pytest
import torch
from torch import Tensor, nn

from blocks.isa import ISA


def slice_by_slice(block: ISA, x: Tensor) -> Tensor:
    """The paper's equations, slice by slice, without the missing branch."""
    previous = (block.conv if block.shared else block.conv_previous)(x).sigmoid()
    following = (block.conv if block.shared else block.conv_next)(x).sigmoid()
    out = []
    for index in range(x.shape[2]):
        here = x[:, :, index]
        total = here
        if index > 0:
            total = total + previous[:, :, index - 1] * here
        if index + 1 < x.shape[2]:
            total = total + following[:, :, index + 1] * here
        out.append(total)
    return torch.stack(out, dim=2)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("depth", [1, 2, 3, 7])
@pytest.mark.parametrize("channels", [1, 5, 19])
def test_equals_the_equations_and_their_gradients(shared, depth, channels):
    torch.manual_seed(0)
    block = ISA(channels, shared=shared).double()
    x = torch.randn(2, channels, depth, 3, 4).double().requires_grad_()
    leaves = [x, *block.parameters()]
    ours, theirs = block(x), slice_by_slice(block, x)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    gradients = [torch.autograd.grad(y.square().sum(), leaves, allow_unused=True) for y in (ours, theirs)]
    for mine, reference in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, torch.zeros_like(mine) if reference is None else reference)


def test_one_slice_passes_unchanged():
    x = torch.randn(2, 4, 1, 5, 3)
    assert torch.equal(ISA(4)(x), x)


def test_the_ends_have_one_mask():
    block = ISA(3)
    nn.init.zeros_(block.conv.weight)
    nn.init.zeros_(block.conv.bias)  # every mask is 0.5
    ratio = block(torch.ones(1, 3, 4, 2, 2))[0, 0, :, 0, 0]
    torch.testing.assert_close(ratio, torch.tensor([1.5, 2.0, 2.0, 1.5]))


def test_signs_never_change_so_one_channel_logits_give_the_same_mask():
    torch.manual_seed(0)
    block = ISA(1)
    nn.init.normal_(block.conv.weight, std=5.0)
    logits = torch.randn(2, 1, 6, 5, 7)
    assert torch.equal(block(logits).sign(), logits.sign())
    features = torch.randn(2, 8, 6, 5, 7)
    head, wide = nn.Conv3d(8, 1, 1), ISA(8)
    assert not torch.equal(head(wide(features)) > 0, head(features) > 0)


@pytest.mark.parametrize(("channels", "parameters"), [(1, 2), (64, 4160)])
def test_parameter_counts(channels, parameters):
    for shared, factor in ((True, 1), (False, 2)):
        assert sum(p.numel() for p in ISA(channels, shared=shared).parameters()) == factor * parameters


def test_invalid_options_are_refused_with_the_reason():
    with pytest.raises(ValueError, match="ISA needs at least 1 channel, got 0"):
        ISA(0)
