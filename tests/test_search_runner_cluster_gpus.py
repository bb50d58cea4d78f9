"""`executor.gpus`: several GPUs of this machine through a Ray that the run starts and ends. No GPU is needed."""

import os

import pytest
from cluster_trials import NotedInPairs, Watch
from conftest import STUDY, quiet_view, write_study
from forked import fresh_process
from test_search_cli import call

from search.api.running import make_executor, own_cluster
from search.config import UserError, load_study
from search.runner.cluster import executor as executors
from search.runner.gpus import choose_gpus, visible_gpus
from search.runner.plan import make_plan
from search.runner.run import run_study

GPUS = STUDY.replace("executor: {device: cpu, threads: 1}", "executor: {gpus: all, threads: 1}")


def run_on_own_gpus(folder):
    """Run two trials on two pretended GPUs, and return their states and the notes that they left."""
    import ray
    import torch
    from test_search_runner_cluster import HERE, ROOT

    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(HERE)]))
        patched.setattr("search.runner.gpus.visible_gpus", lambda: ("0", "1"))
        patched.setattr(executors.RayExecutor.__init__, "__kwdefaults__", {"trial": NotedInPairs, "stopwatch": Watch})
        patched.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        made = write_study(folder, GPUS)
        plan = make_plan(load_study(made.file), runs=made.runs)
        with own_cluster():
            executor = make_executor(plan)
            assert executor.device == "cuda:0" and ray.cluster_resources()["GPU"] == 2
            assert "CUDA_VISIBLE_DEVICES" not in os.environ
            outcome = run_study(plan, trials=2, view=quiet_view(), executor=executor)
        assert not ray.is_initialized() and not torch.cuda.is_initialized()
    notes = (plan.folder / "trials" / "notes").read_text().split("\n")
    return [record.state for record in outcome.records], [line for line in notes if line]


def test_a_run_starts_ray_for_the_gpus_of_its_machine_and_ends_it(tmp_path):
    with fresh_process() as process:  # Ray serves one cluster after another badly in one process
        states, notes = process.submit(run_on_own_gpus, tmp_path).result()
    assert states == ["trained", "trained"]
    assert {line.split()[0].partition(":")[2] for line in notes} == {"0", "1"}


@pytest.mark.parametrize(
    ("named", "found"), [("all", ("4", "5", "7")), (2, ("4", "5")), ((0, 2), ("4", "7")), (1, ("4",))]
)
def test_gpus_are_named_by_all_their_number_or_their_places(named, found):
    assert choose_gpus(named, ("4", "5", "7")) == found


@pytest.mark.parametrize(
    ("named", "visible", "message"),
    [
        ("all", (), "executor.gpus: this machine has no NVIDIA GPU that CUDA can use; remove the key"),
        (3, ("0",), "executor.gpus: 3 GPUs can't be used: this machine has 1 GPU, numbered from 0"),
        ((0, 2), ("0", "1"), "executor.gpus: GPU 2 can't be used: this machine has 2 GPUs, numbered from 0"),
    ],
)
def test_gpus_that_do_not_exist_are_refused_in_a_sentence(named, visible, message):
    with pytest.raises(UserError, match=message):
        choose_gpus(named, visible)


def test_visible_gpus_are_those_of_the_driver_or_the_ones_that_cuda_may_use(tmp_path, monkeypatch):
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'GPU 0: A (UUID: x)'\necho '  MIG 1g'\necho 'GPU 1: A (UUID: y)'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert visible_gpus() == ("0", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert visible_gpus() == ("1",)
    tool.write_text("#!/bin/sh\nexit 9\n")
    assert visible_gpus() == ()


def test_check_and_run_say_that_the_machine_has_no_gpu(tiny_run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("search.runner.gpus.visible_gpus", lambda: ())
    monkeypatch.setattr("search.cli.check.visible_gpus", lambda: ())
    file = tmp_path / "tiny.yaml"
    file.write_text(GPUS)
    given = (file, "--data", tiny_run.data, "--runs", tmp_path / "runs")
    said = "executor.gpus: this machine has no NVIDIA GPU that CUDA can use; remove the key"
    assert f"note: {said}" in " ".join(call(monkeypatch, capsys, "check", *given).out.split())
    assert f"voxnas: {said}\n" in call(monkeypatch, capsys, "run", *given, "--quiet", code=2).err


@pytest.mark.parametrize(
    ("other", "message"),
    [("kind: ray", "but kind: ray uses the GPUs of its cluster"), ("device: cpu", "but device: cpu uses none")],
)
def test_gpus_of_this_machine_are_not_those_of_a_cluster_or_a_cpu(tmp_path, other, message):
    file = tmp_path / "tiny.yaml"
    file.write_text(GPUS.replace("threads: 1", other))
    with pytest.raises(UserError, match=message):
        load_study(file, need_data=False)
