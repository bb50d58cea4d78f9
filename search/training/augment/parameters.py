"""Random augmentation parameters of one sample, drawn from its own generator, independent of order and machine."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search.config.augment import Augment, Blur, LowResolution, Multiplier, Range
from search.training.augment.spatial import Matrix, affine, only_in_plane, rotation_limit

Floats = NDArray[np.float64]
MAX_SEED = 2**63 - 1


@dataclass(frozen=True)
class Parameters:
    """One sample's augmentation parameters; None if a transform is not applied, NaN for a channel left unchanged.

    `affine` maps offsets from the patch's centre to offsets in the volume, both (D, H, W) in voxels. The intensity
    transforms have a value per channel, and blur a sigma per channel and axis.
    """

    affine: Matrix | None
    noise: tuple[float, int] | None  # standard deviation and seed
    blur: Floats | None  # (C, 3), in voxels
    brightness: Floats | None  # (C,), like all below
    contrast: Floats | None
    low_resolution: Floats | None
    gamma_inverted: Floats | None
    gamma: Floats | None


def draw(augment: Augment, rng: np.random.Generator, *, patch: tuple[int, int, int], channels: int) -> Parameters:
    """Draw one sample's parameters."""
    return Parameters(
        affine=_affine(augment, rng, patch),
        noise=_noise(augment, rng),
        blur=_blur(augment.blur, rng, channels),
        brightness=_multipliers(augment.brightness, rng, channels),
        contrast=_multipliers(augment.contrast, rng, channels),
        low_resolution=_low_resolution(augment.low_resolution, rng, channels),
        gamma_inverted=_multipliers(augment.gamma_inverted, rng, channels),
        gamma=_multipliers(augment.gamma, rng, channels),
    )


def draw_flips(augment: Augment, rng: np.random.Generator) -> tuple[int, ...]:
    """Draw which axes of (D, H, W) to mirror."""
    return tuple("DHW".index(axis) for axis in augment.flip if rng.random() < 0.5)


def _happens(part: Range, rng: np.random.Generator) -> bool:
    """Draw even if the probability is 0, so that switching a transform off doesn't change the others' draws."""
    return bool(rng.random() < part.p)


def _affine(augment: Augment, rng: np.random.Generator, patch: tuple[int, int, int]) -> Matrix | None:
    rotated, scaled = rng.random() < augment.rotation.p, rng.random() < augment.scaling.p
    limit = np.deg2rad(rotation_limit(augment.rotation, patch))
    angles = rng.uniform(-limit, limit, 3)
    factor = rng.uniform(augment.scaling.low, augment.scaling.high)
    if not (rotated or scaled):
        return None
    angles = angles if rotated else np.zeros(3)
    return affine(angles, factor if scaled else 1.0, plane=only_in_plane(patch))


def _noise(augment: Augment, rng: np.random.Generator) -> tuple[float, int] | None:
    happens, std, seed = rng.random() < augment.noise.p, rng.uniform(0, augment.noise.std), rng.integers(MAX_SEED)
    return (std, int(seed)) if happens else None


def _blur(part: Blur, rng: np.random.Generator, channels: int) -> Floats | None:
    happens, chosen = _happens(part, rng), rng.random(channels) < part.p_channel
    sigmas = rng.uniform(part.low, part.high, (channels, 3))
    return np.where(chosen[:, None], sigmas, np.nan) if happens and chosen.any() else None


def _low_resolution(part: LowResolution, rng: np.random.Generator, channels: int) -> Floats | None:
    happens, chosen = _happens(part, rng), rng.random(channels) < part.p_channel
    factors = rng.uniform(part.low, part.high, channels)
    return np.where(chosen, factors, np.nan) if happens and chosen.any() else None


def _multipliers(part: Multiplier, rng: np.random.Generator, channels: int) -> Floats | None:
    """Draw multipliers, with equal probability below and above 1, uniform over each part of the range."""
    happens = _happens(part, rng)
    below, shares = rng.random(channels) < 0.5, rng.random(channels)
    low = np.where(below & (part.low < 1), part.low, max(part.low, 1.0))
    high = np.where(below & (part.low < 1), min(part.high, 1.0), part.high)
    return low + shares * (high - low) if happens else None
