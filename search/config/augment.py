"""Data augmentation settings: one frozen dataclass per transform, with its probability and range.

Ranges default to nnU-Net's and probabilities to 0; recipes (`search.config.recipes`) set the probabilities.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from search.config.keys import Key

STRICT = ConfigDict(extra="forbid")
Share = Annotated[float, Field(ge=0, le=1, strict=True)]
Factor = Annotated[float, Field(gt=0, le=10, strict=True)]
Probability = Annotated[Share, Key("Probability that a patch is changed.", 0.2)]
Low = Annotated[Factor, Key("Lower bound of the draw.", 0.5)]
High = Annotated[Factor, Key("Upper bound of the draw.", 2.0)]
NUMBER = {"type": "number"}
SWITCH = {"enum": ["on", "off", True, False]}  # short forms of a transform; see `recipes`


@dataclass(frozen=True)
class Rotation:
    """Rotation about each axis, by at most `degrees`.

    `auto` is 30; thick slices are rotated only in the plane, by up to 180 (see `augment.spatial.in_plane`).
    """

    __pydantic_config__ = STRICT
    p: Probability = 0.0
    degrees: Annotated[
        Literal["auto"] | Annotated[float, Field(gt=0, le=180, strict=True)],
        Key("Largest angle; `auto` is 30, or 180 within the plane of thick slices.", 15.0, "degrees"),
    ] = "auto"


@dataclass(frozen=True)
class Range:
    """A factor sampled between `low` and `high`."""

    __pydantic_config__ = STRICT
    p: Probability = 0.0
    low: Low = 1.0
    high: High = 1.0

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError(f"low ({self.low:g}) is greater than high ({self.high:g})")


@dataclass(frozen=True)
class Scaling(Range):
    """Isotropic scaling; with a factor above 1 the patch covers more of the volume."""

    low: Low = 0.7
    high: High = 1.4


@dataclass(frozen=True)
class Noise:
    """Gaussian noise with a standard deviation sampled between 0 and `std`."""

    __pydantic_config__ = STRICT
    p: Probability = 0.0
    std: Annotated[
        Annotated[float, Field(ge=0, le=10, strict=True)],
        Key("Largest standard deviation.", 0.05, "normalised intensity"),
    ] = 0.1


@dataclass(frozen=True)
class Blur(Range):
    """Gaussian blur with sigma in voxels sampled per axis; each channel is blurred with probability `p_channel`."""

    low: Low = 0.5
    high: High = 1.0
    p_channel: Annotated[Share, Key("Probability that a channel is changed.", 1.0)] = 0.5


@dataclass(frozen=True)
class Multiplier(Range):
    """A factor per channel: below 1 with probability 0.5, else above 1."""

    low: Low = 0.75
    high: High = 1.25


@dataclass(frozen=True)
class LowResolution(Range):
    """Nearest-neighbour downsampling, then linear upsampling; `low` and `high` bound the size factor."""

    low: Low = 0.5
    high: Annotated[Annotated[float, Field(gt=0, le=1, strict=True)], Key("Upper bound of the draw.", 0.9)] = 1.0
    p_channel: Annotated[Share, Key("Probability that a channel is changed.", 1.0)] = 0.5


@dataclass(frozen=True)
class Gamma(Multiplier):
    """An exponent per channel; the mean and standard deviation are preserved."""

    low: Low = 0.7
    high: High = 1.5


@dataclass(frozen=True)
class Augment:
    """Augmentation of training patches; each axis of (D, H, W) in `flip` is mirrored with probability 0.5."""

    __pydantic_config__ = STRICT
    flip: Annotated[tuple[Literal["D", "H", "W"], ...], Key("Axes to mirror, each half the time.", ["H", "W"])] = ()
    scale_intensity: Annotated[Share, Key("Largest relative change of intensity.", 0.2)] = 0.1
    shift_intensity: Annotated[Share, Key("Largest shift of intensity.", 0.2, "normalised intensity")] = 0.1
    noise: Annotated[Noise, Key("Gaussian noise; a number is its `std`.", {"std": 0.1}, also=(SWITCH, NUMBER))] = Noise(
        p=0.5, std=0.05
    )
    rotation: Annotated[Rotation, Key("Rotation about each axis.", {"p": 0.2, "degrees": 15.0}, also=(SWITCH,))] = (
        field(default_factory=Rotation)
    )
    scaling: Annotated[Scaling, Key("One factor of size for all axes.", {"p": 0.2}, also=(SWITCH,))] = field(
        default_factory=Scaling
    )
    blur: Annotated[Blur, Key("Gaussian blur; the range is its sigma in voxels.", "on", also=(SWITCH,))] = field(
        default_factory=Blur
    )
    brightness: Annotated[Multiplier, Key("Factor of intensity, per channel.", "on", also=(SWITCH,))] = field(
        default_factory=Multiplier
    )
    contrast: Annotated[Multiplier, Key("Factor of contrast, per channel.", "on", also=(SWITCH,))] = field(
        default_factory=Multiplier
    )
    low_resolution: Annotated[
        LowResolution, Key("Lower resolution and back; the range is the factor of size.", "on", also=(SWITCH,))
    ] = field(default_factory=LowResolution)
    gamma_inverted: Annotated[Gamma, Key("Exponent of the inverted intensities.", "on", also=(SWITCH,))] = field(
        default_factory=Gamma
    )
    gamma: Annotated[Gamma, Key("Exponent of the intensities.", "off", also=(SWITCH,))] = field(default_factory=Gamma)
