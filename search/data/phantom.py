"""Synthetic volumes with thick slices, organs that tilt and deform across slices, and slices that are ambiguous alone.

Each case has a `core` inside a `ring`, a `side` organ next to them and a `node` below, as bright shells and blobs in
soft tissue. Texture, noise, bias field and contrast vary between cases. Two effects can be resolved only from
neighbouring slices: in some slices a round region of the organs loses its signal although the organs continue, and some
slices show a decoy as bright as the side organ that is absent from their neighbours.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from numpy.typing import NDArray

from search.data.geometry import Spacing, Triple
from search.files import replace_file, write_text

DESCRIPTION = "Synthetic volumes with thick slices; no patient data"
ORGANS = ("core", "ring", "side", "node")
Volume = NDArray[np.float64]


def write_phantom(
    folder: str | Path,
    *,
    cases: int = 12,
    shape: Triple = (64, 64, 12),
    spacing: Spacing = (1.5, 1.5, 8.0),
    classes: int = 3,
    seed: int = 0,
) -> None:
    """Write a Decathlon folder of synthetic volumes; the same arguments give the same bytes.

    `shape` (X, Y, Z) and `spacing` in mm are nominal: the number of slices varies by up to 2, and every third case is
    10 % coarser in the plane. `classes` is the number of organs, 1 to 4.
    """
    if not 1 <= classes <= len(ORGANS):
        raise ValueError(f"a phantom has 1 to {len(ORGANS)} classes, got {classes}")
    if cases < 1 or min(shape[:2]) < 16 or shape[2] < 1:
        raise ValueError(
            f"a phantom needs at least 1 case, 1 slice and 16 x 16 voxels per slice, got {cases} cases of {shape}"
        )
    root = Path(folder)
    for sub in ("imagesTr", "labelsTr"):
        (root / sub).mkdir(parents=True, exist_ok=True)
    names = [f"phantom_{number:03d}" for number in range(cases)]
    for number, name in enumerate(names):
        draw = np.random.default_rng([seed, number])
        slices = max(1, shape[2] + int(draw.integers(-2, 3)) if shape[2] > 4 else shape[2])
        label = _draw_organs((shape[0], shape[1], slices), classes, draw)
        image = _draw_image(label, draw)
        coarser = 1.1 if number % 3 == 2 else 1.0
        affine = np.diag([spacing[0] * coarser, spacing[1] * coarser, spacing[2], 1.0])
        _write(root / f"imagesTr/{name}.nii.gz", image, affine)
        _write(root / f"labelsTr/{name}.nii.gz", label, affine)
    text = json.dumps(_description(names, classes), indent=1)
    write_text(root / "dataset.json", text + "\n")


def holds_other_volumes(folder: Path) -> bool:
    """Return whether a folder holds a data set that `write_phantom` did not write, and would overwrite."""
    file = folder / "dataset.json"
    if not file.exists():
        return False
    try:
        found = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return True
    return not isinstance(found, dict) or found.get("description") != DESCRIPTION


def _draw_organs(shape: Triple, classes: int, draw: np.random.Generator) -> NDArray[np.uint8]:
    """Return the label (X, Y, Z); the value of an organ is its position in `ORGANS`, from 1."""
    x, y, level = _coordinates(shape)
    tilt = draw.uniform(-0.12, 0.12, 2)
    centre = draw.uniform(-0.12, 0.12, 2)
    dx, dy = x - centre[0] - tilt[0] * level, y - centre[1] - tilt[1] * level
    angle, distance = np.arctan2(dy, dx), np.hypot(dx, dy)
    wobble = 1.0 + sum(
        draw.uniform(0.02, 0.08) / wave * np.cos(wave * angle + draw.uniform(0, 6.28)) for wave in (2, 3, 4)
    )
    # Wide at the base and closed at the apex; both ends are just inside the volume
    taper = np.sqrt(np.clip(1.0 - ((level + 0.25) / draw.uniform(0.95, 1.15)) ** 2, 0.0, None))
    outer = draw.uniform(0.36, 0.46) * wobble * taper
    inner = outer * draw.uniform(0.52, 0.64)
    turned = draw.uniform(-0.5, 0.5)
    reach = np.cos(angle - np.pi - turned)
    side_outer = outer * (1.0 + draw.uniform(0.55, 0.75) * np.clip(reach, 0.0, None) ** 0.7)
    node_x, node_y = (0.62 * np.cos(turned - 1.6), 0.62 * np.sin(turned - 1.6))
    node = np.hypot(dx - node_x, dy - node_y) < draw.uniform(0.12, 0.17) * np.sqrt(taper)
    label = np.zeros(shape, dtype=np.uint8)
    regions = (distance < inner, distance < outer, (distance < side_outer) & (level > -0.7), node)
    for value, inside in list(enumerate(regions, start=1))[:classes]:
        label[inside & (label == 0)] = value
    return label


def _draw_image(label: NDArray[np.uint8], draw: np.random.Generator) -> NDArray[np.int16]:
    """Return an image for a label, int16 (X, Y, Z)."""
    x, y, level = _coordinates(label.shape)
    tissue = 0.42 + 0.06 * _texture(label.shape, draw)
    # Core and side have nearly the same brightness; only their position distinguishes them
    brightness = np.array([0.0, 0.86, 0.20, 0.82, 0.64]) + draw.uniform(-0.04, 0.04, 5)
    seen = np.where(label > 0, brightness[label], tissue)
    for number in _ambiguous_slices(label.shape[2], draw):
        here = np.s_[:, :, number]
        if draw.random() < 0.5:
            seen[here] = _lose_signal(seen[here], tissue[here], (x[here], y[here]), draw)
        else:
            seen[here] = _add_decoy(seen[here], label[here], (x[here], y[here]), brightness[3], draw)
    slope = draw.uniform(-0.18, 0.18, 3)
    bias = np.exp(slope[0] * x + slope[1] * y + slope[2] * x * y + draw.uniform(-0.1, 0.1) * level)
    noisy = seen * bias + draw.normal(0.0, draw.uniform(0.04, 0.07), label.shape)
    gain, offset = draw.uniform(250.0, 1500.0), draw.uniform(0.0, 100.0)
    image: NDArray[np.int16] = np.clip(np.rint(gain * noisy + offset), 0, 32767).astype(np.int16)
    return image


def _lose_signal(seen: Volume, tissue: Volume, plane: tuple[Volume, Volume], draw: np.random.Generator) -> Volume:
    """Return a slice in which a round region near the centre shows plain tissue."""
    angle, radius = draw.uniform(0, 2 * np.pi), draw.uniform(0.1, 0.35)
    distance = np.hypot(plane[0] - radius * np.cos(angle), plane[1] - radius * np.sin(angle))
    share = 1.0 / (1.0 + np.exp((distance - draw.uniform(0.2, 0.32)) / 0.03))
    mixed: Volume = seen * (1.0 - share) + tissue * share
    return mixed


def _add_decoy(
    seen: Volume,
    label: NDArray[np.uint8],
    plane: tuple[Volume, Volume],
    brightness: float,
    draw: np.random.Generator,
) -> Volume:
    """Return a slice with a bright round spot outside the organs."""
    angle, radius = draw.uniform(0, 2 * np.pi), draw.uniform(0.5, 0.8)
    distance = np.hypot(plane[0] - radius * np.cos(angle), plane[1] - radius * np.sin(angle))
    return np.where((distance < draw.uniform(0.12, 0.2)) & (label == 0), brightness, seen)


def _ambiguous_slices(slices: int, draw: np.random.Generator) -> list[int]:
    """Choose about a third of the inner slices, no two of them adjacent."""
    chosen: list[int] = []
    for number in draw.permutation(np.arange(1, max(slices - 1, 1))).tolist():
        if len(chosen) < slices // 3 and all(abs(number - other) > 1 for other in chosen):
            chosen.append(number)
    return sorted(chosen)


def _texture(shape: tuple[int, ...], draw: np.random.Generator) -> Volume:
    """Return a smooth texture between about -1 and 1: a sum of waves with random directions."""
    x, y, level = _coordinates(shape)
    waves = np.zeros(shape)
    for _ in range(6):
        along = draw.normal(0.0, 5.0, 2)
        waves += np.cos(along[0] * x + along[1] * y + draw.normal(0.0, 2.0) * level + draw.uniform(0, 6.28))
    return waves / 3.0


def _coordinates(shape: tuple[int, ...]) -> tuple[Volume, Volume, Volume]:
    """Return the x, y, z coordinates of voxel centres, each (X, Y, Z), between -1 and 1."""
    axes = [(np.arange(size) + 0.5) / size * 2.0 - 1.0 for size in shape]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    return x, y, z


def _write(path: Path, array: NDArray[Any], affine: NDArray[np.float64]) -> None:
    image = nibabel.Nifti1Image(array, affine)
    image.header.set_xyzt_units("mm")
    replace_file(path, lambda part: nibabel.save(image, part))


def _description(names: list[str], classes: int) -> dict[str, Any]:
    return {
        "name": "Phantom",
        "description": DESCRIPTION,
        "licence": "CC0",
        "tensorImageSize": "3D",
        "modality": {"0": "MRI"},
        "labels": {str(value): name for value, name in enumerate(("background", *ORGANS[:classes]))},
        "numTraining": len(names),
        "numTest": 0,
        "training": [{"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"} for name in names],
        "test": [],
    }
