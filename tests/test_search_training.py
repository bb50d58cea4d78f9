"""Training: patches, loss, checkpoints, whole-volume Dice."""

import json
import os
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter
from safetensors.torch import load_file

from search.config import load_study
from search.config.augment import Noise
from search.config.recipes import RECIPES
from search.config.training_section import TrainingField
from search.costs import device_lock
from search.costs.device_lock import SharedDevice, working_clock
from search.data.prepared import load_prepared, open_case
from search.runner.deadline import Deadline
from search.runner.evaluate import context_of, evaluate, progress
from search.runner.plan import make_plan, task_of
from search.runner.train import train
from search.runner.watch import Watch
from search.training.checkpoint import (
    ReplacedWeights,
    Restored,
    delete_checkpoints,
    file_sha256,
    load_checkpoint,
    load_weights,
    save_checkpoint,
    save_weights,
)
from search.training.patches import PatchSource
from search.training.step import SupervisedLoss, learning_rate, make_optimiser
from search.training.validation import NothingScored, case_dice, mean_dice, segment, validate
from search.trials.epochs import Epoch
from search.trials.files import CHECKPOINTS, LAST, WEIGHTS
from search.trials.job import Job
from search.trials.records import CaseDice
from space.build import build


@pytest.fixture(scope="module")
def plan(tiny_run):
    return make_plan(load_study(tiny_run.file), runs=tiny_run.runs)


@pytest.fixture(scope="module")
def prepared(plan):
    return load_prepared(next(path.parent for path in plan.cache.glob("*/prepared.json")))


@pytest.fixture
def job(plan, prepared, tmp_path):
    architecture = plan.space.architecture(plan.space.complete({"width": 4}))
    return Job(architecture, task_of(plan, prepared), plan.training, (), 0, 0, "cpu", 1, str(tmp_path / "trial"))


def source_of(prepared, plan, training, *, seed=0):
    return PatchSource(prepared, cases=plan.fold.train, patch=training.patch, training=training, seed=seed)


@pytest.mark.parametrize("ahead", [True, False], ids=["thread", "no-thread"])
def test_a_batch_is_a_function_of_seed_and_number(prepared, plan, ahead):
    def source(seed):
        return source_of(prepared, plan, plan.training, seed=seed)

    one, again, other = (source(seed).batch_at(5) for seed in (0, 0, 1))
    assert torch.equal(one[0], again[0]) and torch.equal(one[1], again[1])
    assert not torch.equal(one[0], other[0])
    streaming = source(0)
    streaming.ahead = ahead
    streamed = list(streaming.batches(4, 7))
    assert len(streamed) == 3 and torch.equal(streamed[1][0], one[0])


def test_the_next_batch_is_made_meanwhile_only_where_cores_are_free(prepared, plan, monkeypatch):
    threads = torch.get_num_threads()
    for cores, ahead in ((2 * threads, True), (2 * threads - 1, False)):
        monkeypatch.setattr("os.sched_getaffinity", lambda process, cores=cores: set(range(cores)))
        assert source_of(prepared, plan, plan.training).ahead == ahead


@pytest.mark.parametrize("patch", [(5, 24, 24), (1, 9, 7), (16, 40, 40)])
def test_patches_have_the_requested_size_even_beyond_the_volume(prepared, plan, patch):
    training = replace(plan.training, patch=patch, batch=3)
    images, labels = source_of(prepared, plan, training).batch_at(0)
    assert images.shape == (3, 1, *patch) and labels.shape == (3, 1, *patch)
    assert images.dtype == labels.dtype == torch.float32 and images.isfinite().all()


def test_foreground_patches_contain_foreground_and_labels_follow_flips(prepared, plan):
    training = replace(
        plan.training,
        foreground=1.0,
        augment=replace(
            plan.training.augment, flip=("D", "H", "W"), scale_intensity=0.0, shift_intensity=0.0, noise=Noise(p=0.0)
        ),
    )
    source = source_of(prepared, plan, training)
    for number in range(5):
        image, label = source.batch_at(number)
        assert label.max() > 0
        means = [image[label == value].mean() for value in (0, 1)]
        assert means[1] > means[0]  # the made organs are bright


def test_the_loss_of_a_perfect_prediction_is_zero():
    labels = torch.randint(0, 3, (2, 1, 5, 9, 7)).float()
    sure = 100.0 * torch.nn.functional.one_hot(labels[:, 0].long(), 3).movedim(-1, 1).float()
    half = sure[:, :, ::2, ::2, ::2]
    loss = SupervisedLoss()
    assert loss([sure], labels) < 1e-3
    assert loss([sure, half], labels) < 1e-3  # labels of a coarser level are every other voxel
    assert loss([sure, -half], labels) > 0.3
    assert loss([-sure], labels) > 1


