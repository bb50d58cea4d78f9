"""Multiply-adds of the attention blocks as their papers write them, whatever ours computes instead.

Matrix products, linear maps and convolutions count; products with a gate, norms, softmax and interpolation don't.
Each function takes a block and the shape of what meets it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

from torch import nn

from blocks.csam import CSAM
from blocks.epa import EPA, EPABlock
from blocks.isa import ISA
from blocks.joint import JointAttention

Shape = Sequence[int]


def isa_macs(block: Any, shape: Shape) -> int:
    """A 1x1 convolution for each mask: one a slice, or one a neighbour where the two have their own."""
    batch, channels, depth, height, width = shape
    masks = 2 * (depth - 1) if not block.shared else (depth if depth > 1 else 0)  # a single slice has no neighbour
    return int(batch * masks * channels**2 * height * width)


def csam_macs(block: Any, shape: Shape) -> int:
    """The gates' perceptrons on two descriptors each, and the 7x7 convolution of two maps."""
    batch, channels, _, height, width = shape
    macs = 0
    if block.semantic_att is not None:
        macs += 2 * 2 * channels * block.semantic_att.linear[0].out_features
    if block.positional_att is not None:
        macs += 2 * 7 * 7 * height * width
    if block.slice_att is not None:
        slices, rank = block.slice_att.slices, block.slice_att.rank
        macs += 2 * 2 * slices * block.slice_att.linear[0].out_features
        if block.slice_att.uncertainty:  # mean, diagonal and factors, then the factors' product with the draw
            macs += (2 + rank) * slices**2 + rank * slices
    return int(batch * macs)


def joint_macs(block: Any, shape: Shape) -> int:
    """Values, the gate's two layers, queries and keys, and the two products with the N x N matrix."""
    batch, channels, depth, height, width = shape
    groups = batch * depth if block.axes == "plane" else batch
    positions = prod(shape[2:]) * batch // groups
    each = channels**2
    if block.mode != "self":
        hidden = block.gate[0].out_features
        each += channels * hidden + hidden
    if block.mode != "pointwise":
        query = block.query.out_features
        each += 2 * channels * query + positions * (query + channels)
    return int(groups * positions * each)


def epa_macs(block: Any, shape: Shape) -> int:
    """The four maps, two token projections, four products of the two attentions, the output projections.

    A branch alone has three maps, and its own two products.
    """
    batch, tokens, channels = shape
    each = block.qkvv.out_features * channels  # q, k, v, v
    if block.branches != "channel":
        each += 4 * channels * block.token_weights()[0].shape[0]  # k and v to fewer tokens, two products over tokens
    if block.branches != "spatial":
        each += 2 * channels * (channels // block.heads)  # two products over channels
    if block.projections != "raw":
        each += channels**2
    return int(batch * tokens * each)


def epa_block_macs(block: Any, shape: Shape) -> int:
    """EPA on the voxels as tokens, then two 3x3x3 convolutions a residual unit and one of 1x1x1."""
    batch, channels, *grid = shape
    voxels = batch * prod(grid)
    units = 1 if isinstance(block.conv52, nn.Identity) else 2
    convolutions = (2 * 27 * units + 1) * channels**2 * voxels
    return int(epa_macs(block.epa_block, (batch, prod(grid), channels)) + convolutions)


ATTENTION_MACS: dict[type[nn.Module], Callable[[Any, Shape], int]] = {
    ISA: isa_macs,
    CSAM: csam_macs,
    JointAttention: joint_macs,
    EPA: epa_macs,
    EPABlock: epa_block_macs,
}
