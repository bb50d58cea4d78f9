"""CSAM: gates over channels, the plane and the slices."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from space.pooling import Triple
from space.specs.spec import BlockSpec, FormulaCost, Option, Options, Site

REDUCTION = 16  # of the semantic gate; with fewer channels its hidden layer would be empty
EXPANSION = 4  # of the slice gate
RANK = 5  # of the slice gate's covariance
KERNEL = 7 * 7  # of the positional gate, over two maps
GATES = ("semantic", "positional", "slice")


def _why_not(options: Options, site: Site) -> str | None:
    if options.get("semantic", True) and site.channels < REDUCTION:
        return f"has {site.channels} channels: its semantic gate needs {REDUCTION} or more"
    return None


def _settle(options: Options, size: Triple) -> Options | None:
    """Omit a block without any gate, which is the identity."""
    return options if any(options.get(gate, True) for gate in GATES) else None


def csam_macs(block: Any, shape: Sequence[int]) -> int:
    """Count the gates' perceptrons on two descriptors each, and the 7x7 convolution over two maps."""
    batch, channels, _, height, width = shape
    macs = 0
    if block.semantic_att is not None:
        macs += 2 * 2 * channels * block.semantic_att.linear[0].out_features
    if block.positional_att is not None:
        macs += 2 * KERNEL * height * width
    if block.slice_att is not None:
        slices, rank = block.slice_att.slices, block.slice_att.rank
        macs += 2 * 2 * slices * block.slice_att.linear[0].out_features
        if block.slice_att.uncertainty:  # mean, diagonal and factors, then the factors' product with the sample
            macs += (2 + rank) * slices**2 + rank * slices
    return int(batch * macs)


def _formula(options: Options, site: Site) -> FormulaCost:
    width, (depth, height, across) = site.channels, site.size
    params = macs = 0
    if options["semantic"]:
        hidden = width // REDUCTION
        params += 2 * width * hidden + hidden + width
        macs += 4 * width * hidden
    if options["positional"]:
        params += 2 * KERNEL + 1
        macs += 2 * KERNEL * height * across
    if options["slice"]:
        hidden = EXPANSION * depth
        params += 2 * depth * hidden + hidden + depth
        macs += 4 * depth * hidden
    if options.get("uncertainty"):
        params += (2 + RANK) * (depth * depth + depth)
        macs += (2 + RANK) * depth * depth + RANK * depth
    return FormulaCost(params, macs, written=width * prod(site.size), kept=1.0, calls=5)


CSAM = BlockSpec(
    name="csam",
    module="blocks.csam:CSAM",
    label="CSAM",
    options=(
        Option("semantic", (True, False), "the gate over channels"),
        Option("positional", (True, False), "the gate over the plane"),
        Option("slice", (True, False), "the gate over slices"),
        Option(
            "uncertainty",
            (False, True),
            "sample the slice gate from a learned normal distribution",
            when=(("slice", (True,)),),
        ),
    ),
    source='Hung et al., "CSAM: A 2.5D Cross-Slice Attention Module", WACV 2024',
    licence="MIT",
    why_not=_why_not,
    settle=_settle,
    arguments=lambda site: {"slices": site.size[0]},
    macs=csam_macs,
    formula=_formula,
)
