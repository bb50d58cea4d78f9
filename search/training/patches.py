"""Training patches: cropped from memory-mapped volumes and augmented, the same again for a seed and step."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from search.config.schema import Augment, Training
from search.data.prepare import Prepared, open_case, open_foreground

Array = NDArray[np.float32]
AXES = {"D": 0, "H": 1, "W": 2}


@dataclass(frozen=True)
class Volume:
    """One prepared case: image (C, D, H, W), label (D, H, W), and sampled voxels (n, 3) of each foreground class."""

    image: NDArray[np.float32]
    label: NDArray[np.uint8]
    foreground: tuple[NDArray[np.int32], ...]


class PatchSource:
    """Batches of random patches; batch number n is a function of the seed and n alone, so training can go on."""

    def __init__(
        self, prepared: Prepared, *, cases: tuple[str, ...], patch: tuple[int, int, int], training: Training, seed: int
    ) -> None:
        self.volumes = [
            Volume(
                *open_case(prepared, case),
                tuple(f for f in open_foreground(prepared, case).values() if len(f)),
            )
            for case in cases
        ]
        self.patch = patch
        self.batch, self.foreground, self.seed = training.batch, training.foreground, seed
        self.augment = training.augment

    def batches(self, first: int, last: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield batches `first` to `last - 1`; the next one is made while the present one trains.

        Shapes: images (B, C, D, H, W) and labels (B, 1, D, H, W), both float32.
        """
        with ThreadPoolExecutor(1) as worker:
            coming = worker.submit(self.batch_at, first)
            for number in range(first, last):
                ready = coming.result()
                if number + 1 < last:
                    coming = worker.submit(self.batch_at, number + 1)
                yield ready

    def batch_at(self, number: int) -> tuple[Tensor, Tensor]:
        """Make one batch."""
        rng = np.random.default_rng((self.seed, number))
        patches = [self._patch(rng) for _ in range(self.batch)]
        images, labels = zip(*patches, strict=True)
        return torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(labels))

    def _patch(self, rng: np.random.Generator) -> tuple[Array, Array]:
        volume = self.volumes[rng.integers(len(self.volumes))]
        image, label = _crop(volume, self._corner(volume, rng), self.patch)
        flipped = [axis for axis in self.augment.flip if rng.random() < 0.5]
        axes = tuple(1 + AXES[axis] for axis in flipped)
        return _change_intensity(np.flip(image, axes), self.augment, rng), np.flip(label, axes)

    def _corner(self, volume: Volume, rng: np.random.Generator) -> tuple[int, int, int]:
        """Choose the patch's first voxel: around a voxel of a random foreground class, or anywhere."""
        slack = [max(0, size - length) for size, length in zip(volume.label.shape, self.patch, strict=True)]
        if volume.foreground and rng.random() < self.foreground:
            voxels = volume.foreground[rng.integers(len(volume.foreground))]
            centre = voxels[rng.integers(len(voxels))]
            corner = [
                int(np.clip(at - rng.integers(length), 0, most))
                for at, length, most in zip(centre, self.patch, slack, strict=True)
            ]
        else:
            corner = [int(rng.integers(most + 1)) for most in slack]
        return corner[0], corner[1], corner[2]


def _crop(volume: Volume, start: tuple[int, int, int], patch: tuple[int, int, int]) -> tuple[Array, Array]:
    """Cut a patch out, padded evenly with zeros (the mean intensity; background) where the volume is smaller."""
    window = tuple(slice(at, at + length) for at, length in zip(start, patch, strict=True))
    image = np.array(volume.image[(slice(None), *window)], dtype=np.float32)
    label = np.array(volume.label[window], dtype=np.float32)[None]
    missing = [length - size for length, size in zip(patch, label.shape[1:], strict=True)]
    if any(missing):
        pads = [(0, 0), *((gap // 2, gap - gap // 2) for gap in missing)]
        image, label = np.pad(image, pads), np.pad(label, pads)
    return image, label


def _change_intensity(image: Array, augment: Augment, rng: np.random.Generator) -> Array:
    """Scale, shift and, half the time, add noise.

    The same as MONAI's RandScaleIntensity, RandShiftIntensity and RandGaussianNoise in a sixth of their time: on a
    few cores they took a tenth of the training steps that they ran beside.
    """
    scale = 1 + augment.scale_intensity * rng.uniform(-1, 1)
    changed = image * np.float32(scale) + np.float32(augment.shift_intensity * rng.uniform(-1, 1))
    if augment.noise and rng.random() < 0.5:
        noise = rng.standard_normal(image.shape, dtype=np.float32)
        changed += np.float32(augment.noise * rng.random()) * noise
    return changed