def test_the_learning_rate_decays_to_zero(plan):
    training = replace(plan.training, epochs=2, steps_per_epoch=5, learning_rate=0.1)
    for schedule in ("poly", "cosine"):
        rates = [learning_rate(replace(training, schedule=schedule), step / 10) for step in range(11)]
        assert rates[0] == pytest.approx(0.1) and rates[10] == pytest.approx(0.0, abs=1e-8)
        assert rates == sorted(rates, reverse=True)


@pytest.mark.parametrize("recipe", RECIPES)
def test_an_interrupted_training_resumes_bit_for_bit(job, tmp_path, recipe):
    values = {"recipe": recipe, "patch": list(job.patch), "batch": 2, "epochs": 3, "steps_per_epoch": 4}
    training = TypeAdapter(TrainingField).validate_python({**values, "precision": "float32"})
    job = replace(job, training=training)
    whole = evaluate(job)
    cut = replace(job, folder=str(tmp_path / "cut"))

    seen = next(so_far for so_far in progress(cut) if len(so_far.epochs) == 2)
    assert seen.state == "running" and seen.epochs[-1].dice is not None
    heard = []
    went_on = evaluate(cut, heard.append)
    assert [len(so_far.epochs) for so_far in heard] == [0]  # priced, and not an epoch but the last
    assert [e.loss for e in went_on.epochs] == [e.loss for e in whole.epochs]
    assert went_on.dice == whole.dice and went_on.recipe == recipe
    one, other = (load_file(Path(each.folder) / WEIGHTS) for each in (job, cut))
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())
    assert (Path(cut.folder) / LAST).exists()  # until its record is written
    lines = (Path(cut.folder) / "epochs.jsonl").read_text().splitlines()
    assert [json.loads(line)["number"] for line in lines] == [1, 2, 3]


def test_a_training_whose_process_ended_before_its_record_is_not_done_again(job, monkeypatch):
    whole = evaluate(job)
    monkeypatch.setattr("search.runner.train.training_step", None)  # not a step is done
    again = evaluate(job)
    assert again.epochs == whole.epochs and again.dice == whole.dice and again.cases == whole.cases
    assert again.weights_sha256 == whole.weights_sha256 == file_sha256(Path(job.folder) / WEIGHTS)


def checkpointed(job):
    """A checkpoint of one epoch, and a network with other weights."""
    network = build(job.architecture, context_of(job))
    save_checkpoint(job, network, make_optimiser(network, job.training), epochs=(Epoch(1, 0.5, 0.5, 1.0),))
    return build(job.architecture, context_of(job))


def starts_over(job, network):
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    assert load_checkpoint(job, network) == Restored()
    return all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_a_checkpoint_that_is_cut_off_or_changed_anywhere_restores_nothing(job):
    network = checkpointed(job)
    file = Path(job.folder) / LAST
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    assert starts_over(job, network)
    file.write_bytes(whole)
    with zipfile.ZipFile(file) as opened:
        contents = [opened.read(each) for each in opened.infolist()]
    for content in (each for each in contents if len(each) > 64):
        at = whole.index(content) + len(content) // 2
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :])
        assert starts_over(job, network), at


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_resumed(job, caplog):
    network = checkpointed(job)
    resumed = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    first, second = Epoch(1, 0.5, 0.5, 1.0), Epoch(2, 0.4, 0.6, 1.0)
    optimiser = make_optimiser(network, job.training)
    save_checkpoint(job, network, optimiser, epochs=(first,))
    with torch.no_grad():
        next(network.parameters()).add_(1)
    save_checkpoint(job, network, optimiser, epochs=(first, second))
    last, previous = (Path(job.folder) / name for name in CHECKPOINTS)
    whole = last.read_bytes()
    last.write_bytes(whole[:-40])
    assert load_checkpoint(job, network).epochs == (first,)
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in network.state_dict().items())
    assert "last.pt is damaged" in caplog.text and "resuming from previous.pt" in caplog.text
    assert not last.exists()  # as when a process ended between its two renamings
    assert load_checkpoint(job, network).epochs == (first,)
    last.write_bytes(whole[:-40])
    previous.write_bytes(whole[:500])
    assert starts_over(job, network)
    assert "previous.pt is damaged" in caplog.text and "the training starts over" in caplog.text
    delete_checkpoints(Path(job.folder))
    assert not last.exists() and not previous.exists()


def replaced_by(path, kind, *, other):
    """Put something else in a file's place: a folder, a pipe, a link to a pipe, or another file."""
    path.unlink()
    if kind == "folder":
        (path / "inside").mkdir(parents=True)
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "link to a pipe":
        path.symlink_to(f"{path.name}-pipe")
        if not path.exists():
            os.mkfifo(path.resolve())
    else:
        shutil.copyfile(other, path)


