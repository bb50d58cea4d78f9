"""nnU-Net's own augmentation library as the oracle: each transform's parameters and effect over 500 draws.

`python tests/test_search_training_augment_oracle.py` prints the table. Distances are two-sample Kolmogorov-Smirnov
statistics; two samples of 500 of one distribution differ by more than 0.123 once in a thousand times.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from batchgeneratorsv2.transforms.intensity.brightness import MultiplicativeBrightnessTransform
from batchgeneratorsv2.transforms.intensity.contrast import BGContrast, ContrastTransform
from batchgeneratorsv2.transforms.intensity.gamma import GammaTransform
from batchgeneratorsv2.transforms.intensity.gaussian_noise import GaussianNoiseTransform
from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
from batchgeneratorsv2.transforms.spatial.low_resolution import SimulateLowResolutionTransform
from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from pydantic import TypeAdapter
from scipy.stats import ks_2samp

from search.config.augment import Augment, Blur, Gamma, LowResolution, Multiplier, Noise, Rotation, Scaling
from search.config.training_section import TrainingField
from search.training.augment import intensity
from search.training.augment.parameters import draw, draw_flips
from search.training.augment.pipeline import change_intensities
from search.training.augment.spatial import mirror, resample

DRAWS = 500
FARTHEST = 0.123  # of two samples of one distribution, at a thousandth
PATCH, BOX = (16, 20, 12), (26, 30, 22)
CHANNELS = 2
LIMIT = np.pi / 6
NOTHING = Augment(scale_intensity=0.0, shift_intensity=0.0, noise=Noise(p=0.0))


def phantom(shape):
    """An asymmetric image (C, D, H, W) of smooth waves, ramps and organs, and its labels (1, D, H, W)."""
    d, h, w = (torch.linspace(0, 1, size) for size in shape)
    grid = torch.meshgrid(d, h, w, indexing="ij")
    waves = torch.sin(9 * grid[0] + 5 * grid[1] ** 2) * torch.cos(7 * grid[2] - 3 * grid[0]) + grid[1]
    labels = torch.zeros(shape)
    labels[shape[0] // 4 : shape[0] // 2, shape[1] // 3 :, : shape[2] // 2] = 1
    labels[shape[0] // 2 :, : shape[1] // 2, shape[2] // 3 :] = 2
    return torch.stack([waves + labels, labels - 0.5 * waves]), labels[None]


IMAGE, LABELS = phantom(PATCH)
IN_BOX, LABELS_IN_BOX = phantom(BOX)


@dataclass(frozen=True)
class Pair:
    """A transform of ours and of theirs: each samples once and returns its parameter and the transformed phantom."""

    ours: Callable[[int], tuple[float, torch.Tensor]]
    theirs: Callable[[], tuple[float, torch.Tensor]]
    before: torch.Tensor


def our_intensity(part: str, always) -> Callable[[int], tuple[float, torch.Tensor]]:
    augment = replace(NOTHING, **{part: always})

    def once(number: int) -> tuple[float, torch.Tensor]:
        drawn = draw(augment, np.random.default_rng((7, number)), patch=PATCH, channels=CHANNELS)
        value = getattr(drawn, part)
        first = value[0] if part == "noise" else float(np.nan if value is None else np.ravel(value)[0])
        return first, change_intensities(IMAGE[None].clone(), [drawn])[0]

    return once


def their_intensity(transform, of: Callable[[dict], float]) -> Callable[[], tuple[float, torch.Tensor]]:
    def once() -> tuple[float, torch.Tensor]:
        image = IMAGE.clone()
        parameters = transform.get_parameters(image=image)
        return of(parameters), transform.apply({"image": image}, **parameters)["image"]

    return once


def first_of(key: str) -> Callable[[dict], float]:
    """Return the first channel's parameter, or NaN if the channel was not transformed."""

    def of(parameters: dict) -> float:
        chosen = torch.as_tensor(parameters["apply_to_channel"])
        there = bool(chosen[0]) if chosen.dtype == torch.bool else 0 in chosen.tolist()
        return float(torch.as_tensor(parameters[key]).flatten()[0]) if there else float("nan")

    return of


def our_spatial(augment: Augment, *, labels: bool) -> Callable[[int], tuple[float, torch.Tensor]]:
    def once(number: int) -> tuple[float, torch.Tensor]:
        drawn = draw(augment, np.random.default_rng((11, number)), patch=PATCH, channels=CHANNELS)
        seen = resample(IN_BOX[None], LABELS_IN_BOX[None], [drawn.affine], patch=PATCH, present=(1, 2))
        return strength(drawn.affine), seen[1 if labels else 0][0]

    return once


def their_spatial(transform: SpatialTransform, *, labels: bool) -> Callable[[], tuple[float, torch.Tensor]]:
    def once() -> tuple[float, torch.Tensor]:
        parameters = transform.get_parameters(image=IN_BOX)
        done = transform.apply({"image": IN_BOX.clone(), "segmentation": LABELS_IN_BOX.clone()}, **parameters)
        return strength(parameters["affine"]), done["segmentation" if labels else "image"]

    return once


