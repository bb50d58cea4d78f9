"""All axes of the U-Net space, with their choices and conditions."""

from __future__ import annotations

from collections.abc import Sequence

from space.architecture import Value
from space.axes import Axis
from space.place import BOTTLENECK, GROUPS, Place, attention_at, option_at
from space.specs.registry import BUILT_IN
from space.specs.spec import NONE, BlockSpec
from space.timm_info import is_timm

LEVELS: tuple[int, ...] = (3, 4, 5, 6)
OWN = ("plain", "residual", "dense")
ENCODERS = (*OWN, "unetrpp")  # and `timm:NAME` if a study lists it
When = tuple[tuple[str, tuple[Value, ...]], ...]


def network_axes(encoders: Sequence[Value]) -> tuple[Axis, ...]:
    """Return the axes that concern the whole network, for these encoder choices."""
    timm = tuple(encoder for encoder in encoders if is_timm(encoder))
    units, own = ("encoder", (*OWN, *timm)), ("encoder", OWN)
    single, cascade = ("stages", ("single",)), ("stages", ("cascade",))
    rows: tuple[tuple[str, tuple[Value, ...], str, When], ...] = (
        ("encoder", ENCODERS, "unit of each encoder level", ()),
        ("pretrained", (False, True), "start from timm's published weights", (("encoder", timm),)),
        ("levels", LEVELS, "number of resolutions, including the bottleneck's", ()),
        ("stages", ("single", "two-patch", "cascade"), "a single network, meU-net's two patches, or its cascade", ()),
        ("expansion", (1.5, 1.25, 1.75), "size of the larger patch relative to the standard one",
         (("stages", ("two-patch",)),)),
        ("cascade.first", ((1.5,), (1.0,), (1.5, 1.75)), "patch expansion of each first network", (cascade,)),
        ("cascade.join", ("post", "pre"), "where first predictions join: decoder levels, or the image", (cascade,)),
        ("cascade.levels", ("all", "finest", "coarsest"), "decoder levels that first predictions join",
         (("cascade.join", ("post",)),)),
        ("width", (8, 16, 24, 32), "channels at full resolution", ()),
        ("growth", (2.0, 1.5), "factor by which channels grow per level", ()),
        ("width_cap", (320,), "maximum channels at any level", ()),
        ("stem_stride", (1, 2), "stride of a stem before the first level; 1: no stem", (own, single)),
        ("stem_kernel", (3, 5, 7), "kernel size of the stem", (("stem_stride", (2,)),)),
        ("repeats", (2, 1, 3), "convolutions per unit", (units,)),
        ("kernels", ("auto", "2d", "3d"), "kernel of each level: from the spacing, 1x3x3, or 3x3x3", (units,)),
        ("norm", ("instance", "batch", "group", "layer", "slice"), "normalisation", (units,)),
        ("activation", ("leakyrelu", "relu", "gelu", "silu"), "activation", (units,)),
        ("dropout", (0.0, 0.1, 0.2), "dropout inside units", (units,)),
        ("downsampling", ("strided", "max"), "strided convolution, or max pooling", (own, single)),
        ("upsampling", ("linear", "nearest", "transposed"), "how the decoder upsamples", ()),
        ("skip", ("concat", "add"), "how a skip joins the decoder", (units,)),
        ("deep_supervision", (True, False), "additional losses at coarser decoder levels",
         (("stages", ("single", "cascade")),)),
    )  # fmt: skip
    return tuple(Axis(name, choices, meaning, when) for name, choices, meaning, when in rows)


def full_axes(
    placement: str,
    encoders: Sequence[Value] = ENCODERS,
    blocks: Sequence[BlockSpec] = BUILT_IN,
    levels: tuple[int, ...] = LEVELS,
) -> tuple[Axis, ...]:
    """Return all axes; the places of a group share one decision (`tied`) or have one each (`each`).

    `levels` are the numbers of levels for which places are listed: a base may have others than a study can choose.
    """
    axes = list(network_axes(encoders))
    names = (NONE, *(block.name for block in blocks))
    for group in GROUPS:
        for place, when in _places(group, placement, levels):
            axes.append(Axis(attention_at(place), names, f"attention block at {place}", when))
            for block in blocks:
                axes += _option_axes(block, place, when)
    return tuple(axes)


def _option_axes(block: BlockSpec, place: Place, when: When) -> list[Axis]:
    """Return the axes of a block's options at a place."""
    inside = (*when, (attention_at(place), (block.name,)))
    axes = []
    for option in block.options:
        conditions = tuple((option_at(block.name, other, place), allowed) for other, allowed in option.when)
        name = option_at(block.name, option.name, place)
        axes.append(Axis(name, option.choices, option.meaning, (*inside, *conditions)))
    return axes


def _places(group: Place, placement: str, levels: tuple[int, ...]) -> list[tuple[Place, When]]:
    """List a group's attention places, each with the conditions under which its axis is open.

    A timm encoder runs as a whole: attention can act on its maps only on the skips. UNETR++ has no encoder place at
    full resolution, where only the skip leads on.
    """
    if group == BOTTLENECK:
        return [(group, ())]
    downwards: When = (("encoder", ENCODERS),)
    if placement == "tied":
        return [(group, downwards if group.is_down else ())]
    found = []
    for level in range(max(levels) - 1):
        when: When = (("levels", tuple(n for n in levels if n > level + 1)),)
        if group.is_down:
            when += downwards if level else (("encoder", OWN),)
        found.append((Place(group.kind, level), when))
    return found
