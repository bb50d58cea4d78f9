"""Run folders belong to one study of one database: no other writes, moves, deletes or resumes from their files."""

import os
import shutil
import sqlite3
import stat
from pathlib import Path

import pytest
import torch
from conftest import STUDY, quiet_view, write_study
from test_search_cli import call

from search.config import UserError, load_study
from search.runner.local import run_study
from search.runner.plan import make_plan
from search.storage import STUDY_ID, read_records, read_study_attribute
from search.storage.admin import Change, change_studies
from search.storage.ownership import claim_folder, owned_folder
from search.training.checkpoint import save_tensors

ONE_EPOCH = STUDY.replace("epochs: 2", "epochs: 1")


def plan_of(made, *overrides):
    return make_plan(load_study(made.file, overrides=overrides), runs=made.runs)


def run(made, *overrides, trials=1):
    return run_study(plan_of(made, *overrides), trials=trials, view=quiet_view()).records


def files_of(folder: Path):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    made = write_study(tmp_path_factory.mktemp("owned"), ONE_EPOCH)
    run(made)
    return made


@pytest.fixture
def made(original, tmp_path):
    """A copy of a study with one trial, which tests may change."""
    shutil.copytree(original.file.parent, tmp_path / "copy")
    return type(original)(tmp_path / "copy" / original.file.name, tmp_path / "copy", tmp_path / "copy/runs")


def change(made, database, **changes):
    return change_studies([f"sqlite:///{database}"], Change(**changes), runs=made.runs)


def database_of(made):
    return made.runs / "tiny/study.db"


@pytest.mark.parametrize("by", ["voxnas studies --copy", "cp"])
@pytest.mark.parametrize("what", [{"delete": "tiny"}, {"rename": ("tiny", "old")}, {"free": "tiny"}], ids=str)
def test_a_change_of_a_copied_study_leaves_the_originals_folder(made, tmp_path, by, what):
    backup = tmp_path / "backup.db"
    if by == "cp":
        with sqlite3.connect(database_of(made)) as source, sqlite3.connect(backup) as target:
            source.backup(target)
    else:
        change(made, database_of(made), copy=("tiny", str(backup)))
    before = files_of(made.runs / "tiny/trials")
    change(made, backup, **what)
    assert files_of(made.runs / "tiny/trials") == before and not (made.runs / "old").exists()
    assert len(read_records(f"sqlite:///{database_of(made)}", "tiny")) == 1


def test_a_study_is_deleted_and_renamed_with_its_own_folder(made):
    change(made, database_of(made), rename=("tiny", "new"))
    assert not (made.runs / "tiny").exists() and (made.runs / "new/trials/000000").is_dir()
    change(made, made.runs / "new/study.db", delete="new")
    assert not (made.runs / "new").exists()


def test_a_study_is_renamed_as_a_whole_or_not_at_all(made):
    (made.runs / "new").symlink_to("nowhere")
    before = read_study_attribute(f"sqlite:///{database_of(made)}", "tiny", "voxnas:study")
    with pytest.raises(NotADirectoryError):
        change(made, database_of(made), rename=("tiny", "new"))
    assert read_study_attribute(f"sqlite:///{database_of(made)}", "tiny", "voxnas:study") == before
    (made.runs / "new").unlink()
    change(made, database_of(made), rename=("tiny", "new"))
    assert read_study_attribute(f"sqlite:///{made.runs}/new/study.db", "new", "voxnas:study")["name"] == "new"


def test_a_database_that_moves_with_its_study_or_is_deleted_is_listed_where_it_is_then(made, monkeypatch, capsys):
    arguments = ("studies", database_of(made), "--runs", made.runs)
    said = call(monkeypatch, capsys, *arguments, "--rename", "tiny", "new")
    assert "tiny is now new" in said.out and "new/study.db" in said.out
    said = call(
        monkeypatch, capsys, "studies", made.runs / "new/study.db", "--runs", made.runs, "--delete", "new", "--yes"
    )
    assert "new is deleted" in said.out and "0 studies" in said.out


