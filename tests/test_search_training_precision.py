"""Training in half precision: the dtype of each device, the scaled loss of float16, and its exact resumption."""

from dataclasses import replace

import pytest
import torch

from search.config import load_study
from search.config.training_section import Training
from search.costs.memory import training_memory_bytes
from search.runner.evaluate import context_of, evaluate, progress
from search.runner.plan import make_plan, prepared_data, task_of
from search.training.checkpoint import load_checkpoint, save_checkpoint
from search.training.schemes import make_phases, training_step
from search.training.step import make_optimiser, precision_name, predicted_precision
from search.trials.epochs import Epoch
from search.trials.job import Job
from space.build import build

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def half(tiny_run, tmp_path):
    plan = make_plan(load_study(tiny_run.file), runs=tiny_run.runs)
    architecture = plan.space.architecture(plan.space.complete({"width": 4}))
    training = replace(plan.training, precision="float16")
    task = task_of(plan, prepared_data(plan))
    return Job(architecture, task, training, (), 0, 0, "cpu", 1, str(tmp_path / "trial"))


def started(half, *, scale=None):
    torch.manual_seed(0)
    network = build(half.architecture, context_of(half)).train()
    (phase,) = make_phases(network, patch=half.patch, training=half.training)
    if scale is not None:
        phase.scaler.load_state_dict({**phase.scaler.state_dict(), "scale": scale})
    images, labels = torch.randn(1, 1, *half.patch), torch.ones(1, 1, *half.patch)
    return (
        phase,
        make_optimiser(network, half.training),
        {"images": images, "labels": labels, "training": half.training},
    )


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("Tesla V100-SXM2-16GB", "float16"),
        ("NVIDIA-TESLA-T4", "float16"),
        ("P4", "float16"),
        ("NVIDIA A100-SXM4-80GB", "bfloat16"),
        ("NVIDIA L4", "bfloat16"),
        ("NVIDIA H100 80GB HBM3", "bfloat16"),
    ],
)
def test_a_gpu_without_bfloat16_trains_in_float16(model, expected):
    assert precision_name(GPU, Training(), model=model) == expected
    assert precision_name(GPU, Training(precision="float32"), model=model) == "float32"


def test_a_cpu_trains_in_float32_and_costs_are_predicted_in_a_dtype_of_the_same_size(half):
    assert precision_name(CPU, Training()) == "float32"
    assert predicted_precision(CPU, half.training) == "bfloat16"
    context, in_bfloat16 = context_of(half), replace(half.training, precision="bfloat16")
    assert training_memory_bytes(half.architecture, context, half.training) == training_memory_bytes(
        half.architecture, context, in_bfloat16
    )


def test_the_scaled_loss_leaves_gradients_of_the_usual_size(half):
    phase, optimiser, batch = started(half)
    assert phase.scaler.is_enabled() and phase.scaler.get_scale() == 2.0**16
    training_step(phase, optimiser, **batch)
    scaled = torch.cat([each.grad.flatten() for each in phase.trained.parameters()])
    exact, usual, batch = started(replace(half, training=replace(half.training, precision="float32")))
    assert not exact.scaler.is_enabled()
    training_step(exact, usual, **batch)
    unscaled = torch.cat([each.grad.flatten() for each in exact.trained.parameters()])
    assert float((scaled - unscaled).norm()) < 0.25 * float(unscaled.norm())  # the scale is 2 to the power of 16


def test_a_step_whose_gradients_overflow_is_skipped_and_halves_the_scale(half):
    phase, optimiser, batch = started(half, scale=2.0**40)
    before = [parameter.clone() for parameter in phase.trained.parameters()]
    training_step(phase, optimiser, **batch)
    assert all(torch.equal(one, other) for one, other in zip(before, phase.trained.parameters(), strict=True))
    assert phase.scaler.get_scale() == 2.0**39


def test_a_checkpoint_keeps_the_scale_and_one_of_an_earlier_version_starts_with_the_first(half):
    phase, optimiser, _ = started(half, scale=32.0)
    save_checkpoint(half, phase.trained, optimiser, epochs=(Epoch(1, 0.5, 0.5, 1.0),), scaler=phase.scaler)
    assert load_checkpoint(half, phase.trained).scaler["scale"] == 32.0
    save_checkpoint(half, phase.trained, optimiser, epochs=(Epoch(1, 0.5, 0.5, 1.0),))
    assert load_checkpoint(half, phase.trained).scaler == {}


def test_a_float16_training_is_resumed_to_the_bit(half, tmp_path):
    whole = evaluate(replace(half, folder=str(tmp_path / "whole")))
    assert whole.state == "trained", whole.reason
    cut = replace(half, folder=str(tmp_path / "cut"))
    steps = progress(cut)
    next(so_far for so_far in steps if len(so_far.epochs) == 1)
    steps.close()
    resumed = evaluate(cut)
    assert (resumed.dice, resumed.weights_sha256) == (whole.dice, whole.weights_sha256)
    assert [each.loss for each in resumed.epochs] == [each.loss for each in whole.epochs]
