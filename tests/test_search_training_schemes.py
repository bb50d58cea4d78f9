"""Training schemes through `evaluate`: phases share the epochs, resume, and have the predicted costs."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import STUDY, quiet_view, write_study

from search.config import load_study
from search.costs.memory import CPU, measure_training_memory, training_memory_bytes
from search.runner.evaluate import context_of, evaluate, progress
from search.runner.local import open_driver
from search.runner.opening import driver_lock
from search.runner.plan import make_plan
from search.training.schemes import make_phases, phase_at
from search.trials.records import TrainingRequest
from space.build import build

SCHEMES = ("two-patch", "cascade")


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    text = STUDY.replace("stages: single, ", "").replace("stem_stride: 1", "cascade.join: post")
    text = text.replace(
        "choices: {",
        "choices: {stages: [single, two-patch, cascade], expansion: [1.5], cascade.first: [[1.5], [1.0, 1.5]], ",
    )
    made = write_study(tmp_path_factory.mktemp("schemes"), text)
    plan = make_plan(load_study(made.file), runs=made.runs)
    with driver_lock(plan):
        yield open_driver(plan, quiet_view())


def job_of(driver, folder, **decisions):
    space = driver.plan.space
    complete = space.complete(decisions)
    record = driver.start(
        TrainingRequest(space.architecture(complete), seed=0, fold=0, decisions=tuple(complete.items()))
    )
    job = driver.job(record)
    return replace(job, folder=str(folder), training=replace(job.training, epochs=4, validate_every=2))


@pytest.mark.parametrize("stages", SCHEMES)
def test_a_scheme_trains_validates_and_resumes_as_if_never_stopped(driver, tmp_path, stages):
    whole = evaluate(job_of(driver, tmp_path / "whole", stages=stages))
    assert whole.state == "trained", whole.reason
    assert whole.measured_memory.allocated_bytes == pytest.approx(whole.costs.memory_bytes, rel=0.01)
    assert [epoch.dice is not None for epoch in whole.epochs] == [False, True, False, True]
    cut = job_of(driver, tmp_path / "cut", stages=stages)
    for last in (1, 3):  # within the first network's epochs, and within the second's
        next(so_far for so_far in progress(cut) if len(so_far.epochs) == last)
    went_on = evaluate(cut)
    assert [e.loss for e in went_on.epochs] == pytest.approx([e.loss for e in whole.epochs], rel=1e-3)
    assert went_on.dice == pytest.approx(whole.dice, abs=1e-2)
    assert (Path(cut.folder) / "best.safetensors").exists()


def test_a_cascade_trains_its_networks_one_after_the_other(driver, tmp_path):
    job = job_of(driver, tmp_path, **{"stages": "cascade", "cascade.first": (1.0, 1.5)})
    network = build(job.architecture, context_of(job))
    phases = make_phases(network, patch=job.patch, training=job.training)
    assert [phase.trained for phase in phases] == list(network.networks().values())
    assert [phase.predicts for phase in phases] == [*network.first, network]
    assert phases[0].patch == phases[2].patch == job.patch and phases[1].patch > job.patch
    assert [phase_at(epoch, epochs=7, phases=3)[0] for epoch in range(7)] == [0, 0, 1, 1, 2, 2, 2]
    assert [phase_at(epoch, epochs=3, phases=3) for epoch in range(3)] == [(0, 0, 1), (1, 1, 2), (2, 2, 3)]
    short = evaluate(replace(job, training=replace(job.training, epochs=2)))
    assert short.state == "failed"
    assert "a cascade of 3 networks needs at least as many epochs, not 2" in short.reason


@pytest.mark.parametrize("stages", SCHEMES)
def test_predicted_memory_of_a_scheme_equals_a_real_steps(driver, tmp_path, stages):
    job = job_of(driver, tmp_path, stages=stages)
    context = context_of(job)
    predicted = training_memory_bytes(job.architecture, context, job.training)
    measured = measure_training_memory(build(job.architecture, context), context, job.training, device=CPU)
    assert predicted == pytest.approx(measured.allocated_bytes, rel=0.01)


def test_the_first_networks_of_a_cascade_do_not_change_while_the_second_trains(driver, tmp_path):
    job = job_of(driver, tmp_path, stages="cascade")
    network = build(job.architecture, context_of(job)).train()
    *_, second = make_phases(network, patch=job.patch, training=job.training)
    before = [parameter.clone() for parameter in network.first.parameters()]
    images = torch.randn(1, 1, *job.patch)
    second.add_gradients(images, torch.zeros(1, 1, *job.patch))
    assert all(parameter.grad is None for parameter in network.first.parameters())
    assert all(torch.equal(one, other) for one, other in zip(before, network.first.parameters(), strict=True))
