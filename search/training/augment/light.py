"""The light recipe's intensity changes, in NumPy; the order of random draws is fixed, since studies depend on it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search.config.augment import Augment

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Light:
    """One sample's intensity scale, shift and noise (C, D, H, W)."""

    scale: np.float32
    shift: np.float32
    noise: Array | None


def draw_light(augment: Augment, rng: np.random.Generator, *, shape: tuple[int, ...] | None) -> Light:
    """Draw one sample's parameters; no noise without a `shape`.

    Same distributions as MONAI's RandScaleIntensity, RandShiftIntensity and RandGaussianNoise, at a sixth of the time.
    """
    scale = np.float32(1 + augment.scale_intensity * rng.uniform(-1, 1))
    shift = np.float32(augment.shift_intensity * rng.uniform(-1, 1))
    noise = None
    if shape is not None and augment.noise.std and rng.random() < augment.noise.p:
        noise = rng.standard_normal(shape, dtype=np.float32)
        noise = np.float32(augment.noise.std * rng.random()) * noise
    return Light(scale, shift, noise)


def apply_light(image: Array, light: Light) -> Array:
    """Scale and shift an image (C, D, H, W), then add the noise."""
    changed = image * light.scale + light.shift
    if light.noise is not None:
        changed += light.noise
    return changed
