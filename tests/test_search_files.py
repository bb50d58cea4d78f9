"""Every file is written whole or not at all: full disks, limits, read-only folders, processes that died."""

import ast
import errno
import os
import resource
import shutil
import sqlite3
import subprocess
import sys
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import nibabel
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import sqlalchemy as sql
import torch
from conftest import quiet_view, write_study
from safetensors.torch import save_file
from synthetic_study import synthetic_records, write_synthetic_study

from search.cli import main
from search.config import UserError, load_study
from search.config.errors import RunError
from search.data.checked_files import write_array
from search.files import copy_file, partial_path, remove_partials, replace_file, scratch_folder, write_text
from search.files.home import absolute
from search.files.replace import PREFIX
from search.runner.local import run_study
from search.runner.plan import make_plan
from search.storage import read_records
from search.storage.address import sqlite_url
from search.storage.failures import explained

ROOT = Path(__file__).parents[1]
WRITES = {"write_text", "write_bytes", "save", "save_file", "write_table", "to_csv", "to_parquet", "to_json", "to_html"}
WRITES |= {"copyfile", "copy", "copy2", "copytree", "to_filename", "dump", "savez", "savez_compressed", "mkstemp"}
OWNERS = {
    "np",
    "numpy",
    "torch",
    "nibabel",
    "shutil",
    "json",
    "pickle",
    "tempfile",
    "parquet",
    "export",
}  # of `save` etc.
OPENING = set("wax+")
ALLOWED = {  # each has its own way to leave nothing half-written
    "search/files/replace.py": "the writer itself",
    "search/export/standalone/predict.py": "runs without voxnas; replaces files in the same way",
    "search/storage/lock.py": "a lock file, whose content is only a name",
    "search/tracking/ledger.py": "appends a line; a line that a crash cuts off is ignored",
}