def strength(matrix: np.ndarray) -> float:
    """Return the angle of a rotation, plus the factor of a scaling."""
    factor = np.cbrt(np.linalg.det(matrix))
    return float(np.arccos(np.clip((np.trace(matrix / factor) - 1) / 2, -1, 1)) + factor)


def spatial(*, rotation: float, scaling: float) -> SpatialTransform:
    return SpatialTransform(
        PATCH,
        patch_center_dist_from_border=0,
        random_crop=False,
        p_rotation=rotation,
        rotation=(-LIMIT, LIMIT),
        p_scaling=scaling,
        scaling=(0.7, 1.4),
        p_synchronize_scaling_across_axes=1,
        bg_style_seg_sampling=False,
    )


def our_mirror(number: int) -> tuple[float, torch.Tensor]:
    axes = draw_flips(replace(NOTHING, flip=("D", "H", "W")), np.random.default_rng((13, number)))
    return float(len(axes)), torch.from_numpy(mirror(IMAGE.numpy(), axes).copy())


def their_mirror() -> tuple[float, torch.Tensor]:
    transform = MirrorTransform((0, 1, 2))
    parameters = transform.get_parameters(image=IMAGE)
    return float(len(parameters["axes"])), transform.apply({"image": IMAGE.clone()}, **parameters)["image"]


def gammas(invert: float) -> GammaTransform:
    return GammaTransform(BGContrast((0.7, 1.5)), invert, False, 1, 1)


