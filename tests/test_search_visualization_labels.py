"""Labels of points: they keep apart, stay within the plot, and are left out where there is no place."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from search.visualization.figures.labels import (
    HEIGHT,
    LETTER,
    LINE,
    MOST_COVERED,
    PLACES,
    WIDTH,
    _box,
    _overlap,
    _pixels,
    label_places,
)


def boxes_of(x, y, names):
    across, down = _pixels(x, WIDTH), HEIGHT - _pixels(y, HEIGHT)
    places = label_places(x, y, names)
    return [
        _box(place, a, d, len(name)) for place, a, d, name in zip(places, across, down, names, strict=True) if place
    ]


def test_a_lone_point_has_its_label_at_the_top_right():
    assert label_places(np.array([3.0]), np.array([0.5]), ["base"]) == ["top right"]


def test_a_label_at_the_right_end_points_to_the_left():
    first, last = label_places(np.array([0.0, 1.0]), np.array([0.0, 1.0]), ["no attention", "bottleneck only"])
    assert first.endswith("right") and last.endswith("left")


def test_points_at_one_place_keep_only_the_labels_that_fit():
    places = label_places(np.zeros(9), np.zeros(9), [f"arm {number}" for number in range(9)])
    assert places[0] is not None and places[-1] is None


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1), st.integers(1, 34)), min_size=1, max_size=12))
def test_labels_hardly_cover_each_other_or_leave_the_plot(points):
    x, y = np.array([each[0] for each in points]), np.array([each[1] for each in points])
    names = ["x" * each[2] for each in points]
    boxes = boxes_of(x, y, names)
    for at, box in enumerate(boxes):
        letters = (box[2] - box[0]) / LETTER
        covered = sum(_overlap(box, each) for each in boxes[:at])
        assert covered <= MOST_COVERED * letters * LETTER * LINE + 1e-6
        assert -MOST_COVERED * letters * LETTER - 1e-6 <= box[0]
    assert all(place in (*PLACES, None) for place in label_places(x, y, names))
