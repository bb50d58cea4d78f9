"""Surface distances, compared with shapes of known distance."""

import math

import numpy as np
import pytest

from search.data.geometry import Grid
from search.training.surfaces import surface_scores

SPACING = (2.0, 1.0, 5.0)


def block(start, *, shape=(20, 24, 9), size=(8, 10, 4), label=1):
    found = np.zeros(shape, np.uint8)
    found[tuple(slice(first, first + length) for first, length in zip(start, size, strict=True))] = label
    return found


def scores(mask, truth, *, tolerance=1.0, classes=2):
    return surface_scores(
        mask, truth, members=[(label,) for label in range(1, classes)], spacing_mm=SPACING, tolerance_mm=tolerance
    )


def test_equal_masks_have_zero_distance_and_full_surface_dice():
    truth = block((4, 5, 2))
    assert scores(truth, truth) == ((0.0,), (1.0,))


@pytest.mark.parametrize(("axis", "step_mm"), [(0, 2.0), (1, 1.0), (2, 5.0)])
def test_a_shift_by_a_voxel_has_the_distance_of_the_spacing(axis, step_mm):
    start = [4, 5, 2]
    truth = block(start)
    start[axis] += 1
    (distance,), (dice,) = scores(block(start), truth, tolerance=step_mm / 2)
    assert distance == pytest.approx(step_mm)
    assert 0.2 < dice < 1.0
    assert scores(block(start), truth, tolerance=step_mm)[1] == (1.0,)


def test_missed_or_spurious_classes_score_worst_and_absent_ones_are_excluded():
    truth = block((4, 5, 2))
    diagonal = math.hypot(20 * 2, 24 * 1, 9 * 5)
    for mask, against in ((truth * 0, truth), (truth, truth * 0)):
        assert scores(mask, against, classes=3) == ((pytest.approx(diagonal), None), (0.0, None))


def test_a_mask_at_the_border_keeps_its_surface_there():
    truth = block((0, 0, 0))
    (distance,), (dice,) = scores(block((1, 0, 0), size=(7, 10, 4)), truth)
    assert distance == pytest.approx(2.0) and dice < 1.0


def test_spacing_is_returned_in_the_files_axis_order():
    grid = Grid((20, 24, 9), (2, 1, 0), (False, False, False), (5.0, 1.0, 2.0), (9, 24, 20))
    assert grid.source_spacing == SPACING