@pytest.mark.parametrize("kind", ["folder", "pipe", "link to a pipe", "another trial's"])
def test_what_stands_in_place_of_a_checkpoint_is_named_and_replaced(job, tmp_path, caplog, kind):
    network = checkpointed(job)
    optimiser, epochs = make_optimiser(network, job.training), (Epoch(1, 0.5, 0.5, 1.0), Epoch(2, 0.4, 0.6, 1.0))
    elsewhere = replace(job, folder=str(tmp_path / "000009"))
    save_checkpoint(elsewhere, network, optimiser, epochs=epochs)
    save_checkpoint(job, network, optimiser, epochs=epochs)
    last, previous = (Path(job.folder) / name for name in CHECKPOINTS)
    replaced_by(last, kind, other=Path(elsewhere.folder) / LAST)
    assert load_checkpoint(job, network).epochs == epochs[:1]
    said = "belongs to another training" if kind == "another trial's" else "is damaged (Not a regular file)"
    assert f"last.pt {said}" in caplog.text and "resuming from previous.pt" in caplog.text
    save_checkpoint(job, network, optimiser, epochs=epochs)
    assert load_checkpoint(job, network).epochs == epochs and previous.exists()
    replaced_by(last, kind, other=Path(elsewhere.folder) / LAST)
    previous.unlink()
    save_checkpoint(job, network, optimiser, epochs=epochs)
    assert load_checkpoint(job, network).epochs == epochs


def test_the_checkpoint_of_the_training_before_is_passed_in_silence(job, caplog):
    network = checkpointed(job)
    assert starts_over(replace(job, seed=1, member=1), network)
    assert not caplog.messages


@pytest.mark.parametrize("kind", ["folder", "pipe", "link to a pipe"])
def test_what_stands_in_place_of_weights_is_refused_and_replaced(job, kind):
    network = build(job.architecture, context_of(job))
    sha256 = save_weights(Path(job.folder), network)
    replaced_by(Path(job.folder) / WEIGHTS, kind, other=None)
    with pytest.raises(OSError, match="Not a regular file"):
        load_weights(Path(job.folder), network, sha256=sha256)
    assert save_weights(Path(job.folder), network) == sha256


@pytest.mark.parametrize(
    "change",
    [
        lambda job: replace(job, study_id="another study"),
        lambda job: replace(job, seed=1),
        lambda job: replace(job, fold=1),
        lambda job: replace(job, training=replace(job.training, epochs=job.training.epochs + 1)),
        lambda job: replace(job, training=replace(job.training, learning_rate=0.5)),
        lambda job: replace(job, task=replace(job.task, prepared=f"{job.task.prepared}-of-other-data")),
        lambda job: replace(job, task=replace(job.task, train=job.task.train[:-1])),
        lambda job: replace(job, architecture=job.architecture.of({**dict(job.architecture.entries), "norm": "batch"})),
    ],
    ids=["study", "seed", "fold", "epochs", "learning rate", "data", "training cases", "architecture"],
)
def test_a_checkpoint_of_another_training_restores_nothing(job, change):
    network = checkpointed(job)
    assert starts_over(change(job), network)
    assert load_checkpoint(job, network).epochs == (Epoch(1, 0.5, 0.5, 1.0),)


def test_a_checkpoint_of_another_trial_restores_nothing(job, tmp_path):
    network = checkpointed(job)
    shutil.copytree(job.folder, tmp_path / "000007")
    assert starts_over(replace(job, folder=str(tmp_path / "000007")), network)


def test_a_runs_folder_that_moved_keeps_its_checkpoints(job, tmp_path):
    network = checkpointed(job)
    moved = tmp_path / "moved" / Path(job.folder).name
    shutil.copytree(job.folder, moved)
    prepared = str(tmp_path / "moved/cache" / Path(job.task.prepared).name)
    there = replace(job, folder=str(moved), task=replace(job.task, prepared=prepared))
    assert len(load_checkpoint(there, network).epochs) == 1


def test_weights_that_were_replaced_after_the_trial_are_refused(job):
    one, other = (build(job.architecture, context_of(job)) for _ in range(2))
    digest = save_weights(Path(job.folder), one)
    save_weights(Path(job.folder), other)
    with pytest.raises(ReplacedWeights, match="has changed since the trial: its digest differs from the record's"):
        load_weights(Path(job.folder), one, sha256=digest)


def test_weights_are_restored_strictly(job):
    one, other = build(job.architecture, context_of(job)), build(job.architecture, context_of(job))
    digest = save_weights(Path(job.folder), one)
    load_weights(Path(job.folder), other, sha256=digest)
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


def test_a_failing_training_gives_a_reason_and_no_crash(job, tmp_path):
    wild = replace(job, training=replace(job.training, learning_rate=1e30, clip_gradient=1e30))
    failed = evaluate(wild)
    assert failed.state == "failed" and "the loss became" in failed.reason
    assert (Path(wild.folder) / "reason.txt").read_text().strip() == failed.reason
    late = evaluate(replace(job, training=replace(job.training, deadline=1e-9), folder=str(tmp_path / "late")))
    assert late.state == "failed" and "the deadline of 0.0 ms passed in epoch 1" in late.reason


