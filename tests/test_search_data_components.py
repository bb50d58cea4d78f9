"""Only the largest connected component of a mask is kept: compared with SciPy on odd, thin and tiny volumes."""

import numpy as np
import pytest
from scipy import ndimage

from search.data.components import keep_largest, largest_component

ALL_NEIGHBOURS = np.ones((3, 3, 3))


def reference(inside):
    labels, count = ndimage.label(inside, structure=ALL_NEIGHBOURS)
    return labels == 1 + np.bincount(labels.ravel())[1:].argmax() if count else np.zeros(inside.shape, dtype=bool)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 9), (9, 1, 1), (1, 9, 1), (2, 3, 1), (3, 7, 5), (13, 12, 17)])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.1, 0.3, 0.6, 1.0])
def test_the_largest_component_is_scipys(shape, share):
    rng = np.random.default_rng(hash(shape) % 1000)
    for _ in range(10):
        inside = rng.random(shape) < share
        assert np.array_equal(largest_component(inside), reference(inside))


@pytest.mark.parametrize("step", [(1, 1, 1), (1, -1, 1), (1, 1, -1), (1, -1, -1), (0, 1, -1), (1, 0, 1)])
def test_voxels_that_share_a_corner_or_an_edge_are_connected_and_the_far_sides_are_not(step):
    inside = np.zeros((5, 6, 7), dtype=bool)
    inside[2, 3, 3] = inside[2 + step[0], 3 + step[1], 3 + step[2]] = True
    assert np.array_equal(largest_component(inside), inside)
    apart = np.zeros((5, 6, 7), dtype=bool)
    apart[0, 0, 6] = apart[0, 1, 0] = apart[2, 5, 6] = apart[3, 0, 0] = True  # neighbours only in memory
    assert largest_component(apart).sum() == 1


def test_of_equal_components_the_first_is_kept():
    inside = np.zeros((3, 3, 9), dtype=bool)
    inside[0, 0, 1:3] = inside[2, 2, 5:7] = True
    assert largest_component(inside).nonzero()[2].tolist() == [1, 2]


def test_groups_are_taken_in_turn_and_what_is_removed_becomes_background():
    mask = np.zeros((1, 1, 20), dtype=np.uint16)
    mask[0, 0, [0, 1, 2, 5, 6, 10, 11]] = [1, 1, 2, 2, 2, 300, 300]
    assert keep_largest(mask, []) is mask
    foreground = keep_largest(mask, [(1, 2, 300)])
    assert foreground[0, 0, :3].tolist() == [1, 1, 2] and not foreground[0, 0, 3:].any()
    assert foreground.dtype == np.uint16
    second = keep_largest(mask, [(2,)])
    assert second[0, 0].tolist()[:12] == [1, 1, 0, 0, 0, 2, 2, 0, 0, 0, 300, 300]
    assert not keep_largest(mask, [(1, 2, 300), (2,)])[0, 0, 3:].any()
    assert keep_largest(mask, [(7,)]).tolist() == mask.tolist()
