"""Data augmentation settings: one frozen dataclass per transform, with its probability and range.

Ranges default to nnU-Net's and probabilities to 0; recipes (`search.config.recipes`) set the probabilities.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

STRICT = ConfigDict(extra="forbid")
Share = Annotated[float, Field(ge=0, le=1, strict=True)]
Factor = Annotated[float, Field(gt=0, le=10, strict=True)]


@dataclass(frozen=True)
class Rotation:
    """Rotation about each axis, by at most `degrees`.

    `auto` is 30; thick slices are rotated only in the plane, by up to 180 (see `augment.spatial.in_plane`).
    """

    __pydantic_config__ = STRICT
    p: Share = 0.0
    degrees: Literal["auto"] | Annotated[float, Field(gt=0, le=180, strict=True)] = "auto"


@dataclass(frozen=True)
class Range:
    """A factor sampled between `low` and `high`."""

    __pydantic_config__ = STRICT
    p: Share = 0.0
    low: Factor = 1.0
    high: Factor = 1.0

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError(f"low ({self.low:g}) is greater than high ({self.high:g})")


@dataclass(frozen=True)
class Scaling(Range):
    """Isotropic scaling; with a factor above 1 the patch covers more of the volume."""

    low: Factor = 0.7
    high: Factor = 1.4


@dataclass(frozen=True)
class Noise:
    """Gaussian noise with a standard deviation sampled between 0 and `std`."""

    __pydantic_config__ = STRICT
    p: Share = 0.0
    std: Annotated[float, Field(ge=0, le=10, strict=True)] = 0.1


@dataclass(frozen=True)
class Blur(Range):
    """Gaussian blur with sigma in voxels sampled per axis; each channel is blurred with probability `p_channel`."""

    low: Factor = 0.5
    high: Factor = 1.0
    p_channel: Share = 0.5


@dataclass(frozen=True)
class Multiplier(Range):
    """A factor per channel: below 1 with probability 0.5, else above 1."""

    low: Factor = 0.75
    high: Factor = 1.25


@dataclass(frozen=True)
class LowResolution(Range):
    """Nearest-neighbour downsampling, then linear upsampling; `low` and `high` bound the size factor."""

    low: Factor = 0.5
    high: Annotated[float, Field(gt=0, le=1, strict=True)] = 1.0
    p_channel: Share = 0.5


@dataclass(frozen=True)
class Gamma(Multiplier):
    """An exponent per channel; the mean and standard deviation are preserved."""

    low: Factor = 0.7
    high: Factor = 1.5


@dataclass(frozen=True)
class Augment:
    """Augmentation of training patches; each axis of (D, H, W) in `flip` is mirrored with probability 0.5."""

    __pydantic_config__ = STRICT
    flip: tuple[Literal["D", "H", "W"], ...] = ()
    scale_intensity: Share = 0.1
    shift_intensity: Share = 0.1
    noise: Noise = Noise(p=0.5, std=0.05)
    rotation: Rotation = field(default_factory=Rotation)
    scaling: Scaling = field(default_factory=Scaling)
    blur: Blur = field(default_factory=Blur)
    brightness: Multiplier = field(default_factory=Multiplier)
    contrast: Multiplier = field(default_factory=Multiplier)
    low_resolution: LowResolution = field(default_factory=LowResolution)
    gamma_inverted: Gamma = field(default_factory=Gamma)
    gamma: Gamma = field(default_factory=Gamma)
