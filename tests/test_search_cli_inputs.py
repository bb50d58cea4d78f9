"""Commands with arguments that can't be: each ends with its sentence and exit code, and writes nothing."""

import json
import re
import shlex
import shutil
import sys

import numpy as np
import pytest
import torch
from conftest import STUDY
from other_user import as_nobody
from safetensors.torch import save_file
from synthetic_study import synthetic_records, write_synthetic_study
from test_search_ablation import ABLATION
from test_search_simulate_files import write as write_table_file

from search.cli import main
from search.data.phantom import write_phantom

SECONDS = {"START_S": 0.0, "RETRY_S": 0.01}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a study, a data set, a table and an ablation, and with files that are none of these."""
    folder = tmp_path_factory.mktemp("inputs")
    write_synthetic_study(folder / "runs", "tiny", synthetic_records(12))
    write_synthetic_study(folder / "runs", "empty", [])
    for name in ("tiny", "empty"):
        (folder / "runs" / name / "study.yaml").write_text(STUDY.replace("name: tiny", f"name: {name}"))
    (folder / "tiny.yaml").write_text(STUDY)
    (folder / "parts.yaml").write_text(ABLATION)
    write_phantom(folder / "phantom", cases=6, shape=(32, 28, 8), classes=2)
    write_table_file(folder / "table.parquet")
    (folder / "binary").write_bytes(np.random.default_rng(0).bytes(3000))
    for name in ("binary.yaml", "binary.parquet", "binary.safetensors", "binary.pt", "binary.db"):
        shutil.copy(folder / "binary", folder / name)
    for name in ("zero", "zero.yaml", "zero.parquet", "zero.safetensors", "zero.pt", "zero.db"):
        (folder / name).touch()
    (folder / "text").write_text("just words\n")
    (folder / "latin.yaml").write_bytes(b"name: M\xfcller\n")
    (folder / "folder").mkdir()
    (folder / "volumes").mkdir()
    (folder / "volumes/dataset.json").write_text('{"name": "Patients"}')
    (folder / "loop").symlink_to(folder / "loop")
    (folder / "cut.parquet").write_bytes((folder / "table.parquet").read_bytes()[:300])
    torch.save({"a": np.float64}, folder / "object.pt")
    torch.save([1, 2], folder / "list.pt")
    save_file({"strange": torch.zeros(3)}, folder / "strange.safetensors")
    _write_exports(folder)
    (folder / "runs2/server").mkdir(parents=True)
    server = "storage: postgresql+psycopg://me@127.0.0.1:9/db\n"
    (folder / "runs2/server/study.yaml").write_text(server + STUDY.replace("name: tiny", "name: server"))
    (folder / "strange.safetensors").chmod(0o644)
    (folder / "locked").mkdir(mode=0o500)
    for name in ("secret.yaml", "secret.parquet", "secret.safetensors", "secret.db"):
        shutil.copy(folder / "binary", folder / name)
        (folder / name).chmod(0)
    (folder / "secret").mkdir(mode=0)
    return folder


def _write_exports(folder):
    """Write folders that look like exports, each with another mistake in architecture.json."""
    for name, text in {
        "words": "just words",
        "list": "[1]",
        "nothing": "{}",
        "half": json.dumps({"architecture": {"encoder": "plain"}, "patch": [4, 8, 8]}),
        "strange": json.dumps(
            {"architecture": {"encoder": "?"}, "patch": [4, 8, 8], "spacing": [1, 1, 1], "in_channels": 1, "classes": 2}
        ),
        "types": json.dumps({"architecture": 3, "patch": "x", "spacing": 1, "in_channels": "1", "classes": []}),
    }.items():
        export = folder / f"export-{name}"
        export.mkdir()
        (export / "architecture.json").write_text(text)
        save_file({"strange": torch.zeros(3)}, export / "weights.safetensors")
    (folder / "export-binary").mkdir()
    shutil.copy(folder / "binary", folder / "export-binary/architecture.json")
    shutil.copy(folder / "export-words/weights.safetensors", folder / "export-binary")


def run(arguments, place, capsys, monkeypatch):
    """Run a command in this process, in the folder of the files; return exit code and standard error."""
    monkeypatch.chdir(place)
    monkeypatch.setattr(sys, "argv", ["voxnas", *shlex.split(arguments.replace("PLACE", str(place)))])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr()
    assert "Traceback" not in said.err + said.out
    return ended.value.code, said.err


COMMANDS = [  # arguments, the sentence; the exit code is 2
    # readers
    ("front", "Missing argument 'STUDY'"),
    ("front tiny --runs text", "text is a file, not a folder"),
    ("front tiny --runs text/below", "text is a file, not a folder"),
    ("front tiny --runs loop", "loop"),
    ("front tinny", "'tinny' is neither a study file nor the name of a study; did you mean 'tiny'"),
    ("front tiny --runs folder", "no study has run in folder yet"),
    ("front folder", "'folder' is neither a study file nor the name of a study"),
    ("front binary.yaml", "binary.yaml: isn't UTF-8 text: invalid byte at offset"),
    ("front zero.yaml", "the key 'data' is missing"),
    ("front latin.yaml", "latin.yaml: isn't UTF-8 text: invalid byte at offset 7"),
    ("front tiny --set training.epochs=3", "--set needs the study's file"),
    ("front tiny --csv folder", "folder: Is a directory"),
    ("front tiny --csv text/front.csv", "text/front.csv|text: (Not a directory|File exists)"),
    ("front tiny --confirmed", "tiny"),
    ("trials tiny --csv folder", "folder: Is a directory"),
    ("trials nothing", "'nothing' is neither a study file nor the name of a study"),
    ("status text", "the file must be a mapping of keys to values"),
    ("status folder/absent.yaml", "is neither a study file nor the name of a study"),
    ("report nothing", "is neither a study file nor the name of a study"),
    ("report binary", "isn't UTF-8 text"),
    ("report tiny --runs text", "text is a file, not a folder"),
    ("compare", "Missing argument"),
    ("compare runs/tiny runs/absent", "is neither a study file nor the name of a study"),
    ("compare runs/tiny text", "the file must be a mapping"),
    ("compare runs/tiny runs/tiny --out folder", "folder: Is a directory"),
    ("compare runs/tiny binary", "isn't UTF-8 text"),
    ("studies text", "text is not an SQLite database"),
    ("studies binary.db", "binary.db is not an SQLite database"),
    ("studies zero.db", "nothing has run yet: zero.db is empty"),
    ("studies folder", "folder: can't be read: Is a directory"),
    ("studies absent.db", "absent.db does not exist"),
    ("studies mysql://host/db", "'mysql' is not supported"),
    ("studies sqlite://", "names no file; write sqlite:///FILE"),
    ("studies sqlite:///absent.db", "absent.db does not exist"),
    ("studies --runs folder", "no .*study.db in folder"),
    ("studies --rename tiny ../outside", "'../outside' is not a valid study name"),
    ("studies --rename absent new", "there is no study 'absent'"),
    ("studies --delete absent --yes", "there is no study 'absent'"),
    ("studies --free absent", "there is no study 'absent'"),
    ("studies --copy absent other.db", "there is no study 'absent'"),
    ("studies --copy tiny text", "text is not an SQLite database"),
    ("studies --copy tiny folder", "folder: can't be read: Is a directory"),
    ("studies --copy tiny ftp://host/x", "'ftp' is not supported"),
    ("studies text --upgrade", "text is not an SQLite database"),
    ("dashboard text --port 0", "text is not an SQLite database"),
    ("dashboard --runs text", "text is a file, not a folder"),
    ("dashboard --port 70000", "'--port': Input should be less than or equal to 65535"),
    ("dashboard --host 0.0.0.0", "token"),
    # files that are written
    ("phantom text", "text"),
    ("phantom text/below", "text"),
    ("phantom volumes", "volumes holds another data set, which this would overwrite; choose another folder"),
    ("phantom new --cases 0", "'--cases': Input should be greater than or equal to 1"),
    ("phantom new --seed -1", "'--seed': Input should be greater than or equal to 0"),
    ("phantom new --cases many", "'--cases': Input should be a valid integer"),
    ("clone tiny.yaml", "Missing argument"),
    ("clone tiny.yaml tiny.yaml", "tiny.yaml exists already"),
    ("clone tiny.yaml folder", "folder exists already"),
    ("clone tiny.yaml folder --force", "folder"),
    ("clone absent.yaml new.yaml", "'absent.yaml' is neither a study file nor the name of a study"),
    ("clone binary.yaml new.yaml", "isn't UTF-8 text"),
    ("clone zero.yaml new.yaml", "new.yaml: the key 'data' is missing"),
    ("clone text new.yaml", "text"),
    ("clone parts.yaml new.yaml", "unknown key"),
    ("clone tiny.yaml text/new.yaml", "text"),
    ("clone tiny.yaml new.yaml --set training.epochs=many", "training.epochs: .*'many'"),
    ("clone tiny.yaml new.yaml --set a=b", "a: unknown key"),
    ("init text", "text"),
    ("init folder", "folder"),
    ("init absent", "absent"),
    ("init phantom --out tiny.yaml", "tiny.yaml exists already"),
    ("init phantom --hours 0", "'--hours': Input should be greater than or equal to 0.01"),
    # import
    ("import", r"Missing argument 'EXPORT\|CHECKPOINT'"),
    ("import absent --out new.safetensors", "absent: no such file"),
    ("import folder --out new.safetensors", "folder: is not an export: architecture.json is missing"),
    ("import text --out new.safetensors", "text: (can't be read|was not loaded)"),
    ("import binary.pt --out new.safetensors", "binary.pt: (can't be read|was not loaded)"),
    ("import zero.pt --out new.safetensors", "zero.pt: can't be read"),
    ("import binary.safetensors --out new.safetensors", "binary.safetensors: can't be read"),
    ("import zero.safetensors --out new.safetensors", "zero.safetensors: can't be read"),
    ("import object.pt --out new.safetensors", "object.pt: (was not loaded|contains no state dict)"),
    ("import list.pt --out new.safetensors", "list.pt: contains no state dict"),
    ("import strange.safetensors --out new.safetensors", "no tensor matches a preset by name and shape"),
    ("import strange.safetensors --out new.pt", "the file name must end in .safetensors"),
    ("import strange.safetensors --out new.safetensors --preset unetr", "there is no preset 'unetr'"),
    ("import loop --out new.safetensors", "loop"),
    ("import export-words --out new.safetensors", "architecture.json: is not the description of a network"),
    ("import export-list --out new.safetensors", "architecture.json: is not the description of a network"),
    ("import export-nothing --out new.safetensors", "architecture.json: is not the description of a network"),
    ("import export-half --out new.safetensors", "architecture.json: is not the description of a network"),
    ("import export-strange --out new.safetensors", "architecture.json: is not the description of a network"),
    ("import export-types --out new.safetensors", "architecture.json: is not the description of a network"),
    ("import export-binary --out new.safetensors", "architecture.json: is not the description of a network"),
    ("import object.pt --out strange.safetensors", "strange.safetensors exists already; choose another file, or"),
    # tables
    ("simulate", "pass either --synthetic or --table FILE"),
    ("simulate --synthetic --table table.parquet", "pass either --synthetic or --table FILE"),
    ("simulate --table absent.parquet", "absent.parquet: no such file"),
    ("simulate --table folder", "folder: is a folder"),
    ("simulate --table binary.parquet", "binary.parquet: not a Parquet file"),
    ("simulate --table cut.parquet", "cut.parquet: not a Parquet file"),
    ("simulate --table zero.parquet", "zero.parquet: not a Parquet file"),
    ("simulate --table text", "text: not a Parquet file"),
    ("simulate --table table.parquet --proposers best", "there is no proposer 'best'"),
    ("simulate --table table.parquet --proposers ,", "there is no proposer ''"),
    ("simulate --table table.parquet --objectives speed", "speed"),
    ("simulate --table table.parquet --only places", "--only selects synthetic tables"),
    ("simulate --table table.parquet --halving 1", "--halving: '1' is neither off nor"),
    ("simulate --table table.parquet --halving nan,nan", "--halving"),
    ("simulate --table table.parquet --halving 3,inf", "--halving"),
    ("simulate --table table.parquet --noise nan", "--noise"),
    ("simulate --table table.parquet --enough nan", "--enough"),
    ("simulate --synthetic --only plces", "there is no synthetic table 'plces'"),
    ("simulate --table table.parquet --seeds 1 --trainings 2 --proposers random --figure folder", "folder"),
    ("tabulate absent.yaml", "absent.yaml: can't be read: No such file"),
    ("tabulate tiny.yaml --data folder", "data.path: no such folder"),
    ("tabulate parts.yaml --data PLACE", "unknown key"),
    ("tabulate tiny.yaml --data PLACE --networks 0", "'--networks': Input should be greater than or equal to 1"),
    ("tabulate tiny.yaml --data PLACE --out text", "text: is not a table of the study tiny, and would be replaced"),
    ("tabulate tiny.yaml --data PLACE --out table.parquet", "table.parquet: is not a table of the study tiny"),
    ("tabulate tiny.yaml --data PLACE --no-train --runs folder", "nothing has run yet|no training"),
    # ablations
    ("ablate absent.yaml", "absent.yaml: can't be read: No such file"),
    ("ablate folder", "folder: can't be read: Is a directory"),
    ("ablate binary.yaml", "isn't UTF-8 text"),
    ("ablate zero.yaml", "missing"),
    ("ablate text", "the file must be a mapping"),
    ("ablate tiny.yaml --data PLACE", "unknown key"),
    ("ablate parts.yaml --data folder", "data.path: no such folder"),
    ("ablate parts.yaml --data text", "data.path: no such folder|text"),
    ("ablate parts.yaml --data PLACE --runs text", "text is a file, not a folder"),
    ("ablate parts.yaml --data PLACE --set metrics=[speed]", "metrics"),
    ("ablate parts.yaml --data PLACE --set seeds=0", "seeds"),
    ("ablate parts.yaml --data PLACE --executor slurm", "executor.kind: 'slurm'"),
    # what trains
    ("run absent.yaml", "absent.yaml: can't be read: No such file"),
    ("run parts.yaml --data PLACE", "unknown key"),
    ("run tiny.yaml --data PLACE --trials 0", "'--trials': Input should be greater than or equal to 1"),
    ("run tiny.yaml --data PLACE --executor slurm", "executor.kind: 'slurm'"),
    ("run tiny.yaml --data PLACE --runs text", "text is a file, not a folder"),
    ("run tiny.yaml --data PLACE --set storage=sqlite://", "names no file"),
    ("run tiny.yaml --data PLACE --set storage=sqlite:///text", "text is not an SQLite database"),
    ("run tiny.yaml --data PLACE --set storage=sqlite:///folder", "folder"),
    ("run tiny.yaml --data PLACE --set storage=oracle://host/db", "'oracle' is not supported"),
    ("check tiny.yaml --data PLACE --set storage=sqlite:///binary.db", "binary.db is not an SQLite database"),
    ("confirm tiny.yaml --data PLACE --runs folder", "nothing has run yet"),
    ("export tiny.yaml --data PLACE --out text", "text: is a file; give a folder|has changed|tiny"),
    ("export tiny.yaml --data PLACE --out new --pick nonsense", "pick|tiny"),
    ("test tiny.yaml --data PLACE --pick knee --runs folder", "data.test|nothing has run yet"),
    ("submit tiny.yaml --address http://127.0.0.1:9 --runs relative", "use an absolute path"),
    ("check-block absent.py", "absent.py"),
    ("check-block text.py", "text.py"),
    ("check-block binary", "binary"),
    ("schema studdy", "studdy"),
    ("help trainning", "trainning"),
    ("show nothing", "no network is called 'nothing'"),
    ("show nnunet --data folder", "folder"),
    ("space absent.yaml", "absent.yaml: can't be read"),
    ("nonsense", "No such command 'nonsense'"),
]
FAULTS = [  # what stops a run: exit code 1
    (
        'run tiny.yaml --data PLACE --runs runs3 --trials 1 --quiet --set training.deadline="1 us"',
        "no trial was trained; `voxnas status tiny --runs runs3` shows the reasons",
    ),
    ("studies postgresql+psycopg://me@127.0.0.1:9/db", "127.0.0.1:9/db can't be reached"),
    ("front server --runs runs2", "127.0.0.1:9/db can't be reached"),
    ("run tiny.yaml --data PLACE --set storage=postgresql+psycopg://me@127.0.0.1:9/db", "can't be reached"),
    ("run tiny.yaml --data PLACE --set storage=grpc://127.0.0.1:9", "127.0.0.1:9.* can't be reached"),
    ("check tiny.yaml --data PLACE --set storage=postgresql+psycopg://me@127.0.0.1:9/db", "can't be reached"),
    ("submit tiny.yaml --address http://127.0.0.1:9 --runs /shared", "the head at http://127.0.0.1:9 did not accept"),
]
FORBIDDEN = [  # as a user who may not read or write there
    ("front secret.yaml", "secret.yaml: can't be read: Permission denied"),
    ("clone secret.yaml new.yaml", "secret.yaml: can't be read: Permission denied"),
    ("ablate secret.yaml", "secret.yaml: can't be read: Permission denied"),
    ("simulate --table secret.parquet", "secret.parquet: Permission denied"),
    ("import secret.safetensors --out new.safetensors", "secret.safetensors: Permission denied"),
    ("import secret --out new.safetensors", "secret.*: Permission denied"),
    ("studies secret.db", "secret.db: can't be read: Permission denied"),
    ("front tiny --runs secret", "Permission denied"),
    ("run tiny.yaml --data secret", "no such folder|Permission denied"),
    ("init secret", "secret.*Permission denied|dataset.json"),
    ("phantom locked/new", "locked/new/dataset.json: Permission denied"),
    ("clone tiny.yaml locked/new.yaml", "locked.*: Permission denied"),
    ("front tiny --csv locked/front.csv", "locked.*: Permission denied"),
    (
        "import strange.safetensors --out locked/new.safetensors --preset unetrpp_acdc",
        "locked/new.safetensors: Permission denied",
    ),
    ("simulate --table table.parquet --seeds 1 --trainings 2 --proposers random --figure locked/x.html", "Permission"),
    ("report tiny", "runs/tiny.*: Permission denied"),
    ("compare runs/tiny runs/tiny --out locked/compare.html", "Permission denied"),
    ("run tiny.yaml --data PLACE --runs locked/runs", "Permission denied|can't be written"),
    ("studies --rename tiny other", "can't be written|Permission denied"),
    ("studies --copy tiny locked/copy.db", "can't be opened|can't be written|Permission denied"),
]


def contents(place):
    return {path: path.stat().st_mtime_ns for path in place.rglob("*") if not path.is_symlink() and path.is_file()}


@pytest.mark.parametrize(("arguments", "sentence"), COMMANDS, ids=[each[:50] for each, _ in COMMANDS])
def test_a_command_that_cannot_be_says_why_and_exits_with_2(arguments, sentence, place, capsys, monkeypatch):
    code, said = run(arguments, place, capsys, monkeypatch)
    assert code == 2, said
    assert _found(sentence, said), said
    assert not [path for path in place.rglob("*new*")]


@pytest.mark.parametrize(("arguments", "sentence"), FAULTS, ids=[each[:50] for each, _ in FAULTS])
def test_what_stops_a_correct_command_exits_with_1(arguments, sentence, place, capsys, monkeypatch):
    for name, value in SECONDS.items():
        monkeypatch.setattr(f"search.storage.database.{name}", value)
    code, said = run(arguments, place, capsys, monkeypatch)
    assert code == 1, said
    assert _found(sentence, said), said


@pytest.mark.parametrize(("arguments", "sentence"), FORBIDDEN, ids=[each[:50] for each, _ in FORBIDDEN])
def test_a_path_that_may_not_be_read_or_written_is_named(arguments, sentence, place, capsys, monkeypatch):
    before = contents(place)
    with as_nobody(place):
        code, said = run(arguments, place, capsys, monkeypatch)
    assert code == 2, said
    assert _found(sentence, said), said
    assert contents(place) == before


def _found(sentence, said):
    """Search for a sentence; typer breaks its own into lines within a box."""
    return re.search(sentence, " ".join(said.replace("│", " ").split()))
