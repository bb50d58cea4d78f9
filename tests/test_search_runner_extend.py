"""`voxnas run --extend-epochs`: the front's networks in a study of longer trainings, continued where that is exact."""

import shutil
from pathlib import Path

import pytest
from conftest import STUDY, quiet_view, write_study
from test_search_cli import call

from search.api.study import Study
from search.runner.extend import why_from_start
from search.storage import read_records
from search.training.checkpoint import file_sha256
from search.trials.files import LAST, trial_folder

CONSTANT = STUDY.replace("precision: float32", "precision: float32, schedule: constant").replace(
    "trials: 3", "trials: 2"
)


def study_of(made, *overrides):
    return Study.from_yaml(made.file, runs=made.runs, overrides=[*overrides])


@pytest.fixture(scope="module")
def constant(tmp_path_factory):
    """A finished study with a constant learning rate, whose front is one network."""
    made = write_study(tmp_path_factory.mktemp("constant"), CONSTANT)
    study_of(made).run(view=quiet_view())
    return made


def test_a_training_continued_from_its_checkpoint_equals_one_of_the_full_length(constant, monkeypatch, capsys):
    from search.runner import train

    study, trained = study_of(constant), []
    epoch_of = train.train_epoch

    def counted(*arguments, **options):
        trained.append(options["number"])
        return epoch_of(*arguments, **options)

    monkeypatch.setattr(train, "train_epoch", counted)
    given = ("--runs", constant.runs, "--extend-epochs", 1)
    printed = call(monkeypatch, capsys, "run", constant.file, *given).out
    assert "The networks continue from their checkpoints." in printed and "in study tiny-3-epochs" in printed
    assert set(trained) == {2}  # the third epoch alone
    longer = read_records(f"sqlite:///{constant.runs / 'tiny-3-epochs' / 'study.db'}", "tiny-3-epochs")
    front = set(study.front().index)
    assert {each.architecture for each in longer} >= {
        each.architecture for each in study.snapshot().records() if each.number in front
    }
    whole = study_of(constant, "name=whole", "training.epochs=3")
    monkeypatch.undo()
    whole.run(view=quiet_view())
    expected = {each.architecture: each.measurement for each in whole.snapshot().records()}
    for each in longer:
        measurement = each.measurement
        assert measurement.dice == expected[each.architecture].dice
        assert measurement.weights_sha256 == expected[each.architecture].weights_sha256
        assert [epoch.loss for epoch in measurement.epochs] == [
            epoch.loss for epoch in expected[each.architecture].epochs
        ]
    again = call(monkeypatch, capsys, "run", constant.file, *given, "--quiet").out
    assert again.endswith("trained longer, in study tiny-3-epochs\n")
    assert len(read_records(f"sqlite:///{constant.runs / 'tiny-3-epochs' / 'study.db'}", "tiny-3-epochs")) == len(
        longer
    )
    stored = Study.from_yaml(constant.runs / "tiny-3-epochs" / "study.yaml", runs=constant.runs, data=constant.data)
    assert stored.snapshot().reference == study.snapshot().reference


def test_an_extension_that_was_killed_before_it_copied_a_checkpoint_copies_it_then(constant, monkeypatch):
    from search.runner import extend, train

    copied, trained, epoch_of, copy = [], [], train.train_epoch, extend.continue_longer

    def killed(*jobs):
        copied.append(jobs)
        if len(copied) == 1:
            raise KeyboardInterrupt
        return copy(*jobs)

    def counted(*arguments, **options):
        trained.append(options["number"])
        return epoch_of(*arguments, **options)

    monkeypatch.setattr(extend, "continue_longer", killed)
    monkeypatch.setattr(train, "train_epoch", counted)
    study = study_of(constant)
    with pytest.raises(KeyboardInterrupt):
        study.extend(2, view=quiet_view())
    assert not trained
    study.extend(2, view=quiet_view())
    assert set(trained) == {2, 3}


