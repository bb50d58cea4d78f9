"""Training patches: cut from memory-mapped volumes and augmented, reproducible from seed and batch number."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from search.config.training_section import Training
from search.data.prepared import Prepared, open_case, open_foreground
from search.training.augment.light import Light, apply_light, draw_light
from search.training.augment.parameters import Parameters, draw, draw_flips
from search.training.augment.pipeline import change_intensities
from search.training.augment.spatial import OUTSIDE, Triple, box_size, mirror, resample, rotation_limit

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
    """Origin and augmentation of one patch; `corner` is its first voxel and may lie outside the volume."""

    volume: Volume
    corner: Triple
    flipped: tuple[int, ...]  # indices into (D, H, W)
    parameters: Parameters
    light: Light


@dataclass(frozen=True)
class CutBatch:
    """A batch before augmentation: images (B, C, D, H, W) and labels (B, 1, D, H, W), float32.

    Samples to rotate or scale, at the indices `resampled`, are cut as larger boxes instead: images (M, C, *box) and
    labels (M, 1, *box). `present` lists the nonzero labels in those boxes.
    """

    images: Tensor
    labels: Tensor
    boxes: tuple[Tensor, Tensor] | None
    resampled: tuple[int, ...]
    present: tuple[int, ...]
    drawn: tuple[Parameters, ...]

    def pinned(self) -> CutBatch:
        """Return a copy in pinned memory, from which CUDA copies asynchronously."""
        boxes = (self.boxes[0].pin_memory(), self.boxes[1].pin_memory()) if self.boxes else None
        return replace(self, images=self.images.pin_memory(), labels=self.labels.pin_memory(), boxes=boxes)


def open_volume(prepared: Prepared, case: str) -> Volume:
    """Memory-map a prepared case."""
    voxels = open_foreground(prepared, case)
    found = [np.concatenate([voxels[index] for index in members]) for members in prepared.labelling.members]
    return Volume(*open_case(prepared, case), tuple(each for each in found if len(each)))


class PatchSource:
    """Batches of random patches; batch n depends only on the seed and n, so a training can resume at any batch.

    A thread reads and cuts the next batch on the CPU while the current one trains. A CUDA device augments its batches
    itself, after an asynchronous copy from pinned memory; for training on the CPU the same thread augments them. If the
    training's own threads leave it no cores, there is no such thread: the threads of both would wait for each other.
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
        self.ahead = device.type == "cuda" or len(os.sched_getaffinity(0)) >= 2 * torch.get_num_threads()

    def batches(self, first: int, last: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield batches `first` to `last - 1`; where cores are free, a thread prepares the next one meanwhile.

        Shapes: images (B, C, D, H, W) and labels (B, 1, D, H, W), both float32 on the training's device.
        """
        if not self.ahead:
            yield from map(self.batch_at, range(first, last))
            return
        with ThreadPoolExecutor(1) as worker:
            coming = worker.submit(self._prepare, first)
            for number in range(first, last):
                ready = coming.result()
                if number + 1 < last:
                    coming = worker.submit(self._prepare, number + 1)
                yield self._finish(ready) if isinstance(ready, CutBatch) else ready

    def batch_at(self, number: int) -> tuple[Tensor, Tensor]:
        """Return one augmented batch."""
        return self._finish(self.cut_batch(number))

    def _prepare(self, number: int) -> CutBatch | tuple[Tensor, Tensor]:
        """Do the thread's part of a batch: everything for the CPU, only the cutting for CUDA."""
        cut = self.cut_batch(number)
        return cut.pinned() if self.device.type == "cuda" else self._finish(cut)

    def cut_batch(self, number: int) -> CutBatch:
        """Draw the samples of batch `number` and cut them out of the volumes."""
        samples = self._samples(number)
        resampled = tuple(index for index, each in enumerate(samples) if each.parameters.affine is not None)
        channels = len(samples[0].volume.image)
        images = np.zeros((len(samples), channels, *self.patch), dtype=np.float32)
        labels = np.zeros((len(samples), 1, *self.patch), dtype=np.float32)
        for index, sample in enumerate(samples):
            if index not in resampled:
                images[index], labels[index] = self._patch(sample, sample.corner, self.patch, outside=0)
        boxes = self._boxes([samples[index] for index in resampled]) if resampled else None
        drawn = tuple(each.parameters for each in samples)
        present = _present(boxes[1]) if boxes else ()
        return CutBatch(torch.from_numpy(images), torch.from_numpy(labels), boxes, resampled, present, drawn)

    def _boxes(self, samples: Sequence[Sample]) -> tuple[Tensor, Tensor]:
        """Cut boxes of one size that contain all that the rotated and scaled patches show, around their centres."""
        affines = [each.parameters.affine for each in samples if each.parameters.affine is not None]
        limit = rotation_limit(self.augment.rotation, self.patch)
        box = box_size(affines, patch=self.patch, limit_degrees=limit)
        found = []
        for sample in samples:
            d, h, w = (at - (wide - own) // 2 for at, wide, own in zip(sample.corner, box, self.patch, strict=True))
            found.append(self._patch(sample, (d, h, w), box, outside=OUTSIDE))
        images, labels = zip(*found, strict=True)
        return torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(labels))

    def _patch(self, sample: Sample, corner: Triple, size: Triple, *, outside: int) -> tuple[Array, Array]:
        image, label = _cut(sample.volume, corner, size, outside=outside)
        return apply_light(mirror(image, sample.flipped), sample.light), mirror(label, sample.flipped)

    def _finish(self, cut: CutBatch) -> tuple[Tensor, Tensor]:
        """Copy a cut batch to the device and augment it there."""
        images = cut.images.to(self.device, non_blocking=True)
        labels = cut.labels.to(self.device, non_blocking=True)
        if cut.boxes is not None:
            affines = [drawn.affine for drawn in cut.drawn if drawn.affine is not None]
            boxes = [each.to(self.device, non_blocking=True) for each in cut.boxes]
            indices = list(cut.resampled)
            images[indices], labels[indices] = resample(
                boxes[0], boxes[1], affines, patch=self.patch, present=cut.present
            )
        return change_intensities(images, cut.drawn), labels

    def _samples(self, number: int) -> list[Sample]:
        """Draw a batch's samples.

        The light recipe draws a whole batch from one generator, so that studies begun with it stay reproducible; other
        recipes use a generator per sample.
        """
        training, count = self.training, self.training.samples
        light = training.recipe.startswith("light")
        whole = np.random.default_rng((self.seed, number))
        samples = []
        for index in range(count):
            own = np.random.default_rng((self.seed, number, 1 + index))
            rng = whole if light else own
            volume = self.volumes[rng.integers(len(self.volumes))]
            if training.foreground_at == "centre":
                corner = self._corner_around(volume, rng, forced=index >= round(count * (1 - training.foreground)))
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
        """Choose a patch inside the volume that contains a voxel of a random foreground class, or any patch."""
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
        """Choose a patch as nnU-Net does: if `forced`, centred on a voxel of a random foreground class, else anywhere.

        A forced patch may extend beyond the high end of an axis, never below index 0.
        """
        if forced and volume.foreground:
            centre = _foreground_voxel(volume, rng)
            corner = [max(0, int(at) - length // 2) for at, length in zip(centre, self.patch, strict=True)]
        else:
            slack = [max(0, size - length) for size, length in zip(volume.label.shape, self.patch, strict=True)]
            corner = [int(rng.integers(most + 1)) for most in slack]
        return self._centred(volume, corner)

    def _centred(self, volume: Volume, corner: Sequence[int]) -> Triple:
        """Centre the volume in the patch along axes where the volume is shorter."""
        gaps = [max(0, length - size) for size, length in zip(volume.label.shape, self.patch, strict=True)]
        d, h, w = (-(gap // 2) if gap else at for at, gap in zip(corner, gaps, strict=True))
        return d, h, w


def _present(labels: Tensor) -> tuple[int, ...]:
    """Return the nonzero labels in ascending order; OUTSIDE counts as one."""
    counts = torch.bincount((labels.flatten() - OUTSIDE).int())
    return tuple(value for shifted in counts.nonzero().flatten().tolist() if (value := shifted + OUTSIDE))


def _foreground_voxel(volume: Volume, rng: np.random.Generator) -> NDArray[np.int32]:
    voxels = volume.foreground[rng.integers(len(volume.foreground))]
    chosen: NDArray[np.int32] = voxels[rng.integers(len(voxels))]
    return chosen


def _cut(volume: Volume, corner: Triple, size: Triple, *, outside: int) -> tuple[Array, Array]:
    """Cut a box out of a volume; outside it the image is 0 (the mean intensity) and the label is `outside`."""
    image = np.zeros((len(volume.image), *size), dtype=np.float32)
    label = np.full((1, *size), outside, dtype=np.float32)
    source: list[slice] = []
    target: list[slice] = []
    for at, length, own in zip(corner, size, volume.label.shape, strict=True):
        first, last = max(at, 0), min(at + length, own)
        source.append(slice(first, max(first, last)))
        target.append(slice(first - at, max(first, last) - at))
    d, h, w = source
    image[:, target[0], target[1], target[2]] = volume.image[:, d, h, w]
    label[0, target[0], target[1], target[2]] = volume.label[d, h, w]
    return image, label
