"""Augmentation: recipes, parameters, transforms on an asymmetric phantom, batches by seed and number."""

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter

from search.config import UserError, load_study
from search.config.augment import Augment, Blur, Gamma, LowResolution, Multiplier, Noise, Rotation, Scaling
from search.config.recipes import AUTO_STEPS, DEFAULT_STEPS, RECIPES
from search.config.training_section import Training, TrainingField
from search.data.prepared import load_prepared
from search.runner.plan import make_plan
from search.training.augment import intensity
from search.training.augment.parameters import draw
from search.training.augment.pipeline import change_intensities
from search.training.augment.spatial import OUTSIDE, affine, box_size, only_in_plane, resample, rotation_limit
from search.training.patches import PatchSource

CUBE = (16, 20, 24)
ALWAYS = Augment(
    noise=Noise(p=1.0),
    rotation=Rotation(p=1.0),
    scaling=Scaling(p=1.0),
    blur=Blur(p=1.0, p_channel=1.0),
    brightness=Multiplier(p=1.0),
    contrast=Multiplier(p=1.0),
    low_resolution=LowResolution(p=1.0, p_channel=1.0),
    gamma_inverted=Gamma(p=1.0),
    gamma=Gamma(p=1.0),
)
OFF = Augment(scale_intensity=0.0, shift_intensity=0.0, noise=Noise(p=0.0))


def training_of(**values) -> Training:
    return TypeAdapter(TrainingField).validate_python(values)


