"""Costs: predictions compared with slow reference implementations."""

from random import Random

import pytest
import torch

from search.config.training_section import Training
from search.costs.latency import half_interval, measure_latency, repeat
from search.costs.live_bytes import LiveBytes
from search.costs.macs import params_and_macs
from search.costs.memory import CPU, inference_memory_bytes, measure_training_memory, training_memory_bytes
from search.costs.price import predict_costs
from search.data.labelling import Labelling
from space.build import build
from space.canonical import Context
from space.feasible import why_not
from space.narrow import narrow
from space.unet import UNet

CONTEXT = Context(patch=(5, 33, 28), spacing=(8.0, 1.5, 1.5), in_channels=2, classes=3)
SPACE = narrow(CONTEXT, placement="each", fix={"levels": 3, "width_cap": 32}, choices={"width": [4, 16]})


def sampled(number):
    rng, found = Random(7), []
    while len(found) < number:
        architecture = SPACE.architecture(SPACE.sample(rng))
        if why_not(architecture, CONTEXT) is None:
            found.append(architecture)
    return found


@pytest.mark.parametrize(
    ("number", "optimiser"),
    [
        *((number, "adamw") for number in range(4)),
        (0, "sgd"),
        *(pytest.param(number, "sgd", marks=pytest.mark.long) for number in range(1, 4)),
    ],
)
def test_predicted_training_memory_equals_the_peak_of_a_real_step(number, optimiser):
    architecture = sampled(4)[number]
    training = Training(patch=CONTEXT.patch, batch=3, optimiser=optimiser)
    predicted = training_memory_bytes(architecture, CONTEXT, training)
    measured = measure_training_memory(build(architecture, CONTEXT), CONTEXT, training, device=CPU)
    assert predicted == pytest.approx(measured.allocated_bytes, rel=0.01) and measured.reserved_bytes is None
    assert training_memory_bytes(architecture, CONTEXT, training) == predicted


@pytest.mark.parametrize(
    "labelling",
    [
        Labelling(("background", "whole", "core", "side"), (0, 1, 2, 3), ((1, 2, 3), (2, 3), (3,)), (1, 2, 3)),
        Labelling(("background", "a", "b"), (0, 1, 2), ignore=3),
        Labelling(("background", "a", "b", "c"), (0, 1, 2, 3), ((1, 2), (2, 3), (3,)), (1, 2, 3), ignore=9),
    ],
    ids=["regions", "ignore", "both"],
)
@pytest.mark.parametrize("cuda", [False, True])
def test_predicted_training_memory_is_that_of_the_labellings_own_loss(labelling, cuda):
    architecture, training = sampled(1)[0], Training(patch=CONTEXT.patch, batch=3)
    device = torch.device("cuda" if cuda else "cpu")
    predicted = training_memory_bytes(architecture, CONTEXT, training, labelling=labelling, device=device)
    assert predict_costs(architecture, CONTEXT, training, labelling=labelling, device=device).memory_bytes == predicted
    if not cuda:
        network = build(architecture, CONTEXT)
        measured = measure_training_memory(network, CONTEXT, training, labelling=labelling, device=CPU)
        assert predicted == pytest.approx(measured.allocated_bytes, rel=0.01)


def test_a_price_is_predicted_on_one_abstract_network(monkeypatch):
    architecture, training, builds = sampled(1)[0], Training(patch=CONTEXT.patch, batch=3), []
    made = UNet.__init__
    monkeypatch.setattr(UNet, "__init__", lambda self, *args, **named: builds.append(1) or made(self, *args, **named))
    costs = predict_costs(architecture, CONTEXT, training, device=CPU)
    assert len(builds) == 1
    assert costs.memory_bytes == training_memory_bytes(architecture, CONTEXT, training)
    assert costs.inference_memory_bytes == inference_memory_bytes(architecture, CONTEXT, training)
    assert (costs.params, costs.macs) == params_and_macs(architecture, CONTEXT)


def test_measuring_memory_changes_neither_the_network_nor_the_random_numbers_that_follow():
    network, training = build(sampled(1)[0], CONTEXT), Training(patch=CONTEXT.patch)
    before, state = {name: each.clone() for name, each in network.state_dict().items()}, torch.get_rng_state()
    measure_training_memory(network, CONTEXT, training, device=CPU)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(each, before[name]) for name, each in network.state_dict().items())


