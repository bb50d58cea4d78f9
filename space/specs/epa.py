"""EPA, UNETR++'s efficient paired attention with its convolutions."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from space.pooling import Triple
from space.specs.spec import BlockSpec, Conditions, Option, Options, Site, show_size

MAX_PROJECTED = 131_072  # tokens, each with its own weights (the largest published grid has 73,728)
SPATIAL: Conditions = (("branches", ("both", "spatial")),)


def _why_not(options: Options, site: Site) -> str | None:
    channels, tokens, size = site.channels, prod(site.size), show_size(site.size)
    heads, projection = int(str(options["heads"])), int(str(options.get("projection", 0)))  # a channel branch has none
    if channels % heads:
        return f"has {channels} channels, not a multiple of its {heads} heads"
    joined = options.get("projections", "shared") != "raw" and options.get("branches", "both") == "both"
    if joined and channels % 2:
        return f"has {channels} channels, but needs an even number"
    if projection > tokens:
        return f"has {tokens} tokens ({size}), too few to project to {projection}"
    if tokens > MAX_PROJECTED:
        return f"has {tokens} tokens ({size}) with own weights, over {MAX_PROJECTED}"
    return None


def _settle(options: Options, size: Triple) -> Options:
    """Omit the options of the spatial branch if there is only the channel branch."""
    if options.get("branches") != "channel":
        return options
    settled = {name: value for name, value in options.items() if name not in ("projection", "order")}
    if settled.get("projections") == "separate":
        settled["projections"] = "shared"  # there is only one projection
    return settled


def epa_macs(block: Any, shape: Sequence[int]) -> int:
    """Count the four linear maps, two token projections, four attention products, and the output projections.

    `shape` is (B, N, C). A single branch has three linear maps and two products.
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


def epa_block_macs(block: Any, shape: Sequence[int]) -> int:
    """Count EPA with voxels as tokens, two 3x3x3 convolutions per residual unit, and one 1x1x1 convolution."""
    batch, channels, *grid = shape
    voxels = batch * prod(grid)
    units = 1 if next(block.conv52.parameters(), None) is None else 2
    convolutions = (2 * 27 * units + 1) * channels**2 * voxels
    return int(epa_macs(block.epa_block, (batch, prod(grid), channels)) + convolutions)


EPA = BlockSpec(
    name="epa",
    module="blocks.epa:EPABlock",
    label="EPA",
    options=(
        Option("branches", ("both", "spatial", "channel"), "both attentions or only one", unwritten="both"),
        Option("blocks", (1, 2, 3), "number of blocks in sequence", limits=(1, 8)),
        Option(
            "projection", (64, 32, 16), "tokens that keys and values are projected to", when=SPATIAL, limits=(1, 4096)
        ),
        Option("heads", (4, 2, 8, 1), "attention heads", limits=(1, 64)),
        Option("projections", ("shared", "separate", "raw"), "token projections of keys and values"),
        Option("order", ("released", "corrected"), "order of the spatial attention's tokens", when=SPATIAL),
        Option("residual_units", (1, 2), "convolution units after the attention"),
        Option("dropout", (0.0, 0.1), "dropout of the attention maps", limits=(0.0, 0.9)),
    ),
    source="UNETR++, Shaker et al., IEEE TMI 2024",
    licence="Apache-2.0",
    why_not=_why_not,
    settle=_settle,
    arguments=lambda site: {"grid": site.size},
    macs=epa_block_macs,
    repeated="blocks",
)
