"""Random changes of training patches: one frozen dataclass a transform, with its own probability and range.

Ranges default to nnU-Net's and probabilities to 0; recipes (`search.config.recipes`) give the probabilities.
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
    """About each axis, by at most so many degrees.

    `auto` is 30; thick slices are turned within the plane alone, by up to 180 (see `augment.spatial.in_plane`).
    """

    __pydantic_config__ = STRICT
    p: Share = 0.0
    degrees: Literal["auto"] | Annotated[float, Field(gt=0, le=180, strict=True)] = "auto"


@dataclass(frozen=True)
class Range:
    """A factor drawn between two bounds."""

    __pydantic_config__ = STRICT
    p: Share = 0.0
    low: Factor = 1.0
    high: Factor = 1.0

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError(f"low: {self.low:g} is above high: {self.high:g}")


@dataclass(frozen=True)
class Scaling(Range):
    """One factor for all axes; above 1 the patch shows more of the volume."""

    low: Factor = 0.7
    high: Factor = 1.4


@dataclass(frozen=True)
class Noise:
    """Gaussian noise, its standard deviation drawn between 0 and `std`."""

    __pydantic_config__ = STRICT
    p: Share = 0.0
    std: Annotated[float, Field(ge=0, le=10, strict=True)] = 0.1


@dataclass(frozen=True)
class Blur(Range):
    """Gaussian blur, its sigma in voxels drawn for each axis; each channel is blurred with `p_channel`."""

    low: Factor = 0.5
    high: Factor = 1.0
    p_channel: Share = 0.5


@dataclass(frozen=True)
class Multiplier(Range):
    """A factor for each channel: half the time below 1, half the time above."""

    low: Factor = 0.75
    high: Factor = 1.25


@dataclass(frozen=True)
class LowResolution(Range):
    """Down by nearest neighbour, and up again linearly; `low` and `high` bound the factor of the size."""

    low: Factor = 0.5
    high: Annotated[float, Field(gt=0, le=1, strict=True)] = 1.0
    p_channel: Share = 0.5


@dataclass(frozen=True)
class Gamma(Multiplier):
    """An exponent for each channel; mean and standard deviation are kept."""

    low: Factor = 0.7
    high: Factor = 1.5


@dataclass(frozen=True)
class Augment:
    """Random changes of training patches; `flip` names axes of (D, H, W), each mirrored half the time."""

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
