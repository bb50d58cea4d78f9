"""Decisions as numbers: fixed length, names, marks for closed axes; coded rows behave like the space."""

from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from space.axes import Axis
from space.canonical import Context
from space.encoding import Coded, is_ordered
from space.narrow import narrow
from space.space import Space

CONTEXT = Context((16, 32, 32), (1.0, 1.0, 1.0), 1, 3)
SMALL = Space(
    (
        Axis("levels", (3, 4), ""),
        Axis("norm", ("batch", "layer"), ""),
        Axis("fixed", (7,), ""),
        Axis("width", (0, 8, 16), "", (("levels", (4,)),)),
    ),
    CONTEXT,
)
SPACES = {placement: narrow(CONTEXT, placement=placement, fix={}, choices={}) for placement in ("each", "tied")}
PLACEMENTS = pytest.mark.parametrize("placement", SPACES)


def test_choices_are_counted_from_1_and_closed_axes_are_0():
    closed = {"levels": 3, "norm": "layer", "fixed": 7}
    zero = {"levels": 4, "norm": "batch", "fixed": 7, "width": 0}
    assert Coded(SMALL).encode([closed, zero]).tolist() == [[1, 2, 1, 0], [2, 1, 1, 1]]
    assert Coded(SMALL).free.tolist() == [0, 1, 3]


def test_no_decisions_give_an_empty_matrix_of_the_same_width():
    assert Coded(SMALL).encode([]).shape == (0, 4)


def test_similarity_is_symmetric_one_on_the_diagonal_and_falls_with_distance():
    for similarity in Coded(SMALL).similarities:
        assert np.allclose(similarity, similarity.T) and np.allclose(np.diag(similarity), 1)
        assert not similarity[0, 1:].any()
        assert np.linalg.eigvalsh(similarity).min() > -1e-9  # a kernel
    width = Coded(SMALL).similarities[2]
    assert 0 < width[1, 3] < width[1, 2] < 1


@PLACEMENTS
@given(seed=st.integers(0, 10_000))
def test_two_different_decision_sets_never_share_a_row(placement, seed):
    space, rng = SPACES[placement], Random(seed)
    first = space.sample(rng)
    others = [first, *(each for _, each in zip(range(20), space.neighbours(first), strict=False)), space.sample(rng)]
    distinct = {tuple(sorted(each.items(), key=str)) for each in others}
    assert len({row.tobytes() for row in Coded(space).encode(others)}) == len(distinct)


@PLACEMENTS
@given(seed=st.integers(0, 10_000))
def test_coded_rows_are_complete_decision_sets_and_can_be_decoded(placement, seed):
    space, rng = SPACES[placement], np.random.default_rng(seed)
    coded = Coded(space)
    rows = coded.sample(rng, 4)
    made = np.concatenate(
        [rows, coded.vary(rng, rows, share=0.3), coded.cross(rng, rows, rows[::-1]), coded.neighbours(rows[0])[:8]]
    )
    for row in made:
        decisions = coded.decode(row)
        assert space.complete(decisions) == decisions  # nothing missing, nothing closed
        assert (coded.encode([decisions])[0] == row).all()


@PLACEMENTS
def test_coded_neighbours_are_the_spaces_neighbours(placement):
    space, coded = SPACES[placement], Coded(SPACES[placement])
    decisions = space.sample(Random(3))
    expected = coded.encode(list(space.neighbours(decisions)))
    made = coded.neighbours(coded.encode([decisions])[0])
    assert {row.tobytes() for row in expected} == {row.tobytes() for row in made}


def test_a_crossover_takes_every_decision_from_a_parent_that_has_it():
    coded = Coded(SMALL)
    ones, others = (
        coded.encode([{"levels": 3, "norm": "layer", "fixed": 7}]),
        coded.encode([{"levels": 4, "norm": "batch", "fixed": 7, "width": 16}]),
    )
    rng = np.random.default_rng(0)
    children = {tuple(coded.cross(rng, ones, others)[0]) for _ in range(60)}
    assert children == {(1, 1, 1, 0), (1, 2, 1, 0), (2, 1, 1, 3), (2, 2, 1, 3)}


def test_flags_are_not_numbers():
    assert not is_ordered(Axis("flag", (True, False), "")) and is_ordered(Axis("rate", (0.0, 1), ""))