def test_the_deadline_ends_a_training_within_an_epoch(job):
    endless = replace(job.training, deadline=0.5, steps_per_epoch=10**6)
    late = evaluate(replace(job, training=endless))
    assert late.state == "failed" and late.fault == "deadline" and late.epochs == ()
    assert "the deadline of 500.0 ms passed in epoch 1" in late.reason


def test_the_deadline_ends_a_training_between_two_windows_of_its_validation(job, monkeypatch):
    now, windows = [0.0], []
    pause = SharedDevice.pause

    def first_window(shared):
        windows.append(now[0])
        pause(shared)

    def slow_validation(network, prepared, job, **options):
        monkeypatch.setattr(SharedDevice, "pause", first_window)
        before_window = options.pop("before_window")

        def slow_window():
            before_window()
            now[0] += 40

        return validate(network, prepared, job, before_window=slow_window, **options)

    monkeypatch.setattr("search.runner.deadline.working_clock", lambda: now[0])
    monkeypatch.setattr("search.runner.evaluate.working_clock", lambda: now[0])
    monkeypatch.setattr("search.runner.train.validate", slow_validation)
    late = evaluate(replace(job, training=replace(job.training, deadline=60, epochs=1)))
    assert late.state == "failed" and late.fault == "deadline"
    assert "the deadline of 60.0 s passed in the validation after epoch 1" in late.reason
    assert windows == [0.0, 40.0]  # a third window would have begun at 80 s


def test_waiting_for_the_device_does_not_count_towards_the_deadline(monkeypatch):
    deadline = Deadline(1.0, working_clock() - 5)
    with pytest.raises(TimeoutError, match="the deadline of 1.0 s passed in epoch 3"):
        deadline.check("epoch 3")
    monkeypatch.setattr(device_lock, "_waited_s", device_lock._waited_s + 10)
    deadline.check("epoch 3")


def test_over_budget_is_refused_before_training_with_number_and_limit(job):
    refused = evaluate(replace(job, budgets=(("memory", 1000.0),)))
    assert refused.state == "over budget" and refused.epochs == () and refused.dice is None
    assert "memory" in refused.reason and "is over the budget of 1000 B" in refused.reason
    assert refused.costs.latency is None  # nothing is measured after a prediction over budget
    slow = evaluate(replace(job, budgets=(("latency", 1e-9),)))
    assert slow.state == "over budget" and "latency" in slow.reason


def test_dice_is_scored_on_the_grid_of_the_file(job, prepared, plan):
    network = build(job.architecture, context_of(job)).eval()
    case = plan.fold.validation[0]
    mask, truth = segment(network, prepared, case, job=job, device=torch.device("cpu"))
    shape = next(facts.shape for facts in plan.facts.cases if facts.name == case)
    assert mask.shape == truth.shape == shape and mask.dtype == np.uint8
    label = open_case(prepared, case)[1]
    assert np.bincount(truth.ravel()).tolist() == np.bincount(np.asarray(label).ravel()).tolist()


def test_dice_of_each_class_follows_its_definition():
    truth = np.zeros((4, 4, 4), np.uint8)
    truth[:2], truth[2, :2] = 1, 2
    mask = truth.copy()
    mask[0] = 0
    assert case_dice(mask, truth, members=((1,), (2,), (3,))) == (pytest.approx(2 * 16 / 48), 1.0, None)
    assert case_dice(truth * 0, truth, members=((1,), (2,))) == (0.0, 0.0)
    assert case_dice(truth, truth * 0, members=((1,), (2,))) == (0.0, 0.0)
    assert case_dice(mask, truth, members=((1, 2), (2, 3))) == (pytest.approx(2 * 24 / 64), 1.0)


def test_means_exclude_unscored_classes():
    assert mean_dice([CaseDice("a", (1.0, None)), CaseDice("b", (0.0, 0.5)), CaseDice("c", (None, None))]) == 0.625
    with pytest.raises(NothingScored, match=r"label and mask are empty in every validation case \(a\)"):
        mean_dice([CaseDice("a", (None,))])


def test_the_loss_falls_on_synthetic_volumes(job, prepared):
    training = replace(job.training, epochs=3, steps_per_epoch=25, batch=2, learning_rate=0.01)
    job = replace(job, training=training)
    network = build(job.architecture, context_of(job))
    *_, (epochs, cases) = train(network, prepared, job, deadline=Deadline(None, 0.0), watch=Watch())
    assert epochs[-1].loss < 0.75 * epochs[0].loss
    assert len(cases) == len(job.task.validation)
