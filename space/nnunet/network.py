"""nnU-Net's networks as architectures, for a patch and spacing."""

from __future__ import annotations

from typing import Any

from space.architecture import Architecture
from space.canonical import Context
from space.nnunet.planner import Family, features
from space.nnunet.topology import topology


def nnunet_architecture(family: Family, context: Context) -> Architecture:
    """Return the network that nnU-Net's rules give for this patch and spacing.

    At a planned patch it is that of the plan. A patch of one slice gives nnU-Net's 2D network.
    """
    found = topology(context.patch, spacing=context.spacing)
    values: dict[str, Any] = {
        "encoder": "plain",
        "repeats": family.decoder_units,
        "channels": features(found.levels, flat=context.patch[0] == 1),
        "pooling": found.strides,
        "kernels": found.kernels,
        "norm": "instance",
        "activation": "leakyrelu",
        "dropout": 0.0,
        "downsampling": "strided",
        "upsampling": "transposed",
        "skip": "concat",
        "deep_supervision": True,
        "supervised_levels": found.levels - 1,
        "conv_bias": True,
        "init": "he",
    }
    if family.residual:
        units = tuple(family.units(level) for level in range(found.levels))
        values |= {"encoder": "resenc", "decoder": "plain", "residual_blocks": units}
    return Architecture.of(values)