def test_memory_grows_with_the_batch_and_inference_needs_less():
    architecture = sampled(1)[0]
    one, four = (training_memory_bytes(architecture, CONTEXT, Training(patch=CONTEXT.patch, batch=n)) for n in (1, 4))
    assert one < four < 4 * one
    assert inference_memory_bytes(architecture, CONTEXT, Training(patch=CONTEXT.patch)) < one


def test_parameters_equal_the_built_networks_and_convolutions_a_hand_count():
    fix = {
        "levels": 3,
        "width": 4,
        "growth": 2,
        "repeats": 1,
        "kernels": "3d",
        "deep_supervision": False,
        "attention": "none",
        "encoder": "plain",
        "upsampling": "nearest",
        "skip": "concat",
        "norm": "instance",
        "downsampling": "max",
    }
    cubic = Context((16, 16, 16), (1.0, 1.0, 1.0), 1, 2)
    space = narrow(cubic, placement="each", fix=fix, choices={})
    architecture = space.architecture(space.complete({}))
    costs = predict_costs(architecture, cubic, Training(patch=cubic.patch), device=CPU)
    assert costs.params == sum(p.numel() for p in build(architecture, cubic).parameters())
    full, half, quarter = 4096, 512, 64  # voxels of each level
    down = 27 * (1 * 4 * full + 4 * 8 * half + 8 * 16 * quarter)
    up = 16 * 8 * quarter + 27 * 16 * 8 * half + 8 * 4 * half + 27 * 8 * 4 * full
    head = 4 * 2 * full
    assert costs.macs == down + up + head


def test_counting_does_not_change_the_network():
    architecture = sampled(1)[0]
    names = set(build(architecture, CONTEXT).state_dict())
    predict_costs(architecture, CONTEXT, Training(patch=CONTEXT.patch), device=CPU)
    assert set(build(architecture, CONTEXT).state_dict()) == names


def test_live_bytes_counts_live_tensors():
    with LiveBytes() as counter:
        one = torch.zeros(1000)
        view = one[:10]
        assert counter.live_bytes == 4000
        two = one + 1
        assert counter.live_bytes == 8000
        del one
        assert counter.live_bytes == 8000  # the view holds it
        del view, two
        assert counter.live_bytes == 0
    assert counter.peak_bytes == 8000


def test_a_latency_records_its_device_and_settings():
    network = build(sampled(1)[0], CONTEXT)
    latency = measure_latency(network, CONTEXT, Training(patch=CONTEXT.patch), device=CPU)
    assert latency.median_s > 0 and latency.iqr_s >= 0 and latency.repeats >= 2
    assert latency.device and latency.threads == torch.get_num_threads() and latency.precision == "float32"


class Clock:
    """Runs that take given seconds, the last of them for ever."""

    def __init__(self, *seconds):
        self.seconds, self.runs = list(seconds), 0

    def __call__(self):
        self.runs += 1
        return self.seconds.pop(0) if len(self.seconds) > 1 else self.seconds[0]


def test_a_steady_network_is_read_in_a_few_runs():
    once = Clock(0.9, 0.3, 0.1)
    times = repeat(once, max_seconds=60.0)
    assert times == [0.1] * 7 and once.runs == 4 + 7


def test_a_slow_network_is_read_twice_after_two_runs_of_warm_up():
    once = Clock(30.0)
    assert repeat(once, max_seconds=2.0) == [30.0, 30.0] and once.runs == 4


def test_an_unsteady_network_is_read_until_the_time_is_up():
    rng = Random(0)
    times = repeat(lambda: rng.uniform(0.01, 0.19), max_seconds=20.0)
    assert 20.0 <= sum(times) < 20.2 and half_interval(times) > 0.02 * 0.1


def test_the_median_lies_in_its_interval_as_often_as_promised():
    rng, inside = Random(1), 0
    for _ in range(1000):
        times = [rng.lognormvariate(0, 0.3) for _ in range(15)]
        inside += abs(sorted(times)[7] - 1.0) <= half_interval(times)
    assert 0.91 <= inside / 1000 <= 0.98
