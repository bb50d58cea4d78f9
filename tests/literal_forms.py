"""The attention blocks as written in their papers, without optimisations: for benchmarks and for published counts."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blocks.csam import CSAM
from blocks.epa import EPA, EPABlock
from blocks.isa import ISA
from blocks.joint import JointAttention


def literal_epa(block: EPA, x: Tensor) -> Tensor:
    """UNETR++'s equations as in the released code, or those of one branch alone."""
    batch, tokens, channels = x.shape
    parts = block.qkvv(x).reshape(batch, tokens, -1, block.heads, channels // block.heads).permute(2, 0, 3, 1, 4)
    q, k, *values = (part.transpose(-2, -1) for part in parts)
    q_n, k_n = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
    branches = []
    if block.branches != "channel":
        v_sa = values[-1]
        k_p, v_p = (k @ block.EF, v_sa @ block.EF) if block.projections == "raw" else (block.E(k), block.F(v_sa))
        space = (q_n.transpose(-2, -1) @ k_p * block.temperature2).softmax(dim=-1) @ v_p.transpose(-2, -1)
        order = (0, 3, 1, 2) if block.order == "released" else (0, 2, 1, 3)
        space = space.permute(order).reshape(batch, tokens, channels)
        branches.append(space if block.projections == "raw" else block.out_proj(space))
    if block.branches != "spatial":
        channel = (q_n @ k_n.transpose(-2, -1) * block.temperature).softmax(dim=-1) @ values[0]
        channel = channel.permute(0, 3, 1, 2).reshape(batch, tokens, channels)
        branches.append(channel if block.projections == "raw" else block.out_proj2(channel))
    if len(branches) == 2 and block.projections == "raw":
        return branches[0] + branches[1]
    return torch.cat(branches, dim=-1)


def _literal_max(x: Tensor, dims: tuple[int, ...]) -> Tensor:
    for dim in dims:
        x = x.max(dim=dim, keepdim=True).values
    return x


def literal_csam(block: CSAM, x: Tensor) -> Tensor:
    """CSAM's gates as in the released code, at the built number of slices."""
    if block.semantic_att is not None:
        dims, linear = (2, 3, 4), block.semantic_att.linear
        gate = linear(_literal_max(x, dims).flatten(1)) + linear(x.mean(dims))
        x = x * gate.sigmoid()[:, :, None, None, None]
    if block.positional_att is not None:
        dims = (1, 2)
        maps = torch.cat([_literal_max(x, dims)[:, 0], x.mean(dims, keepdim=True)[:, 0]], dim=1)
        x = x * block.positional_att.conv(maps).sigmoid()[:, None]
    if block.slice_att is not None:
        dims, slices = (1, 3, 4), block.slice_att
        gate = slices.linear(_literal_max(x, dims).flatten(1)) + slices.linear(x.mean(dims))
        if slices.uncertainty:
            gate = gate.relu()
            factor = slices.factor(gate).reshape(-1, slices.slices, slices.rank)
            drawn = factor @ torch.zeros(x.shape[0], slices.rank, 1)
            gate = slices.mean(gate) + drawn[..., 0] + (slices.log_diag(gate) / 2).exp() * 0
        x = x * gate.sigmoid()[:, None, :, None, None]
    return x


def literal_joint(block: JointAttention, x: Tensor) -> Tensor:
    """Joint attention with its N x N matrix, per plane or over the volume."""
    batch, _, depth, *plane = x.shape
    tokens = x.permute(0, 2, 3, 4, 1)  # (B, D, H, W, C)
    tokens = tokens.flatten(0, 1).flatten(1, 2) if block.axes == "plane" else tokens.flatten(1, 3)
    value = block.value(tokens)
    out = tokens
    if block.mode != "self":
        out = out + block.alpha * block.gate(tokens).sigmoid() * value
    if block.mode != "pointwise":
        matrix = (block.query(tokens) @ block.key(tokens).transpose(1, 2)).softmax(dim=2)
        out = out + block.beta * (matrix @ value)
    return out.reshape(batch, depth, *plane, -1).permute(0, 4, 1, 2, 3)


def literal_isa(block: ISA, x: Tensor) -> Tensor:
    """SAU-Net's inter-slice attention, slice by slice."""
    if x.shape[2] == 1:
        return x
    slices = x.unbind(2)
    if block.shared:
        masks = [_mask(block.conv, each) for each in slices]
        before, after = masks[:-1], masks[1:]
    else:
        before = [_mask(block.conv_previous, each) for each in slices[:-1]]
        after = [_mask(block.conv_next, each) for each in slices[1:]]
    out = []
    for number, each in enumerate(slices):
        gated = each
        if number > 0:
            gated = gated + before[number - 1] * each
        if number + 1 < len(slices):
            gated = gated + after[number] * each
        out.append(gated)
    return torch.stack(out, dim=2)


def _mask(conv: nn.Module, plane: Tensor) -> Tensor:
    return conv(plane[:, :, None])[:, :, 0].sigmoid()


def make_literal(network: nn.Module) -> nn.Module:
    """Replace every attention block of a network by its literal form, in place."""
    forms = {CSAM: literal_csam, JointAttention: literal_joint, ISA: literal_isa}
    for module in network.modules():
        if isinstance(module, EPABlock):
            epa = module.epa_block
            epa.attend = lambda x, weights, epa=epa: literal_epa(epa, x)
        elif type(module) in forms:
            module.forward = lambda x, module=module: forms[type(module)](module, x)
    return network
