"""ISA, SAU-Net's inter-slice attention."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from space.pooling import Triple
from space.specs.spec import BlockSpec, FormulaCost, Option, Options, Site


def _settle(options: Options, size: Triple) -> Options | None:
    """Omit the block at a single slice, which has no neighbours and passes unchanged."""
    return options if size[0] > 1 else None


def _mask_slices(depth: int, *, shared: bool) -> int:
    """Count the masks over all slices: one per slice if shared, else one per slice and neighbour."""
    if not shared:
        return 2 * (depth - 1)
    return depth if depth > 1 else 0


def isa_macs(block: Any, shape: Sequence[int]) -> int:
    """Count a 1x1 convolution per mask."""
    batch, channels, depth, height, width = shape
    return int(batch * _mask_slices(depth, shared=block.shared) * channels**2 * height * width)


def _formula(options: Options, site: Site) -> FormulaCost:
    width, (depth, height, across) = site.channels, site.size
    convolutions = 1 if options["shared"] else 2
    return FormulaCost(
        params=convolutions * (width * width + width),
        macs=_mask_slices(depth, shared=bool(options["shared"])) * width * width * height * across,
        written=width * prod(site.size) * (1 + convolutions),
        kept=1.5,
    )


ISA = BlockSpec(
    name="isa",
    module="blocks.isa:ISA",
    label="ISA",
    options=(Option("shared", (True, False), "one convolution for both neighbours, or one each"),),
    source='Zhang, Yuan, Wang, Zhang, "SAU-Net", MIDL 2020',
    settle=_settle,
    macs=isa_macs,
    formula=_formula,
)