def test_a_study_that_shares_the_folders_database_survives_its_deletion(made):
    url = f"sqlite:///{database_of(made)}"
    run(made, "name=other", f"storage={url}")
    change(made, Path(os.path.relpath(database_of(made))), delete="tiny")
    assert len(read_records(url, "other")) == 1 and (made.runs / "other/trials/000000").is_dir()
    assert not (made.runs / "tiny/trials").exists()


@pytest.mark.parametrize("name", ["../outside", "cache", "..", ".", "a/../../outside", "/outside", ""])
def test_a_received_database_deletes_no_folder_by_its_studys_name(made, tmp_path, name):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("kept")
    claim_folder(outside, study=name, study_id="x", url=f"sqlite:///{tmp_path / 'received.db'}")
    received = tmp_path / "received.db"
    shutil.copy(database_of(made), received)
    with sqlite3.connect(received) as database:
        database.execute("UPDATE studies SET study_name = ?", (name,))
        database.execute("UPDATE study_user_attributes SET value_json = '\"x\"' WHERE key = ?", (STUDY_ID,))
    assert owned_folder(made.runs, study=name, url=f"sqlite:///{received}") is None
    before = files_of(made.runs)
    change(made, received, delete=name)
    assert (outside / "precious").read_text() == "kept" and files_of(made.runs) == before


@pytest.mark.parametrize("new", ["cache", "../outside", "a/b", ""])
def test_a_study_is_not_renamed_to_what_is_no_name(made, new):
    with pytest.raises(UserError, match="is not a valid study name: use at most 64 letters, digits"):
        change(made, database_of(made), rename=("tiny", new))


def test_no_study_file_may_take_the_cache_as_its_name(made):
    with pytest.raises(
        UserError, match="name: 'cache' is reserved for the folder of prepared volumes; choose another name"
    ):
        load_study(made.file, overrides=["name=cache"])


def test_another_database_under_the_same_name_is_refused_and_overwrites_nothing(made, tmp_path):
    before = files_of(made.runs / "tiny")
    with pytest.raises(UserError, match="tiny holds the files of study 'tiny' in .*study.db, another one than in "):
        run(made, f"storage=sqlite:///{tmp_path / 'elsewhere.db'}")
    assert not (tmp_path / "elsewhere.db").exists()
    assert {path: each for path, each in files_of(made.runs / "tiny").items() if path in before} == before


def test_a_moved_runs_folder_keeps_its_owner(made, tmp_path):
    made.runs.rename(tmp_path / "my runs")
    moved = type(made)(made.file, made.data, tmp_path / "my runs")
    assert len(run(moved, trials=2)) == 2


def test_a_study_whose_database_was_deleted_starts_over_in_its_folder(made):
    before = read_study_attribute(f"sqlite:///{database_of(made)}", "tiny", STUDY_ID)
    leftover = made.runs / "tiny/trials/000000/last.pt"
    leftover.write_bytes(b"of the deleted study")
    for file in (made.runs / "tiny").glob("study.db*"):
        file.unlink()
    (record,) = run(made)
    assert record.state == "trained" and [epoch.number for epoch in record.measurement.epochs] == [1]
    assert read_study_attribute(f"sqlite:///{database_of(made)}", "tiny", STUDY_ID) != before
    assert not leftover.exists()


def test_a_copied_folder_that_runs_under_another_name_starts_over(made):
    shutil.copytree(made.runs / "tiny", made.runs / "other")
    (record,) = run(made, "name=other", "training.epochs=2")
    assert record.state == "trained" and [epoch.number for epoch in record.measurement.epochs] == [1, 2]


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_the_umask_decides_who_may_read_weights(umask, mode, tmp_path):
    before = os.umask(umask)
    try:
        save_tensors(torch.nn.Linear(2, 2), tmp_path / "weights.safetensors")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "weights.safetensors").stat().st_mode) == mode