def test_a_constant_rate_keeps_the_checkpoints_of_kept_networks_alone(constant):
    from search.storage.admin import free_disk

    study = study_of(constant)
    for record in study.snapshot().records():
        folder = trial_folder(study.folder, record.number)
        assert (folder / LAST).exists() == (folder / "best.safetensors").exists()
        assert not (folder / "previous.pt").exists()
    copy = constant.runs / "copy"
    shutil.copytree(study.folder, copy)
    kept = file_sha256(next(copy.glob(f"trials/*/{LAST}")))
    assert len(kept) == 64
    shutil.rmtree(copy)
    assert free_disk(f"sqlite:///{study.folder / 'study.db'}", "tiny", runs=constant.runs) > 0
    assert not [*study.folder.glob(f"trials/*/{LAST}")]


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        (
            "training.schedule=poly",
            r"^training.schedule: poly has lowered the learning rate to zero after 2 epochs, so the networks",
        ),
        ("search.seeds=2", "^the trainings of a trial over folds or seeds keep no checkpoint"),
        ("training.schedule=constant", "^$"),
    ],
)
def test_why_a_training_cannot_continue_is_a_sentence(tmp_path, setting, said):
    import re

    file = tmp_path / "tiny.yaml"
    file.write_text(CONSTANT)
    assert re.search(said, why_from_start(Study.from_yaml(file, overrides=[setting]).settings))


def test_after_a_decayed_rate_the_networks_are_trained_from_the_start(tiny_run, tmp_path, monkeypatch, capsys):
    runs = tmp_path / "runs"
    shutil.copytree(tiny_run.runs, runs)
    given = ("run", tiny_run.file, "--runs", runs, "--extend-epochs", 1)
    printed = call(monkeypatch, capsys, *given).out
    assert "so the networks are trained from the start." in printed
    longer = read_records(f"sqlite:///{runs / 'tiny-3-epochs' / 'study.db'}", "tiny-3-epochs")
    assert longer and {len(each.measurement.epochs) for each in longer} == {3}
    shorter = {each.architecture: each for each in read_records(f"sqlite:///{runs / 'tiny' / 'study.db'}", "tiny")}
    for each in longer:  # the schedule is another one from the first step on
        assert each.measurement.epochs[1].loss != shorter[each.architecture].measurement.epochs[1].loss


def test_a_study_without_trained_networks_is_not_extended(tiny_run, tmp_path, monkeypatch, capsys):
    given = ("run", tiny_run.file, "--runs", tmp_path / "none", "--extend-epochs", 1, "--quiet")
    assert "nothing has run yet" in call(monkeypatch, capsys, *given, code=2).err
    assert not (tmp_path / "none" / "tiny-3-epochs").exists()
    both = call(monkeypatch, capsys, *given, "--trials", 5, code=2).err
    assert "voxnas: run: --extend-epochs starts no new trials; leave out --trials and --retime" in both


def test_a_damaged_checkpoint_costs_time_only(tmp_path, caplog):
    from dataclasses import replace

    from search.config import load_study
    from search.runner.local import open_driver
    from search.runner.plan import make_plan
    from search.training.checkpoint import continue_longer

    made = write_study(tmp_path, CONSTANT)
    driver = open_driver(make_plan(load_study(made.file), runs=made.runs), quiet_view())
    from random import Random

    from search.runner.sampling import sample_buildable
    from search.trials.records import TrainingRequest

    decisions = sample_buildable(driver.plan.space, Random(0))
    record = driver.start(TrainingRequest(driver.plan.space.architecture(decisions), 0, 0, tuple(decisions.items())))
    longer = driver.job(record)
    shorter = replace(longer, folder=str(tmp_path / "shorter" / "000000"))
    driver.close()
    assert not continue_longer(shorter, longer)
    Path(shorter.folder).mkdir(parents=True)
    (Path(shorter.folder) / LAST).write_bytes(b"PK\x03\x04 torn")
    assert not continue_longer(shorter, longer)
    assert "is damaged" in caplog.text and not (Path(longer.folder) / LAST).exists()