PATCH_IN_BOX = tuple(slice((box - own) // 2, (box - own) // 2 + own) for box, own in zip(BOX, PATCH, strict=True))
ROTATED = replace(NOTHING, rotation=Rotation(p=1.0))
SCALED = replace(NOTHING, scaling=Scaling(p=1.0))
SEEN, SHOWN = IN_BOX[(slice(None), *PATCH_IN_BOX)], LABELS_IN_BOX[(slice(None), *PATCH_IN_BOX)]
PAIRS = {
    "rotation": Pair(
        our_spatial(ROTATED, labels=False), their_spatial(spatial(rotation=1, scaling=0), labels=False), SEEN
    ),
    "rotation of labels": Pair(
        our_spatial(ROTATED, labels=True), their_spatial(spatial(rotation=1, scaling=0), labels=True), SHOWN
    ),
    "scaling": Pair(
        our_spatial(SCALED, labels=False), their_spatial(spatial(rotation=0, scaling=1), labels=False), SEEN
    ),
    "scaling of labels": Pair(
        our_spatial(SCALED, labels=True), their_spatial(spatial(rotation=0, scaling=1), labels=True), SHOWN
    ),
    "noise": Pair(
        our_intensity("noise", Noise(p=1.0)),
        their_intensity(GaussianNoiseTransform((0, 0.1), 1, True), lambda parameters: parameters["sigmas"]),
        IMAGE,
    ),
    "blur": Pair(
        our_intensity("blur", Blur(p=1.0)),
        their_intensity(GaussianBlurTransform((0.5, 1.0), False, False, 0.5), first_of("sigmas")),
        IMAGE,
    ),
    "brightness": Pair(
        our_intensity("brightness", Multiplier(p=1.0)),
        their_intensity(MultiplicativeBrightnessTransform(BGContrast((0.75, 1.25)), False, 1), first_of("multipliers")),
        IMAGE,
    ),
    "contrast": Pair(
        our_intensity("contrast", Multiplier(p=1.0)),
        their_intensity(ContrastTransform(BGContrast((0.75, 1.25)), True, False, 1), first_of("multipliers")),
        IMAGE,
    ),
    "low resolution": Pair(
        our_intensity("low_resolution", LowResolution(p=1.0)),
        their_intensity(
            SimulateLowResolutionTransform((0.5, 1), False, True, None, None, 0.5),
            first_of("scales"),
        ),
        IMAGE,
    ),
    "gamma, inverted": Pair(
        our_intensity("gamma_inverted", Gamma(p=1.0)), their_intensity(gammas(1), first_of("gamma")), IMAGE
    ),
    "gamma": Pair(our_intensity("gamma", Gamma(p=1.0)), their_intensity(gammas(0), first_of("gamma")), IMAGE),
    "mirror": Pair(our_mirror, their_mirror, IMAGE),
}


def effect(after: torch.Tensor, before: torch.Tensor) -> tuple[float, float, float, float]:
    """Return mean, standard deviation, share of changed voxels and histogram distance."""
    low, high = float(before.min()) - 0.5, float(before.max()) + 0.5
    shares = [torch.histc(each, 40, low, high) / each.numel() for each in (after, before)]
    changed = (after - before).abs() > 1e-4
    values = (after.mean(), after.std(), changed.float().mean(), (shares[0] - shares[1]).abs().sum() / 2)
    return tuple(round(float(value), 3) for value in values)


def distances(pair: Pair) -> tuple[dict[str, float], np.ndarray, np.ndarray]:
    """Return how far parameters and effects are from theirs over 500 draws, and the mean effects of both."""
    np.random.seed(5)
    torch.manual_seed(5)
    mine = [pair.ours(number) for number in range(DRAWS)]
    its = [pair.theirs() for _ in range(DRAWS)]
    parameters = [np.nan_to_num([value for value, _ in each], nan=-1.0) for each in (mine, its)]
    effects = [np.array([effect(after, pair.before) for _, after in each]) for each in (mine, its)]
    found = {"parameter": ks_2samp(*parameters).statistic}
    for column, name in enumerate(("mean", "std", "changed", "histogram")):
        found[name] = ks_2samp(effects[0][:, column], effects[1][:, column]).statistic
    return {name: float(value) for name, value in found.items()}, effects[0].mean(0), effects[1].mean(0)


@pytest.mark.parametrize("name", PAIRS)
def test_parameters_and_effects_have_the_same_distribution_as_nnunets(name):
    apart, mine, _ = distances(PAIRS[name])
    assert mine[2] > 0.02, "the transform changes nothing"
    assert max(apart.values()) < FARTHEST, apart


def test_the_same_parameters_have_the_same_effect():
    x, rows = IMAGE.clone(), torch.tensor([0.8, 1.3])
    idx, true = torch.arange(2), torch.ones(2, dtype=torch.bool)
    contrast = ContrastTransform(1.0, True, False)._apply_to_image(x.clone(), apply_to_channel=idx, multipliers=rows)
    assert torch.allclose(intensity.contrast(x, rows), contrast, atol=1e-5)
    for invert, ours in ((False, intensity.gamma), (True, intensity.gamma_inverted)):
        said = {"apply_to_channel": idx, "retain_stats": true, "invert_image": true & invert, "gamma": rows}
        assert torch.allclose(ours(x, rows), gammas(0)._apply_to_image(x.clone(), **said), atol=1e-4)
    scales = torch.tensor([[0.53] * 3, [0.91] * 3])
    low = SimulateLowResolutionTransform(1, False, True, None)._apply_to_image(
        x.clone(), apply_to_channel=idx, scales=scales
    )
    operators = intensity.low_resolution_operators(np.array([0.53, 0.91]), PATCH, spare_first=False)
    assert torch.allclose(intensity.along_axes(x, [torch.from_numpy(each) for each in operators]), low, atol=1e-5)
    sigmas = [[0.99, 0.6, 1.0], [0.6, 0.61, 0.99]]
    blurred = GaussianBlurTransform(1.0)._apply_to_image(x.clone(), apply_to_channel=true, sigmas=sigmas)
    operators = intensity.blur_operators(np.array(sigmas), PATCH)
    assert torch.allclose(intensity.along_axes(x, [torch.from_numpy(each) for each in operators]), blurred, atol=5e-3)


def test_the_same_affine_shows_the_same_image_and_labels():
    transform = spatial(rotation=1, scaling=1)
    np.random.seed(0)
    for _ in range(10):
        parameters = transform.get_parameters(image=IN_BOX)
        theirs = transform.apply({"image": IN_BOX.clone(), "segmentation": LABELS_IN_BOX.clone()}, **parameters)
        seen, shown = resample(IN_BOX[None], LABELS_IN_BOX[None], [parameters["affine"]], patch=PATCH, present=(1, 2))
        assert torch.allclose(seen[0], theirs["image"], atol=1e-4)
        assert (shown[0] != theirs["segmentation"]).float().mean() < 2e-3  # ties, which theirs settles in half floats


def test_each_transform_happens_as_often_as_the_recipe_says():
    augment = TypeAdapter(TrainingField).validate_python({"recipe": "nnunet-2.8"}).augment
    drawn = [draw(augment, np.random.default_rng((3, n)), patch=PATCH, channels=1) for n in range(4000)]
    expected = {
        "affine": 1 - 0.8 * 0.8, "noise": 0.1, "blur": 0.2 * 0.5, "brightness": 0.15, "contrast": 0.15,
        "low_resolution": 0.25 * 0.5, "gamma_inverted": 0.1, "gamma": 0.3,
    }  # fmt: skip
    for name, share in expected.items():
        found = np.mean([getattr(each, name) is not None for each in drawn])
        assert abs(found - share) < 4 * np.sqrt(share * (1 - share) / 4000), name


def main() -> None:
    print("| transform | parameter | mean | std | changed | histogram | changed voxels: ours, theirs |")
    print("|---|---|---|---|---|---|---|")
    for name, pair in PAIRS.items():
        apart, mine, its = distances(pair)
        shown = " | ".join(f"{value:.3f}" for value in apart.values())
        print(f"| {name} | {shown} | {mine[2]:.1%}, {its[2]:.1%} |")


if __name__ == "__main__":
    main()
