"""The papers' networks as named points of the space, and nnU-Net's, which depend on the data.

Our axes are (D, H, W), with D across slices. The released UNETR++ code names its axes (H, W, D), but its arrays store
slices first (patches 64x128x128 and 16x160x160, stems (2, 4, 4) and (1, 4, 4)): its first axis in memory is our D.
We therefore copy patches, kernels and strides in memory order and transpose no weights. Its tokens are row-major in
memory, thus row-major over our (D, H, W): position embeddings and token projections fit unchanged.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from space.architecture import Architecture
from space.canonical import Context
from space.nnunet.network import nnunet_architecture
from space.nnunet.planner import PLAIN, RESENC_M, Family
from space.place import BOTTLENECK, places
from space.pooling import Triple

PLANE: Triple = (1, 2, 2)
CUBE: Triple = (2, 2, 2)
FLAT: Triple = (1, 3, 3)


@dataclass(frozen=True)
class Preset:
    """A paper's network, and the patch, spacing, channels and classes of its experiment.

    If the paper doesn't report patch and spacing, they are typical values, as `note` states. Spacing has no effect on
    the network, except in a `family` of nnU-Nets, whose rules derive it from both: then `architecture` is an example.
    """

    name: str
    architecture: Architecture
    context: Context
    paper: str
    note: str
    family: Family | None = None

    def at(self, context: Context) -> Architecture:
        """Return the network for this context: the paper's own, or what its rules give for patch and spacing."""
        return nnunet_architecture(self.family, context) if self.family else self.architecture


def _sau_net() -> Architecture:
    return Architecture.of({
        "encoder": "dense", "bottom": "plain", "channels": (64, 128, 256, 512, 1024),
        "kernels": (FLAT,) * 5, "pooling": (PLANE,) * 4, "repeats": 2, "norm": "batch",
        "activation": "relu", "dropout": 0.0, "downsampling": "max", "upsampling": "transposed",
        "skip": "concat", "deep_supervision": False, "attention@decoder0": "isa", "isa.shared@decoder0": True,
    })  # fmt: skip


def _csam_unet(*, uncertainty: bool) -> Architecture:
    values: dict[str, Any] = {
        "encoder": "csam", "channels": (64, 128, 256, 512, 1024), "pooling": (PLANE,) * 4, "downsampling": "max",
        "upsampling": "linear-conv", "skip": "concat", "deep_supervision": False,
    }  # fmt: skip
    for place in ("skip0", "skip1", "skip2", "skip3", "bottleneck"):
        values |= {f"attention@{place}": "csam", f"csam.uncertainty@{place}": uncertainty}
        values |= {f"csam.{gate}@{place}": True for gate in ("semantic", "positional", "slice")}
    return Architecture.of(values)


def _joint_denseunet() -> Architecture:
    values: dict[str, Any] = {
        "encoder": "densenet", "channels": (64, 256, 512, 1024, 1024), "dense_layers": (6, 12, 24, 16),
        "dense_growth": 32, "decoder": "dense", "decoder_channels": (64, 64, 128, 256), "repeats": 2,
        "kernels": (FLAT,) * 5, "pooling": (PLANE,) * 4, "norm": "batch", "activation": "relu", "dropout": 0.0,
        "upsampling": "nearest-only", "skip": "concat", "deep_supervision": False,
    }  # fmt: skip
    for place in ("bottleneck", "decoder3"):
        values |= {f"attention@{place}": "joint", f"joint.mode@{place}": "joint", f"joint.axes@{place}": "plane"}
        values[f"joint.reduction@{place}"] = 8
    return Architecture.of(values)


def _unetrpp(*, stem: Triple, projections: str, residual_units: int) -> Architecture:
    """Return UNETR++: three EPA blocks at each encoder and decoder place below full resolution.

    They project to 64 tokens, in the bottleneck to 32. The patch that the network is built for determines the map
    sizes and hence the number of tokens.
    """
    values: dict[str, Any] = {
        "encoder": "unetrpp", "channels": (16, 32, 64, 128, 256), "pooling": (stem, CUBE, CUBE, CUBE),
        "upsampling": "transposed", "skip": "add", "deep_supervision": True,
    }  # fmt: skip
    for place in places(5):
        if place.kind == "skip" or place.level == 0:
            continue
        options = {
            "blocks": 3, "projection": 32 if place == BOTTLENECK else 64, "heads": 4, "projections": projections,
            "order": "released", "residual_units": residual_units, "dropout": EPA_DROPOUT[projections],
        }  # fmt: skip
        values[f"attention@{place}"] = "epa"
        values |= {f"epa.{option}@{place}": value for option, value in options.items()}
    return Architecture.of(values)


EPA_DROPOUT = {"shared": 0.15, "separate": 0.1, "raw": 0.1}


