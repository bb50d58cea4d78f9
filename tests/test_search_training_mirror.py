"""Mirroring at inference: the mean over all mirrorings, in validation, latency and the exported program."""

import numpy as np
import pytest
import torch
from torch import nn

from search.config.training_section import Training
from search.costs import latency
from search.export.standalone.windows import mirrored as exported
from search.training.mirror import mirrored, mirrorings
from space.canonical import Context


class Ramp(nn.Module):
    """A network that depends on position: two logits, the input times its index along each axis."""

    def __init__(self) -> None:
        super().__init__()
        self.passes = 0

    def forward(self, x):
        self.passes += 1
        places = [torch.arange(size).float().view([-1 if n == axis else 1 for n in range(3)]) for axis, size in
                  enumerate(x.shape[2:])]  # fmt: skip
        ramp = places[0] + 10 * places[1] + 100 * places[2]
        return torch.cat([x * ramp, x - ramp], 1)


@pytest.mark.parametrize("axes", [(), ("W",), ("D", "H"), ("D", "H", "W")])
def test_logits_are_averaged_over_all_mirrorings(axes):
    x, network = torch.randn(2, 1, 3, 5, 4), Ramp()
    found = mirrored(network, axes)(x)
    assert network.passes == 2 ** len(axes) == len(list(mirrorings(axes)))
    flips = [[]]
    for axis in axes:
        flips += [[*flip, 2 + "DHW".index(axis)] for flip in flips]
    expected = torch.stack([network(x.flip(flip)).flip(flip) for flip in flips]).mean(0)
    assert torch.allclose(found, expected)
    if axes:
        assert not torch.allclose(found, network(x))


@pytest.mark.parametrize("axes", [(), ("H",), ("D", "H", "W")])
def test_the_exported_program_averages_alike(axes):
    x, network = torch.randn(1, 1, 3, 5, 4), Ramp()
    expected = mirrored(network, axes)(x)
    numbers = ["DHW".index(axis) for axis in axes]
    alone = exported(lambda window: network(torch.from_numpy(window.copy())[None])[0].numpy(), numbers)
    assert np.allclose(alone(x[0].numpy()), expected[0].numpy(), atol=1e-4)


def test_latency_counts_every_mirroring(monkeypatch):
    context, network, calls = Context((4, 8, 8), (1.0, 1.0, 1.0), 1, 2), Ramp(), []

    def counted(predict, axes):
        average = mirrored(predict, axes)
        return lambda x: calls.append(1) or average(x)

    monkeypatch.setattr(latency, "mirrored", counted)
    training = Training(patch=(4, 8, 8), mirror=("D", "H", "W"))
    found = latency.measure_latency(network, context, training, device=torch.device("cpu"))
    assert len(calls) >= found.repeats and network.passes == 8 * len(calls)
