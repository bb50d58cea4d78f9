"""`training.compile`: the compiled network trains like the other one, resumes, and is part of a study only if used."""

from dataclasses import replace

import pytest
import torch
from conftest import write_study

from search.config import UserError, load_study
from search.costs.memory import training_memory_bytes
from search.runner.evaluate import context_of, evaluate, progress
from search.runner.plan import make_plan, prepared_data, task_of
from search.storage.identity import plain, refuse_changes
from search.training.checkpoint import checkpoint_binding
from search.trials.job import Job


@pytest.fixture
def job(tiny_run, tmp_path):
    plan = make_plan(load_study(tiny_run.file), runs=tiny_run.runs)
    architecture = plan.space.architecture(plan.space.complete({"width": 2, "repeats": 1}))
    training = replace(plan.training, compile="on")
    return Job(architecture, task_of(plan, prepared_data(plan)), training, (), 0, 0, "cpu", 1, str(tmp_path / "trial"))


@pytest.mark.long
def test_a_compiled_network_trains_like_the_other_one_and_resumes_to_the_bit(job, tmp_path):
    compiled = evaluate(replace(job, folder=str(tmp_path / "compiled")))
    assert compiled.state == "trained", compiled.reason
    eager = evaluate(replace(job, folder=str(tmp_path / "eager"), training=replace(job.training, compile="off")))
    assert [each.loss for each in compiled.epochs] == pytest.approx([each.loss for each in eager.epochs], rel=1e-2)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
    steps = progress(job)
    next(so_far for so_far in steps if len(so_far.epochs) == 1)
    steps.close()
    resumed = evaluate(job)
    assert (resumed.dice, resumed.weights_sha256) == (compiled.dice, compiled.weights_sha256)


def test_a_network_that_cannot_be_compiled_fails_with_the_key(job, monkeypatch, tmp_path):
    import torch._inductor.config as inductor

    torch._dynamo.reset()
    monkeypatch.setattr(inductor.cpp, "cxx", (str(tmp_path / "no-compiler"),))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(inductor, "force_disable_caches", True)
    found = evaluate(job)
    assert (found.state, found.fault) == ("failed", "error")
    assert found.reason.startswith("training.compile: torch can't compile the network: ")
    torch._dynamo.reset()


def test_only_a_compiled_training_differs_in_identity_checkpoints_and_never_in_predicted_memory(job, tmp_path):
    made = write_study(tmp_path)

    def identity(*overrides):
        return plain(make_plan(load_study(made.file, overrides=overrides), runs=made.runs).identity())

    usual, compiled = identity(), identity("training.compile=on")
    assert identity("training.compile=off") == usual and "compile" not in usual["training"]
    with pytest.raises(UserError, match="training.compile: the study began without it, the file now has 'on'"):
        refuse_changes("tiny", usual, compiled)
    with pytest.raises(UserError, match="training.compile: the study began with 'on', the file no longer has it"):
        refuse_changes("tiny", compiled, usual)
    off, auto = (replace(job, training=replace(job.training, compile=value)) for value in ("off", "auto"))
    assert checkpoint_binding(off) == checkpoint_binding(auto) != checkpoint_binding(job)
    context = context_of(job)
    assert training_memory_bytes(job.architecture, context, job.training) == training_memory_bytes(
        job.architecture, context, off.training
    )
