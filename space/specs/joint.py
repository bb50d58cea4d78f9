"""Joint attention: a pointwise gate and self-attention, summed."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from space.pooling import Triple
from space.specs.spec import BlockSpec, Option, Options, Site, show_size

MAX_ATTENDED = 32_768  # tokens in one attention, whose cost grows with the square


def _why_not(options: Options, site: Site) -> str | None:
    if options.get("mode", "joint") == "pointwise":
        return None
    attended = prod(site.size) if options.get("axes", "plane") == "volume" else prod(site.size[1:])
    if attended > MAX_ATTENDED:
        return f"has {attended} tokens ({show_size(site.size)}) in one attention, over {MAX_ATTENDED}"
    return None


def _settle(options: Options, size: Triple) -> Options:
    """Omit `axes` for a pointwise gate; at a single slice, plane and volume are the same."""
    if options.get("mode") == "pointwise":
        return {name: value for name, value in options.items() if name != "axes"}
    return options if size[0] > 1 else {**options, "axes": "plane"}


def joint_macs(block: Any, shape: Sequence[int]) -> int:
    """Count values, the gate's two layers, queries, keys, and the two products with the N x N matrix."""
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


JOINT = BlockSpec(
    name="joint",
    module="blocks.joint:JointAttention",
    label="Joint attention",
    options=(
        Option("mode", ("joint", "pointwise", "self"), "gate and self-attention, or only one"),
        Option(
            "axes",
            ("plane", "volume"),
            "self-attention within a slice or over the volume",
            when=(("mode", ("joint", "self")),),
        ),
    ),
    source="Zhang, Dong, Li, ISBI 2022 (our interpretation of the abstract; the paper is not open access)",
    why_not=_why_not,
    settle=_settle,
    macs=joint_macs,
    idle_parameters=("key.bias",),  # softmax cancels it
)