def writes(tree):
    """Yield the calls that write a file, except those inside an argument of `replace_file`."""
    inside = set()
    named = {
        argument.id
        for call in ast.walk(tree)
        if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "replace_file"
        for argument in call.args
        if isinstance(argument, ast.Name)
    }
    for node in ast.walk(tree):
        within = isinstance(node, ast.Call) and getattr(node.func, "id", "") == "replace_file"
        if within or (isinstance(node, ast.FunctionDef) and node.name in named):
            inside |= {id(each) for each in ast.walk(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and id(node) not in inside and _writes(node):
            yield node


def _writes(call):
    if isinstance(call.func, ast.Name):
        return call.func.id in ("save_file", "copyfile") or (call.func.id == "open" and _opens_to_write(call.args[1:2]))
    if not isinstance(call.func, ast.Attribute):
        return False
    name, owner = call.func.attr, getattr(call.func.value, "id", getattr(call.func.value, "attr", ""))
    if name == "open":
        return _opens_to_write(call.args[:1])
    if name in ("save", "copy", "dump", "to_json", "to_html"):
        return owner in OWNERS
    return name in WRITES


def _opens_to_write(mode):
    return bool(mode) and isinstance(mode[0], ast.Constant) and bool(OPENING & set(str(mode[0].value)))


FILES = [file for package in ("blocks", "space", "search") for file in sorted((ROOT / package).rglob("*.py"))]


def test_every_write_goes_through_the_one_writer():
    found = {
        str(file.relative_to(ROOT)): [f"line {call.lineno}" for call in calls]
        for file in FILES
        if (calls := list(writes(ast.parse(file.read_text()))))
    }
    assert {name: lines for name, lines in found.items() if name not in ALLOWED} == {}
    assert found.keys() == ALLOWED.keys()  # none is listed in vain


def test_the_search_for_writes_finds_each_kind():
    text = """
path.write_text(x); np.save(path, x); torch.save(x, path); save_file(x, path); open(path, "w"); path.open("ab")
shutil.copyfile(a, b); frame.to_csv(path); parquet.write_table(x, path); nibabel.save(x, path); torch.export.save(x, p)
"""
    assert len(list(writes(ast.parse(text)))) == 11
    kept = "replace_file(path, lambda part: np.save(part, x))\ndef write(part):\n    part.write_text('')\n"
    assert not list(writes(ast.parse(kept + "replace_file(path, write)\npath.open('rb'); open(path); x.copy()")))


@contextmanager
def files_up_to(size):
    """Limit the size of the files that this process writes, as a quota or a full disk would."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


VALUES = np.random.default_rng(0).normal(size=20_000)
WRITERS = {
    "text": lambda path: write_text(path, "x" * 100_000),
    "array": lambda path: write_array(path, VALUES),
    "torch.pt": lambda path: replace_file(path, lambda part: torch.save({"a": torch.from_numpy(VALUES)}, part)),
    "safetensors": lambda path: replace_file(path, lambda part: save_file({"a": torch.from_numpy(VALUES)}, part)),
    "parquet": lambda path: replace_file(
        path, partial(pyarrow.parquet.write_table, pyarrow.table({"a": VALUES}), compression="none")
    ),
    "volume.nii.gz": lambda path: replace_file(
        path, lambda part: nibabel.save(nibabel.Nifti1Image(VALUES.reshape(20, 100, 10), np.eye(4)), part)
    ),
    "copy": lambda path: copy_file(Path(torch.__file__).with_name("overrides.py"), path),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_write_that_reaches_a_limit_gives_the_reason_and_leaves_the_old_file(name, tmp_path):
    path = tmp_path / name
    path.write_bytes(b"old")
    with files_up_to(40_000), pytest.raises(OSError, match=f"File too large: .*{name}") as caught:
        WRITERS[name](path)
    assert caught.value.errno == errno.EFBIG
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]
    WRITERS[name](path)
    assert path.stat().st_size > 40_000 and list(tmp_path.iterdir()) == [path]


def test_an_error_of_the_writer_itself_is_raised_as_it_is(tmp_path):
    with pytest.raises(ZeroDivisionError):
        replace_file(tmp_path / "file", lambda part: 1 // 0)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["x" * 255, "體" * 85, ".hidden", "-", "a b%\"'"])
def test_a_file_may_have_any_name_that_its_file_system_allows(name, tmp_path):
    write_text(tmp_path / name, "text")
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ["~", "~nobody-is-called-so", "a~b"])
def test_a_folder_may_begin_with_a_tilde(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert absolute("~/x") == Path.home() / "x" and absolute("~nobody-is-called-so/new") == tmp_path / Path(
        "~nobody-is-called-so/new"
    )
    Path(name).mkdir()
    assert absolute(name) == tmp_path / name


def test_a_link_stays_a_link_and_a_pipe_is_written_to(tmp_path):
    (tmp_path / "target").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    write_text(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "target").read_text() == "new"
    write_text(Path("/dev/null"), "nothing")
    assert not Path("/dev/null").is_file()


def test_files_of_dead_processes_are_removed_and_those_of_others_stay(tmp_path):
    ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    mine = partial_path(tmp_path / "last.pt")
    _, _, machine, name = mine.name.removeprefix(".").split("-", 3)
    dead = mine.with_name(f"{PREFIX}{ended.stdout.strip()}-{machine}-{name}")
    elsewhere = mine.with_name(f"{PREFIX}{ended.stdout.strip()}-00000000-{name}")
    for each in (mine, dead, elsewhere, dead.with_name(dead.name + ".folder") / "file"):
        each.parent.mkdir(exist_ok=True)
        each.touch()
    write_text(tmp_path / "other", "text")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([mine.name, elsewhere.name, "other"])
    remove_partials(tmp_path)
    assert mine.exists()


def test_files_of_a_dead_process_whose_number_another_has_are_removed(tmp_path):
    part, young = partial_path(tmp_path / "old"), partial_path(tmp_path / "young")
    for each in (part, young):
        each.touch()
    os.utime(part, (0, 0))
    remove_partials(tmp_path)
    assert list(tmp_path.iterdir()) == [young]


def test_scratch_folders_of_dead_processes_are_removed(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with scratch_folder() as first:
        ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
        left = first.with_name(first.name.replace(str(os.getpid()), ended.stdout.strip()))
        left.mkdir()
        with scratch_folder() as second:
            assert sorted(tmp_path.iterdir()) == sorted([first, second])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "file"),
    [
        ("report tiny", "runs/tiny/report.html"),
        ("trials tiny --csv trials.csv", "trials.csv"),
        ("compare runs/tiny runs/tiny --out curves.html", "curves.html"),
        ("clone runs/tiny/study.yaml other.yaml --set training.epochs=3", "other.yaml"),
        ("simulate --synthetic --only trees --proposers random --seeds 1 --jobs 1 --figure f.html --quiet", "f.html"),
    ],
)
def test_a_verb_that_cannot_write_its_file_ends_with_one_sentence(arguments, file, tmp_path, monkeypatch, capsys):
    def files():  # without those of SQLite's log, which come and go
        return sorted(path for path in tmp_path.rglob("*") if "study.db-" not in path.name)

    monkeypatch.chdir(tmp_path)
    write_synthetic_study(Path("runs"), "tiny", synthetic_records(3))
    Path("runs/tiny/study.yaml").write_text("data: {path: x}\nobjectives: {dice: maximize, memory: minimize}\n")
    monkeypatch.setattr(sys, "argv", ["voxnas", *arguments.split()])
    before = files()
    with files_up_to(64), pytest.raises(SystemExit) as ended:  # a semaphore of 32 bytes may be made
        main()
    said = capsys.readouterr().err
    assert ended.value.code == 1 and f"{file}: File too large; free some space or raise the limit, then rerun" in said
    assert len(said.splitlines()) == 1
    assert files() == before


def test_a_study_on_a_full_disk_is_read_and_its_report_is_refused(small_disk, monkeypatch, capsys):
    write_synthetic_study(small_disk, "tiny", synthetic_records(12))
    (small_disk / "tiny/study.yaml").write_text("data: {path: x}\nobjectives: {dice: maximize, memory: minimize}\n")
    (small_disk / "filler").write_bytes(bytes(shutil.disk_usage(small_disk).free))
    before = sorted(small_disk.rglob("*"))
    ends = []
    for verb in ("front", "trials", "status", "report"):
        monkeypatch.setattr(sys, "argv", ["voxnas", verb, "tiny", "--runs", str(small_disk)])
        with pytest.raises(SystemExit) as ended:
            main()
        ends.append(ended.value.code or 0)
    assert ends == [0, 0, 0, 1]
    assert "report.html: No space left on device; free some space" in capsys.readouterr().err
    assert sorted(small_disk.rglob("*")) == before


@pytest.mark.parametrize(("limit", "trials"), [(3_000, 1), (60_000, 2)])
def test_a_run_stopped_by_a_limit_resumes_by_the_same_command(limit, trials, tmp_path):
    """The limits stop the creation of the database, and a later write."""
    made = write_study(tmp_path)
    with files_up_to(limit), pytest.raises((OSError, UserError)) as caught:
        run_study(make_plan(load_study(made.file), runs=made.runs), trials=trials, view=quiet_view())
    if isinstance(caught.value, OSError):
        assert caught.value.errno == errno.EFBIG and Path(caught.value.filename).is_relative_to(made.runs)
    else:
        assert isinstance(caught.value, RunError) and "rerun the same command to resume" in str(caught.value)
    plan = make_plan(load_study(made.file), runs=made.runs)
    run_study(plan, trials=trials, view=quiet_view())
    assert [record.state for record in read_records(plan.url, "tiny")] == ["trained"] * trials
    assert not [path for path in made.runs.rglob(f"{PREFIX}*")]


def test_a_database_that_cannot_grow_is_named_with_the_way_out(tmp_path):
    url = sqlite_url(tmp_path / "study.db")
    with sqlite3.connect(tmp_path / "study.db") as connection:
        connection.execute("CREATE TABLE t (x TEXT)")
    engine = sql.create_engine(url)
    message = r"study.db can't be written \(.*\): its disk is full, or .*, then rerun the same command to resume"
    with files_up_to(20_000), pytest.raises(RunError, match=message), explained(url), engine.begin() as connection:
        connection.execute(sql.text("INSERT INTO t VALUES (:x)"), {"x": "x" * 100_000})
    engine.dispose()
