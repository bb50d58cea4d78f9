"""Quick predictions compared with slow ones: torch's own functions for sizes, a real optimiser, all of thop's hooks."""

from pathlib import Path
from random import Random

import pytest
import torch

from search.config.training_section import Training
from search.costs import macs, memory, quick_meta
from search.costs.abstract import AbstractTensors
from search.costs.price import predict_costs
from space.canonical import Context
from space.feasible import why_not
from space.narrow import Narrowing, narrow_space
from space.plugins import load_blocks, read_file

OWN_BLOCK = Path(__file__).parents[1] / "studies" / "examples" / "own_block"
CASES = {
    "one slice": ((1, 33, 28), "adamw", "cpu", {"attention@skips": "epa"}),
    "thin": ((3, 17, 40), "sgd", "cuda", {"attention@skips": "csam"}),
    "odd, two patches": ((5, 33, 28), "adamw", "cpu", {"stages": "two-patch", "attention@skips": "joint"}),
    "a plug-in block": ((5, 24, 20), "sgd", "cpu", {"attention@skips": "slice_se"}),
}


def sampled(context, fix):
    blocks = load_blocks((read_file("slice_se.py", OWN_BLOCK),))
    space = narrow_space(context, Narrowing(fix={"width": 16, "levels": 3, **fix}, blocks=blocks))
    rng = Random(3)
    architectures = (space.architecture(space.sample(rng)) for _ in range(100))
    return next(each for each in architectures if why_not(each, context) is None)


@pytest.mark.parametrize("name", CASES)
def test_quick_predictions_equal_slow_ones(name, monkeypatch):
    patch, optimiser, device, fix = CASES[name]
    context = Context(patch, (8.0, 1.5, 1.5), 2, 3)
    training = Training(patch=patch, batch=2, optimiser=optimiser)

    def predicted():
        monkeypatch.setattr(AbstractTensors, "known", {})
        return predict_costs(sampled(context, fix), context, training, device=torch.device(device))

    quick = predicted()
    monkeypatch.setattr(quick_meta, "QUICK", {})
    monkeypatch.setattr(memory, "AbstractOptimiser", memory._used_optimiser)
    monkeypatch.setattr(macs, "_is_elementary", lambda kind: False)
    assert predicted() == quick