def _meunet(**stages: Any) -> Architecture:
    return Architecture.of({
        "encoder": "me", "channels": (16, 32, 64, 128, 128), "decoder_channels": (16, 16, 32, 64),
        "pooling": (CUBE,) * 4, "downsampling": "max", "upsampling": "nearest-only", "skip": "concat",
        "head_kernel": 3, "deep_supervision": False, **stages,
    })  # fmt: skip


def _nnunet(family: Family, context: Context, paper: str, note: str) -> Preset:
    return Preset(family.name, nnunet_architecture(family, context), context, paper, note, family)


SAU_PAPER = "Zhang et al., SAU-Net, MIDL 2020"
CSAM_PAPER = "CSAM, WACV 2024"
JOINT_PAPER = "Zhang, Dong, Li, Joint attention, ISBI 2022"
UNETRPP_PAPER = "Shaker et al., UNETR++, IEEE TMI 2024"
MEUNET_PAPER = "Wang et al., meU-net, MIDL 2022"
NNUNET_PAPER = "Isensee et al., nnU-Net, Nature Methods 2021"
RESENC_PAPER = "Isensee et al., nnU-Net Revisited, MICCAI 2024"
RELEASED_COUNT = "Matches the released parameter count."

PRESETS: dict[str, Preset] = {
    preset.name: preset
    for preset in (
        Preset(
            "sau_net", _sau_net(), Context((12, 512, 512), (4.0, 0.7, 0.7), 1, 2), SAU_PAPER,
            "Our interpretation: widths, 2x2 deconvolutions, concatenation in the dense units, and ISA on the last "
            "features (before the head). Volumes have 12 to 15 slices of 512 to 960 pixels.",
        ),
        Preset(
            "csam_unet", _csam_unet(uncertainty=True), Context((20, 256, 256), (3.0, 0.6, 0.6), 1, 3), CSAM_PAPER,
            "Matches the released parameter count. Five levels, 20 slices; we chose the patch. The gates act on the "
            "skips and the bottleneck; the encoder path has no attention.",
        ),
        Preset(
            "joint_denseunet", _joint_denseunet(), Context((8, 224, 224), (5.0, 1.0, 1.0), 1, 2), JOINT_PAPER,
            "Entirely our interpretation: the paper is not open access. A 2D DenseNet of growth 32, dense decoder "
            "units, joint attention at 1/16 and 1/8 of the in-plane resolution.",
        ),
        Preset(
            "unetrpp_synapse", _unetrpp(stem=(2, 4, 4), projections="shared", residual_units=1),
            Context((64, 128, 128), (3.0, 0.76, 0.76), 1, 14), UNETRPP_PAPER, RELEASED_COUNT,
        ),
        Preset(
            "unetrpp_acdc", _unetrpp(stem=(1, 4, 4), projections="separate", residual_units=2),
            Context((16, 160, 160), (10.0, 1.56, 1.56), 1, 4), UNETRPP_PAPER, RELEASED_COUNT,
        ),
        Preset(
            "unetrpp_lung", _unetrpp(stem=(1, 4, 4), projections="separate", residual_units=2),
            Context((32, 192, 192), (1.25, 0.79, 0.79), 1, 2), UNETRPP_PAPER, RELEASED_COUNT,
        ),
        Preset(
            "unetrpp_tumor", _unetrpp(stem=(4, 4, 4), projections="raw", residual_units=1),
            Context((128, 128, 128), (1.0, 1.0, 1.0), 4, 4), UNETRPP_PAPER, RELEASED_COUNT,
        ),
        Preset(
            "meunet", _meunet(stages="two-patch", expansion=1.5),
            Context((160, 160, 160), (0.00295, 0.00295, 0.00295), 1, 3), MEUNET_PAPER,
            "A plain U-Net trained on two patches; counts include its second head, for the expanded patch.",
        ),
        Preset(
            "meunet_cascade",
            _meunet(**{"stages": "cascade", "cascade.first": (1.5, 1.75), "cascade.join": "post",
                       "cascade.levels": (0, 1, 2, 3)}),
            Context((160, 160, 160), (0.00295, 0.00295, 0.00295), 1, 3), MEUNET_PAPER,
            "Two first networks (meunet, trained on patches 1.5 and 1.75 times as large) and a second network. Each of "
            "its decoder levels takes their one-hot predictions of the same patch, including background (our "
            "interpretation).",
        ),
        _nnunet(
            PLAIN, Context((40, 56, 40), (1.0, 1.0, 1.0), 1, 3), NNUNET_PAPER,
            "Derived from patch and spacing by nnU-Net's rules (`nnUNetPlans`). The example is its plan for the "
            "hippocampus of the Medical Segmentation Decathlon.",
        ),
        _nnunet(
            RESENC_M, Context((10, 160, 160), (10.0, 1.5625, 1.5625), 1, 4), RESENC_PAPER,
            "Derived from patch and spacing by nnU-Net's rules (`nnUNetResEncUNetMPlans`). The example is its plan for "
            "cardiac slices.",
        ),
    )
}  # fmt: skip
