"""Fronts, hypervolume and knee, compared with plain definitions."""

import random
from dataclasses import replace

import pytest

from search.config import UserError
from search.trials.pareto import (
    best,
    hypervolume,
    knee,
    losses,
    pareto_front,
    refuse_mixed_devices,
    volumes_so_far,
    worst_losses,
)
from search.trials.records import Costs, Latency, Measurement, Record
from space.architecture import Architecture

DIRECTIONS = {"dice": "maximize", "memory": "minimize", "latency": "minimize"}
REFERENCE = {"dice": 0.0, "memory": 100.0, "latency": 1.0}
LATENCY = Latency(0.5, 0.0, 20, True, "cpu", 2, "float32")


def trial(number, dice, memory, latency, *, state="trained", device="cpu"):
    costs = Costs(1, 1, memory, 1, replace(LATENCY, median_s=latency, device=device))
    architecture = Architecture.of({"channels": (number + 1,)})
    measurement = Measurement(state, costs=costs, dice=dice)
    return Record(number, architecture, (), 0, 0, measurement, "", ended=f"{number:03d}")


def dominates(one, other):
    a, b = (
        [-r.measurement.value("dice"), r.measurement.value("memory"), r.measurement.value("latency")]
        for r in (one, other)
    )
    return all(x <= y for x, y in zip(a, b, strict=True)) and a != b


def test_the_front_is_the_set_of_nondominated_trials():
    rng = random.Random(0)
    records = [trial(n, rng.random(), rng.randrange(1, 100), rng.random()) for n in range(60)]
    expected = {r.number for r in records if not any(dominates(other, r) for other in records)}
    front = pareto_front(records, DIRECTIONS)
    assert {r.number for r in front} == expected
    assert [r.measurement.dice for r in front] == sorted((r.measurement.dice for r in front), reverse=True)


def test_untrained_and_failed_trials_are_never_on_a_front():
    records = [
        trial(0, 0.9, 1, 0.1, state="over budget"),
        trial(1, 0.99, 1, 0.1, state="failed"),
        trial(2, 0.5, 50, 0.5),
    ]
    assert [r.number for r in pareto_front(records, DIRECTIONS)] == [2]


def test_hypervolume_is_a_share_of_the_box():
    assert hypervolume([trial(0, 0.5, 50, 0.5)], DIRECTIONS, REFERENCE) == pytest.approx(0.125)
    assert hypervolume([trial(0, 0.5, 200, 0.5)], DIRECTIONS, REFERENCE) == 0.0
    assert hypervolume([], DIRECTIONS, REFERENCE) == 0.0
    two = [trial(0, 0.5, 50, 0.5), trial(1, 1.0, 50, 0.5), trial(2, 0.1, 90, 0.9)]
    worst = worst_losses(REFERENCE, DIRECTIONS)
    assert volumes_so_far(losses(two, DIRECTIONS), worst) == [0.125, 0.25, 0.25]


def test_the_knee_is_nearest_the_ideal_corner():
    front = [trial(0, 0.9, 90, 0.9), trial(1, 0.88, 20, 0.2), trial(2, 0.2, 10, 0.1)]
    assert knee(front, DIRECTIONS).number == 1
    assert best(front, DIRECTIONS).number == 0
    with pytest.raises(UserError, match="the front is empty"):
        knee([], DIRECTIONS)


def test_latencies_of_two_devices_are_not_mixed():
    records = [trial(0, 0.5, 50, 0.5), trial(1, 0.5, 50, 0.5, device="another"), trial(2, 0.4, 50, 0.5)]
    assert [record.number for record in pareto_front(records, DIRECTIONS)] == [0]
    records += [trial(3, 0.4, 50, 0.5, device="another")]  # a tie: the last setting wins
    assert [record.number for record in pareto_front(records, DIRECTIONS)] == [1]
    with pytest.raises(
        UserError,
        match="different devices, threads or precisions can't be compared on one front: another, 2 threads; cpu",
    ):
        refuse_mixed_devices(["cpu", "another, 2 threads", "cpu"])
    assert len(pareto_front(records, {"dice": "maximize"})) == 1
