"""Joint attention: its special cases, equality with an explicit N x N matrix, no such matrix in memory."""

import pytest
import torch
from torch import Tensor, nn

from blocks.joint import JointAttention
from search.costs.live_bytes import LiveBytes


def build(channels: int, **options) -> JointAttention:
    torch.manual_seed(0)
    block = JointAttention(channels, **options).double()
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.4)
    return block


def explicit(block: JointAttention, x: Tensor, *, alpha: Tensor | float, beta: Tensor | float) -> Tensor:
    """X + (alpha diag(a) + beta A_S) V with both matrices written out."""
    tokens = x.permute(0, 2, 3, 4, 1)
    shape = tokens.shape
    tokens = tokens.flatten(0, 1).flatten(1, 2) if block.axes == "plane" else tokens.flatten(1, 3)
    matrix = torch.zeros(tokens.shape[0], tokens.shape[1], tokens.shape[1], dtype=x.dtype)
    if block.mode != "self":
        matrix = matrix + alpha * torch.diag_embed(block.gate(tokens).sigmoid()[:, :, 0])
    if block.mode != "pointwise":
        logits = block.query(tokens) @ block.key(tokens).transpose(1, 2)
        matrix = matrix + beta * logits.softmax(dim=2)
    return (tokens + matrix @ block.value(tokens)).reshape(shape).permute(0, 4, 1, 2, 3)


each_form = pytest.mark.parametrize("mode", ["joint", "pointwise", "self"])
each_axes = pytest.mark.parametrize("axes", ["plane", "volume"])


@each_form
@each_axes
@pytest.mark.parametrize(("channels", "reduction"), [(16, 8), (20, 3), (5, 8), (1, 8), (300, 8)])
def test_equals_the_explicit_matrix_and_its_gradients(mode, axes, channels, reduction):
    block = build(channels, mode=mode, axes=axes, reduction=reduction)
    x = torch.randn(2, channels, 2, 3, 5).double().requires_grad_()
    alpha, beta = getattr(block, "alpha", 0.0), getattr(block, "beta", 0.0)
    leaves = [x, *block.parameters()]
    ours, theirs = block(x), explicit(block, x, alpha=alpha, beta=beta)
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
    gradients = [torch.autograd.grad(y.square().sum(), leaves) for y in (ours, theirs)]
    for mine, reference in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-8, atol=1e-8)


@each_axes
def test_the_single_modes_are_special_cases_of_the_joint_mode(axes):
    block, x = build(16, axes=axes), torch.randn(2, 16, 3, 4, 5).double()
    state = block.state_dict()

    def alone(mode: str) -> Tensor:
        other = JointAttention(16, mode=mode, axes=axes).double()
        other.load_state_dict({key: state[key] for key in other.state_dict()})
        return other(x)

    with torch.no_grad():
        block.beta.zero_()
        torch.testing.assert_close(block(x), alone("pointwise"), rtol=1e-12, atol=1e-12)
        block.alpha.zero_()
        assert torch.equal(block(x), x)
        block.beta.fill_(0.7)
        torch.testing.assert_close(block(x), alone("self"), rtol=1e-12, atol=1e-12)


def test_an_untrained_block_equals_the_gate():
    block = JointAttention(16)
    assert block.alpha.item() == 1.0 and block.beta.item() == 0.0


def test_planes_are_independent_and_attention_is_permutation_equivariant():
    block = build(16, mode="self")
    x = torch.randn(1, 16, 3, 4, 5).double()
    torch.testing.assert_close(block(x)[:, :, 1:2], block(x[:, :, 1:2]), rtol=1e-10, atol=1e-10)
    order = torch.randperm(20)
    shuffled = x.flatten(3)[..., order].unflatten(3, (4, 5))
    expected = block(x).flatten(3)[..., order].unflatten(3, (4, 5))
    torch.testing.assert_close(block(shuffled), expected, rtol=1e-10, atol=1e-10)


def test_parameter_count():
    assert sum(parameter.numel() for parameter in JointAttention(64).parameters()) == 7315


def test_the_attention_matrix_is_never_in_memory():
    block, x = JointAttention(64), torch.randn(1, 64, 1, 64, 64)
    size = x.numel() * x.element_size()
    with torch.no_grad(), LiveBytes().hold(x) as counter:
        block(x)
    assert counter.largest_bytes <= 2 * size and counter.peak_bytes - size <= 6 * size
    cotangent = torch.randn_like(x)
    x.requires_grad_()
    with LiveBytes().hold(x, cotangent) as counter:
        block(x).backward(cotangent)
    assert counter.largest_bytes <= 2 * size and counter.peak_bytes - 2 * size <= 10 * size


def test_invalid_options_are_refused_with_the_reason():
    with pytest.raises(ValueError, match="unknown mode 'both'; choose from joint, pointwise, self"):
        JointAttention(8, mode="both")
    with pytest.raises(ValueError, match="unknown axes 'line'; choose from plane, volume"):
        JointAttention(8, axes="line")
    with pytest.raises(ValueError, match="channels and reduction of at least 1, got 8, 0"):
        JointAttention(8, reduction=0)
