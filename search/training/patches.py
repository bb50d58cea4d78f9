"""Training patches: cut from memory-mapped volumes and augmented, the same again for a seed and batch number."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from search.config.schema import Training
from search.data.prepare import Prepared, open_case, open_foreground
from search.training.augment.light import Light, change_lightly, draw_light
from search.training.augment.parameters import Parameters, draw, draw_flips
from search.training.augment.pipeline import change_intensities
from search.training.augment.spatial import OUTSIDE, Triple, box_around, mirror, resample, rotation_limit

Array = NDArray[np.float32]
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Volume:
    """One prepared case: image (C, D, H, W), label (D, H, W), and sampled voxels (n, 3) of each class or region."""

    image: NDArray[np.float32]
    label: NDArray[Any]
    foreground: tuple[NDArray[np.int32], ...]


@dataclass(frozen=True)
class Sample:
    """Where one patch comes from and what happens to it; `corner` is its first voxel, maybe outside the volume."""

    volume: Volume
    corner: Triple
    flipped: tuple[int, ...]  # axes of (D, H, W)
    parameters: Parameters
    light: Light


@dataclass(frozen=True)
class Cut:
    """A batch before it is augmented: patches (B, C, D, H, W) and labels (B, 1, D, H, W), float32.

    The samples `turned` are cut as boxes instead, (M, C, *box) and (M, 1, *box), for what rotation and scaling show;
    `present` are the labels of those beside 0.
    """

    images: Tensor
    labels: Tensor
    boxes: tuple[Tensor, Tensor] | None
    turned: tuple[int, ...]
    present: tuple[int, ...]
    drawn: tuple[Parameters, ...]

    def pinned(self) -> Cut:
        """Return the same in memory that a CUDA device reads by itself."""
        boxes = (self.boxes[0].pin_memory(), self.boxes[1].pin_memory()) if self.boxes else None
        return replace(self, images=self.images.pin_memory(), labels=self.labels.pin_memory(), boxes=boxes)


def open_volume(prepared: Prepared, case: str) -> Volume:
    """Map a case into memory."""
    voxels = open_foreground(prepared, case)
    found = [np.concatenate([voxels[index] for index in members]) for members in prepared.labelling.members]
    return Volume(*open_case(prepared, case), tuple(each for each in found if len(each)))


class PatchSource:
    """Batches of random patches; batch number n is a function of the seed and n alone, so training can resume.

    Volumes are read and cut on the CPU. On CUDA the batch is augmented there, from pinned memory copied
    asynchronously; on the CPU both are done in a thread beside the training.
    """

    def __init__(
        self,
        prepared: Prepared,
        *,
        cases: tuple[str, ...],
        patch: Triple,
        training: Training,
        seed: int,
        device: torch.device = CPU,
    ) -> None:
        self.volumes = [open_volume(prepared, case) for case in cases]
        self.patch, self.device = patch, device
        self.training, self.augment, self.seed = training, training.augment, seed

    def batches(self, first: int, last: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield batches `first` to `last - 1`; the next one is prepared while the present one trains.

        Shapes: images (B, C, D, H, W) and labels (B, 1, D, H, W), both float32 on the training's device.
        """
        with ThreadPoolExecutor(1) as worker:
            coming = worker.submit(self._prepare, first)
            for number in range(first, last):
                ready = coming.result()
                if number + 1 < last:
                    coming = worker.submit(self._prepare, number + 1)
                yield self._finish(ready) if isinstance(ready, Cut) else ready

    def batch_at(self, number: int) -> tuple[Tensor, Tensor]:
        """Make one batch."""
        return self._finish(self.cut_at(number))

    def _prepare(self, number: int) -> Cut | tuple[Tensor, Tensor]:
        """Do what can be done beside the training: all on the CPU, the cutting alone for CUDA."""
        cut = self.cut_at(number)
        return cut.pinned() if self.device.type == "cuda" else self._finish(cut)

    def cut_at(self, number: int) -> Cut:
        """Draw what batch `number` holds and cut it out of the volumes."""
        samples = self._samples(number)
        turned = tuple(place for place, each in enumerate(samples) if each.parameters.affine is not None)
        channels = len(samples[0].volume.image)
        images = np.zeros((len(samples), channels, *self.patch), dtype=np.float32)
        labels = np.zeros((len(samples), 1, *self.patch), dtype=np.float32)
        for place, sample in enumerate(samples):
            if place not in turned:
                images[place], labels[place] = self._patch(sample, sample.corner, self.patch, outside=0)
        boxes = self._boxes([samples[place] for place in turned]) if turned else None
        drawn = tuple(each.parameters for each in samples)
        present = _present(boxes[1]) if boxes else ()
        return Cut(torch.from_numpy(images), torch.from_numpy(labels), boxes, turned, present, drawn)

    def _boxes(self, samples: Sequence[Sample]) -> tuple[Tensor, Tensor]:
        """Cut what the turned patches show, in boxes of one size around their centres."""
        affines = [each.parameters.affine for each in samples if each.parameters.affine is not None]
        limit = rotation_limit(self.augment.rotation, self.patch)
        box = box_around(affines, patch=self.patch, limit_degrees=limit)
        found = []
        for sample in samples:
            d, h, w = (at - (wide - own) // 2 for at, wide, own in zip(sample.corner, box, self.patch, strict=True))
            found.append(self._patch(sample, (d, h, w), box, outside=OUTSIDE))
        images, labels = zip(*found, strict=True)
        return torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(labels))

    def _patch(self, sample: Sample, corner: Triple, size: Triple, *, outside: int) -> tuple[Array, Array]:
        image, label = _cut(sample.volume, corner, size, outside=outside)
        return change_lightly(mirror(image, sample.flipped), sample.light), mirror(label, sample.flipped)

    def _finish(self, cut: Cut) -> tuple[Tensor, Tensor]:
        """Bring a cut batch to the device and augment it there."""
        images = cut.images.to(self.device, non_blocking=True)
        labels = cut.labels.to(self.device, non_blocking=True)
        if cut.boxes is not None:
            affines = [drawn.affine for drawn in cut.drawn if drawn.affine is not None]
            boxes = [each.to(self.device, non_blocking=True) for each in cut.boxes]
            places = list(cut.turned)
            images[places], labels[places] = resample(
                boxes[0], boxes[1], affines, patch=self.patch, present=cut.present
            )
        return change_intensities(images, cut.drawn), labels

    def _samples(self, number: int) -> list[Sample]:
        """Draw a batch: the light recipe from one stream, as it always was, others sample by sample."""
        training, count = self.training, self.training.batch
        light = training.recipe.startswith("light")
        whole = np.random.default_rng((self.seed, number))
        samples = []
        for place in range(count):
            own = np.random.default_rng((self.seed, number, 1 + place))
            rng = whole if light else own
            volume = self.volumes[rng.integers(len(self.volumes))]
            if training.foreground_at == "centre":
                corner = self._corner_around(volume, rng, forced=place >= round(count * (1 - training.foreground)))
            else:
                corner = self._corner(volume, rng)
            flipped = draw_flips(self.augment, rng)
            channels = len(volume.image)
            parameters = draw(self.augment, own, patch=self.patch, channels=channels)
            if light and parameters.affine is None:
                parameters = replace(parameters, noise=None)
            shape = (channels, *self.patch) if light and parameters.affine is None else None
            samples.append(Sample(volume, corner, flipped, parameters, draw_light(self.augment, rng, shape=shape)))
        return samples

    def _corner(self, volume: Volume, rng: np.random.Generator) -> Triple:
        """Choose a patch within the volume: around a voxel of a random foreground class, or anywhere."""
        slack = [max(0, size - length) for size, length in zip(volume.label.shape, self.patch, strict=True)]
        if volume.foreground and rng.random() < self.training.foreground:
            centre = _foreground_voxel(volume, rng)
            corner = [
                int(np.clip(at - rng.integers(length), 0, most))
                for at, length, most in zip(centre, self.patch, slack, strict=True)
            ]
        else:
            corner = [int(rng.integers(most + 1)) for most in slack]
        return self._centred(volume, corner)

    def _corner_around(self, volume: Volume, rng: np.random.Generator, *, forced: bool) -> Triple:
        """Choose a patch as nnU-Net does: centred on a voxel of a random foreground class where forced, else anywhere.

        A forced patch may reach beyond the volume's far sides, not beyond its near ones.
        """
        if forced and volume.foreground:
            centre = _foreground_voxel(volume, rng)
            corner = [max(0, int(at) - length // 2) for at, length in zip(centre, self.patch, strict=True)]
        else:
            slack = [max(0, size - length) for size, length in zip(volume.label.shape, self.patch, strict=True)]
            corner = [int(rng.integers(most + 1)) for most in slack]
        return self._centred(volume, corner)

    def _centred(self, volume: Volume, corner: Sequence[int]) -> Triple:
        """Put the volume into the patch's middle along axes on which it is shorter."""
        gaps = [max(0, length - size) for size, length in zip(volume.label.shape, self.patch, strict=True)]
        d, h, w = (-(gap // 2) if gap else at for at, gap in zip(corner, gaps, strict=True))
        return d, h, w


def _present(labels: Tensor) -> tuple[int, ...]:
    """Return the labels beside 0, OUTSIDE among them, in ascending order."""
    counts = torch.bincount((labels.flatten() - OUTSIDE).int())
    return tuple(value for place in counts.nonzero().flatten().tolist() if (value := place + OUTSIDE))


def _foreground_voxel(volume: Volume, rng: np.random.Generator) -> NDArray[np.int32]:
    voxels = volume.foreground[rng.integers(len(volume.foreground))]
    chosen: NDArray[np.int32] = voxels[rng.integers(len(voxels))]
    return chosen


def _cut(volume: Volume, corner: Triple, size: Triple, *, outside: int) -> tuple[Array, Array]:
    """Cut a box out; beyond the volume images are 0 (the mean intensity), labels `outside`."""
    image = np.zeros((len(volume.image), *size), dtype=np.float32)
    label = np.full((1, *size), outside, dtype=np.float32)
    inside: list[slice] = []
    there: list[slice] = []
    for at, length, own in zip(corner, size, volume.label.shape, strict=True):
        first, last = max(at, 0), min(at + length, own)
        inside.append(slice(first, max(first, last)))
        there.append(slice(first - at, max(first, last) - at))
    d, h, w = inside
    image[:, there[0], there[1], there[2]] = volume.image[:, d, h, w]
    label[0, there[0], there[1], there[2]] = volume.label[d, h, w]
    return image, label