def phantom(shape=CUBE, *, channels=2):
    """An image (1, C, D, H, W) and labels (1, 1, D, H, W) with a corner of class 1 and a bar of class 2."""
    labels = torch.zeros(1, 1, *shape)
    d, h, w = shape
    labels[..., : d // 2, : h // 3, : w // 4] = 1
    labels[..., d // 2 :, h // 2 :, w // 2 : w // 2 + 3] = 2
    images = torch.cat([labels * (number + 1.0) for number in range(channels)], 1)
    return images + 0.01 * torch.linspace(0, 1, w), labels


@pytest.fixture(scope="module")
def prepared(tiny_run):
    plan = make_plan(load_study(tiny_run.file), runs=tiny_run.runs)
    return load_prepared(next(path.parent for path in plan.cache.glob("*/prepared.json")))


def source_of(prepared, *, patch=(5, 24, 24), seed=0, **values):
    training = training_of(patch=list(patch), **values)
    cases = tuple(case.name for case in prepared.cases)
    return PatchSource(prepared, cases=cases, patch=patch, training=training, seed=seed)


def test_the_default_recipe_is_light():
    assert training_of() == Training()
    assert (Training().epochs, Training().steps_per_epoch) == tuple(DEFAULT_STEPS.values())
    assert training_of(recipe="light") == replace(Training(), recipe="light-1")


def test_auto_chooses_by_the_number_of_steps():
    assert training_of(epochs=AUTO_STEPS // 100 - 1, steps_per_epoch=100).recipe == "light-1"
    long = training_of(epochs=AUTO_STEPS // 100, steps_per_epoch=100)
    assert long.recipe == "nnunet-2.8" and long.optimiser == "sgd" and long.augment.rotation.p == 0.2
    assert training_of(recipe="light", epochs=10_000).recipe == "light-1"


def test_a_recipe_sets_only_what_the_study_leaves_open():
    changed = training_of(
        recipe="nnunet-2.8",
        learning_rate=0.003,
        augment={"rotation": "off", "blur": {"p": 0.9}, "noise": 0.3, "gamma": "on"},
    )
    assert changed.learning_rate == 0.003 and changed.weight_decay == 3e-5 and not changed.lowest_head
    assert changed.augment.rotation.p == 0.0 and changed.augment.scaling.p == 0.2
    assert changed.augment.blur == Blur(p=0.9) and changed.augment.noise == Noise(p=0.1, std=0.3)
    light = training_of(recipe="light", augment={"rotation": "on", "noise": {"std": 0.2}})
    assert light.augment.rotation == Rotation(p=0.2) and light.augment.noise == Noise(p=0.5, std=0.2)


@pytest.mark.parametrize("name", RECIPES)
def test_resolving_a_resolved_training_changes_nothing(name):
    from dataclasses import asdict

    training = training_of(recipe=name)
    assert training_of(**asdict(training)) == training


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("recipe: lite", "training.recipe: 'lite' is not known; did you mean 'light'"),
        ("augment: {rotaton: on}", "training.augment.rotaton: unknown key; did you mean 'rotation'"),
        ("augment: {blur: {sigma: 1}}", "training.augment.blur.sigma: unknown key"),
        ("augment: {gamma: {p: 2}}", "training.augment.gamma.p: input should be less than or equal to 1"),
        ("augment: {scaling: {low: 2.0}}", "training.augment.scaling: low (2) is greater than high (1.4)"),
    ],
)
def test_a_mistake_in_a_recipe_is_reported_at_its_key(tiny_run, tmp_path, given, said):
    file = tmp_path / "study.yaml"
    file.write_text(tiny_run.file.read_text().replace("training: {", f"training: {{{given}, "))
    with pytest.raises(UserError) as caught:
        load_study(file, data_root=tiny_run.data)
    assert said in str(caught.value)


@pytest.mark.parametrize("ahead", [True, False], ids=["thread", "no-thread"])
def test_a_batch_of_the_full_recipe_is_a_function_of_seed_and_number(prepared, ahead):
    def batch(seed, number):
        return source_of(prepared, seed=seed, recipe="nnunet-2.8", batch=4).batch_at(number)

    one, again = batch(0, 5), batch(0, 5)
    assert torch.equal(one[0], again[0]) and torch.equal(one[1], again[1])
    assert not torch.equal(one[0], batch(1, 5)[0]) and not torch.equal(one[0], batch(0, 6)[0])
    streaming = source_of(prepared, recipe="nnunet-2.8", batch=4)
    streaming.ahead = ahead
    streamed = list(streaming.batches(4, 7))
    assert torch.equal(streamed[1][0], one[0]) and torch.equal(streamed[1][1], one[1])


def test_a_transform_that_is_switched_off_leaves_the_others_as_they_were():
    def drawn(augment):
        return draw(augment, np.random.default_rng(3), patch=CUBE, channels=2)

    every = drawn(ALWAYS)
    for part in fields(every):
        if part.name == "affine":
            continue
        some = drawn(replace(ALWAYS, **{part.name: replace(getattr(ALWAYS, part.name), p=0.0)}))
        assert getattr(some, part.name) is None
        for other in fields(every):
            if other.name != part.name:
                one, two = getattr(every, other.name), getattr(some, other.name)
                assert np.array_equal(np.array(one), np.array(two))


@pytest.mark.parametrize(
    "part", ["noise", "blur", "brightness", "contrast", "low_resolution", "gamma_inverted", "gamma"]
)
def test_each_transform_of_intensity_changes_its_image(part):
    images, _ = phantom()
    alone = replace(OFF, **{part: getattr(ALWAYS, part)})
    drawn = draw(alone, np.random.default_rng(0), patch=CUBE, channels=2)
    changed = change_intensities(images.clone(), [drawn])
    assert changed.isfinite().all()
    for channel in range(2):
        assert not torch.allclose(changed[0, channel], images[0, channel], atol=1e-3)


@pytest.mark.parametrize("shape", [(1, 9, 7), (2, 5, 3), (1, 1, 1), (3, 33, 17)])
@pytest.mark.parametrize("fill", [0.0, None])
def test_odd_thin_and_constant_images_stay_finite(shape, fill):
    torch.manual_seed(0)
    images = torch.randn(2, 1, *shape) if fill is None else torch.full((2, 1, *shape), fill)
    drawn = [draw(ALWAYS, np.random.default_rng(n), patch=shape, channels=1) for n in range(2)]
    assert change_intensities(images, drawn).isfinite().all()


def test_gamma_keeps_mean_and_deviation_and_contrast_the_range():
    x = torch.rand(3, 6, 7, 8, dtype=torch.float64) * torch.tensor([1.0, 5.0, 100.0]).view(-1, 1, 1, 1) - 1
    exponents = torch.tensor([0.7, 1.0, 1.5], dtype=torch.float64)
    for change in (intensity.gamma, intensity.gamma_inverted):
        changed = change(x, exponents)
        assert torch.allclose(changed.flatten(1).mean(1), x.flatten(1).mean(1))
        assert torch.allclose(changed.flatten(1).std(1), x.flatten(1).std(1))
        assert torch.allclose(changed[1], x[1])
    stretched = intensity.contrast(x, torch.full((3,), 1.25, dtype=torch.float64))
    assert torch.equal(stretched.flatten(1).amax(1), x.flatten(1).amax(1))
    assert (stretched.flatten(1).std(1) > x.flatten(1).std(1)).all()


def test_without_rotation_and_scaling_the_patch_is_unchanged():
    images, labels = phantom()
    seen, shown = resample(images, labels, [np.eye(3)], patch=CUBE, present=(1, 2))
    assert torch.allclose(seen, images, atol=1e-5) and torch.equal(shown, labels)


@pytest.mark.parametrize(("axis", "plane"), [(0, (1, 2)), (1, (0, 2)), (2, (0, 1))])
def test_a_quarter_turn_moves_image_and_labels_alike(axis, plane):
    images, labels = phantom((12, 12, 12))
    angles = np.zeros(3)
    angles[axis] = np.pi / 2
    seen, shown = resample(images, labels, [affine(angles, 1.0, plane=False)], patch=(12, 12, 12), present=(1, 2))
    turns = [torch.rot90(labels, k, [2 + plane[0], 2 + plane[1]]) for k in (1, 3)]
    assert sum(torch.equal(shown, turned) for turned in turns) == 1
    assert torch.allclose(seen[:, :1].round(), shown)
    assert not torch.equal(shown, labels)


def test_scaling_above_one_shows_more_of_the_volume():
    images, labels = phantom((24, 24, 24))
    centre = torch.zeros_like(labels)
    centre[..., 8:16, 8:16, 8:16] = 1
    counts = []
    for factor in (0.7, 1.0, 1.4):
        _, shown = resample(
            images, centre, [affine(np.zeros(3), factor, plane=False)], patch=(24, 24, 24), present=(1,)
        )
        counts.append(int(shown.sum()))
    assert counts[0] > counts[1] > counts[2] > 0
    assert counts[1] == 8**3


@pytest.mark.parametrize("patch", [(16, 20, 24), (15, 9, 13), (4, 32, 32), (1, 17, 33)])
def test_labels_stay_label_values_and_follow_the_image(patch):
    rng = np.random.default_rng(1)
    for _ in range(5):
        drawn = draw(ALWAYS, rng, patch=patch, channels=1)
        box = box_size([drawn.affine], patch=patch, limit_degrees=rotation_limit(ALWAYS.rotation, patch))
        _, labels = phantom(box)
        shares = torch.cat([labels == 1, labels == 2], 1).float()
        seen, shown = resample(shares, labels, [drawn.affine], patch=patch, present=(1, 2))
        assert set(shown.unique().tolist()) <= {0.0, 1.0, 2.0}
        for value in (1, 2):
            share = seen[:, value - 1 : value]  # of the voxel that the class fills
            assert (shown[share > 0.51] == value).all() and (share[shown == value] > 0.24).all()


def test_voxels_outside_the_volume_become_background():
    images, labels = torch.ones(1, 1, 8, 8, 8), torch.full((1, 1, 8, 8, 8), float(OUTSIDE))
    labels[..., 2:6, 2:6, 2:6] = 1
    far = affine(np.zeros(3), 3.0, plane=False)
    seen, shown = resample(images, labels, [far], patch=(8, 8, 8), present=(OUTSIDE, 1))
    assert set(shown.unique().tolist()) == {0.0, 1.0}
    assert seen[0, 0, 0, 0, 0] == 0 and shown[0, 0, 0, 0, 0] == 0


def test_many_classes_are_resampled_like_few():
    labels = torch.arange(40.0).repeat_interleave(3).view(1, 1, 1, 120, 1).expand(1, 1, 2, 120, 3).contiguous()
    _, shown = resample(labels, labels, [np.diag([1.0, 1.001, 1.0])], patch=(2, 120, 3), present=range(1, 40))
    assert torch.equal(shown[:, :, :, 1::3], labels[:, :, :, 1::3])


@pytest.mark.parametrize(
    ("patch", "flat", "degrees"),
    [((32, 48, 32), False, 30), ((16, 49, 16), True, 180), ((16, 48, 48), False, 30), ((6, 128, 128), True, 180),
     ((1, 64, 64), True, 180), ((1, 64, 128), True, 15)],
)  # fmt: skip
def test_thick_slices_are_turned_within_their_plane(patch, flat, degrees):
    assert only_in_plane(patch) == flat
    assert rotation_limit(Rotation(), patch) == degrees
    matrix = draw(ALWAYS, np.random.default_rng(0), patch=patch, channels=1).affine
    assert (matrix[0].tolist() == [1, 0, 0] and matrix[:, 0].tolist() == [1, 0, 0]) == flat


@pytest.mark.parametrize("patch", [(32, 48, 32), (15, 9, 13), (4, 32, 32), (1, 17, 33)])
def test_a_box_holds_the_patch_and_has_its_parity(patch):
    limit = rotation_limit(Rotation(), patch)
    small = box_size([np.eye(3)], patch=patch, limit_degrees=limit)
    large = box_size(
        [affine(np.radians([30, 30, 30.0]), 1.4, plane=only_in_plane(patch))], patch=patch, limit_degrees=limit
    )
    for own, least, most in zip(patch, small, large, strict=True):
        assert own <= least <= most < 2 * own + 6 and (least - own) % 2 == (most - own) % 2 == 0


def test_forced_patches_are_centred_on_foreground_and_may_hang_over(prepared):
    patch = (5, 24, 24)
    source = source_of(
        prepared, patch=patch, recipe="nnunet-2.8", batch=3, augment={"rotation": "off", "scaling": "off"}
    )
    over = 0
    for number in range(40):
        samples = source._samples(number)
        for forced in samples[2:]:  # the last round(0.33 * 3)
            sizes = forced.volume.label.shape
            centre = [at + length // 2 for at, length in zip(forced.corner, patch, strict=True)]
            over += any(at + length > size for at, length, size in zip(forced.corner, patch, sizes, strict=True))
            if all(at > 0 for at in forced.corner):
                assert forced.volume.label[tuple(centre)] > 0
        for free in samples[:2]:
            assert all(at >= 0 for at in free.corner)
    assert over > 0
    assert source_of(prepared, recipe="nnunet-2.8", batch=2).training.foreground == 0.33


def test_turned_patches_are_not_torn_at_the_border_of_their_box(prepared):
    """Rotated patches show the volume, not padding, wherever they are inside the volume."""
    source = source_of(prepared, patch=(8, 12, 12), recipe="nnunet-2.8", batch=2, augment={"rotation": {"p": 1.0}})
    for number in range(5):
        cut = source.cut_batch(number)
        assert cut.resampled == (0, 1) and cut.boxes is not None
        images, labels = source.batch_at(number)
        assert images.isfinite().all() and set(labels.unique().tolist()) <= {0.0, 1.0, 2.0}
