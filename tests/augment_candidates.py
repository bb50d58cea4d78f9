"""nnU-Net's augmentation by three implementations on the same volumes, each as an endless stream of batches."""

from collections.abc import Iterator

import numpy as np
import torch
from batchgeneratorsv2.transforms.intensity.brightness import MultiplicativeBrightnessTransform
from batchgeneratorsv2.transforms.intensity.contrast import BGContrast, ContrastTransform
from batchgeneratorsv2.transforms.intensity.gamma import GammaTransform
from batchgeneratorsv2.transforms.intensity.gaussian_noise import GaussianNoiseTransform
from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
from batchgeneratorsv2.transforms.spatial.low_resolution import SimulateLowResolutionTransform
from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.random import RandomTransform
from monai import transforms as monai
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from search.training.augment.spatial import LARGEST_SCALE
from search.training.patches import PatchSource, _cut

LIMIT = np.pi / 6
KEYS = ("image", "label")


class Boxes(IterableDataset):
    """Boxes as nnU-Net cuts them for every sample, augmented by a function of a sample's mapping."""

    def __init__(self, source: PatchSource, change, *, image: str, label: str) -> None:
        self.source, self.change, self.names = source, change, (image, label)
        turn = np.cos(LIMIT) + np.sin(LIMIT)
        self.box = tuple(int(size * turn / LARGEST_SCALE) for size in source.patch)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        info = get_worker_info()
        seed = info.id if info else 0
        rng = np.random.default_rng(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        torch.set_num_threads(1)
        while True:
            volume = self.source.volumes[rng.integers(len(self.source.volumes))]
            corner = tuple(
                int(rng.integers(max(1, size - own + 1))) - (box - own) // 2
                for size, own, box in zip(volume.label.shape, self.source.patch, self.box, strict=True)
            )
            pair = [torch.from_numpy(each) for each in _cut(volume, corner, self.box, outside=0)]
            done = self.change(dict(zip(self.names, pair, strict=True)))
            yield tuple(torch.as_tensor(done[name]) for name in self.names)


def ours(source: PatchSource) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Batches as training takes them."""
    return source.batches(0, 10**9)


def batchgenerators(source: PatchSource, *, workers: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """batchgeneratorsv2 in worker processes, in nnU-Net's order and probabilities."""
    contrast, gamma = BGContrast((0.75, 1.25)), BGContrast((0.7, 1.5))
    chain = ComposeTransforms([
        SpatialTransform(
            source.patch, 0, False, p_rotation=0.2, rotation=(-LIMIT, LIMIT), p_scaling=0.2, scaling=(0.7, 1.4),
            p_synchronize_scaling_across_axes=1,
        ),
        RandomTransform(GaussianNoiseTransform((0, 0.1), 1, True), 0.1),
        RandomTransform(GaussianBlurTransform((0.5, 1.0), False, False, 0.5), 0.2),
        RandomTransform(MultiplicativeBrightnessTransform(contrast, False, 1), 0.15),
        RandomTransform(ContrastTransform(contrast, True, False, 1), 0.15),
        RandomTransform(SimulateLowResolutionTransform((0.5, 1), False, True, None, None, 0.5), 0.25),
        RandomTransform(GammaTransform(gamma, 1, False, 1, 1), 0.1),
        RandomTransform(GammaTransform(gamma, 0, False, 1, 1), 0.3),
        MirrorTransform((0, 1, 2)),
    ])  # fmt: skip
    boxes = Boxes(source, lambda sample: chain(**sample), image="image", label="segmentation")
    return iter(DataLoader(boxes, batch_size=source.training.batch, num_workers=workers))


def with_monai(source: PatchSource, *, workers: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """MONAI in worker processes: its nearest equivalents, at the same probabilities."""
    chain = monai.Compose([
        monai.RandAffined(
            KEYS, prob=0.36, rotate_range=(LIMIT,) * 3, scale_range=((-0.3, 0.4),) * 3, spatial_size=source.patch,
            mode=("bilinear", "nearest"), padding_mode="zeros",
        ),
        monai.CenterSpatialCropd(KEYS, source.patch),
        monai.RandGaussianNoised("image", prob=0.1, std=0.1),
        monai.RandGaussianSmoothd("image", (0.5, 1), (0.5, 1), (0.5, 1), prob=0.1),
        monai.RandScaleIntensityd("image", 0.25, prob=0.15),
        monai.RandScaleIntensityFixedMeand("image", prob=0.15, factors=0.25, preserve_range=True),
        monai.RandSimulateLowResolutiond("image", prob=0.125, zoom_range=(0.5, 1.0)),
        monai.RandAdjustContrastd("image", prob=0.1, gamma=(0.7, 1.5), invert_image=True, retain_stats=True),
        monai.RandAdjustContrastd("image", prob=0.3, gamma=(0.7, 1.5), retain_stats=True),
        *(monai.RandFlipd(KEYS, prob=0.5, spatial_axis=axis) for axis in range(3)),
    ])  # fmt: skip
    boxes = Boxes(source, chain, image="image", label="label")
    return iter(DataLoader(boxes, batch_size=source.training.batch, num_workers=workers))
