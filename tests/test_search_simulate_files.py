"""Tables in files: what a search reads from them, which mistakes are named, and what the command prints."""

import json
import shutil
import sys

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from search.cli import main
from search.config import UserError
from search.simulate.clock import Rules, simulate
from search.simulate.parquet import read_table, write_table
from search.simulate.synthetic import synthetic_table
from search.trials.check_table import MOST_EPOCHS
from search.trials.table_file import read_trainings

TWO = ['{"a": 1}', '{"a": 2}']
GOOD = {
    "architecture": [*TWO, '{"a": 3}'],
    "seed": [0, 0, 0],
    "epoch": [1, 1, 1],
    "dice": [0.5, 0.6, 0.4],
    "memory_bytes": [10, 20, 30],
    "latency_s": [3.0, 2.0, 4.0],
}


def write(file, **columns):
    values = {name: value for name, value in {**GOOD, **columns}.items() if value is not None}
    pyarrow.parquet.write_table(pyarrow.table(values), file)
    return file


def run(capsys, monkeypatch, *arguments):
    """Run the command in this process; return its exit code, output and errors."""
    monkeypatch.setattr(sys, "argv", ["voxnas", "simulate", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code, *capsys.readouterr()


BAD = [
    ({"dice": None}, "missing columns: dice \\(found: architecture, seed, epoch, memory_bytes, latency_s\\)"),
    ({"dice": [0.5, 1.5, 0.4]}, "row 1: dice is 1.5, not a number from 0 to 1"),
    ({"dice": [0.5, 0.6, None]}, "row 2: dice is None, not a number from 0 to 1"),
    ({"dice": [0.5, float("nan"), 0.4]}, "row 1: dice is nan, not a number from 0 to 1"),
    ({"dice": ["high", "low", "low"]}, "row 0: dice is 'high', not a number from 0 to 1"),
    ({"architecture": [*TWO, None]}, "row 2: architecture is None, not a text with a JSON object"),
    ({"architecture": [1, 2, 3]}, "row 0: architecture is 1, not a text with a JSON object"),
    ({"architecture": [*TWO, "plain"]}, "row 2: architecture is not a JSON object of plain values: 'plain'"),
    ({"architecture": [*TWO, '{"a": null}']}, "row 2: architecture is not a JSON object of plain values: .*null"),
    ({"architecture": [*TWO, '{"a": NaN}']}, "row 2: architecture is not a JSON object of plain values: .*NaN"),
    ({"architecture": TWO[:1] * 3, "seed": [0, 1, 2]}, "architecture is the same in all rows"),
    ({"architecture": ["{}"] * 3, "seed": [0, 1, 2]}, "architecture is the same in all rows"),
    ({"architecture": [*TWO, TWO[1]]}, "row 2: epoch repeats row 1, with the same architecture and seed"),
    ({"dice": [0.5] * 3}, "dice is equal for all architectures; there is nothing to learn"),
    ({"memory_bytes": [7] * 3}, "memory_bytes is equal for all architectures; leave it out with --objectives"),
    ({"dice": [0.3, 0.6, 0.3], "memory_bytes": [1, 9, 2]}, "each architecture has the worst value of one of them"),
    ({"memory_bytes": [10, 0, 30]}, "row 1: memory_bytes is 0, not a finite number above 0"),
    ({"latency_s": [3.0, 2.0, float("inf")]}, "row 2: latency_s is inf, not a finite number above 0"),
    ({"latency_s": [3.0, None, 4.0]}, "row 1: latency_s is None, not a finite number above 0"),
    ({"epoch_s": [-1.0, 1.0, 1.0]}, "row 0: epoch_s is -1.0, not a finite number from 0"),
    ({"epoch": [1.0, 1.5, 1.0]}, "row 1: epoch is 1.5, not a whole number from 1 to 100,000"),
    ({"epoch": [1, 10**9, 1]}, "row 1: epoch is 1000000000, not a whole number from 1 to 100,000"),
    ({"epoch": [1, 1, 0]}, "row 2: epoch is 0, not a whole number from 1 to 100,000"),
    ({"seed": [0.5, 0, 0]}, "row 0: seed is 0.5, not a whole number from 0"),
    ({"seed": [0, -1, 0]}, "row 1: seed is -1, not a whole number from 0"),
    ({name: [] for name in GOOD}, "the table has no rows"),
]


@pytest.mark.parametrize(("columns", "message"), BAD)
def test_a_bad_table_is_refused_with_column_and_row(tmp_path, columns, message):
    with pytest.raises(UserError, match=message) as error:
        read_table(write(tmp_path / "known.parquet", **columns))
    assert len(error.value.mistakes) == 1


def test_mistakes_of_several_columns_are_reported_at_once(tmp_path):
    with pytest.raises(UserError) as error:
        read_table(write(tmp_path / "known.parquet", seed=[0, 0.5, 0.5], dice=[2.0, 2.0, 0.1]))
    assert [str(each).partition(": ")[2] for each in error.value.mistakes] == [
        "row 1: seed is 0.5, not a whole number from 0",
        "row 0: dice is 2.0, not a number from 0 to 1",
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "no such file"), (b"", "not a Parquet file"), (b"architecture,seed\n", "not a Parquet file")],
)
def test_a_file_that_is_no_table_ends_the_command_with_one_line(tmp_path, capsys, monkeypatch, content, message):
    file = tmp_path / "known.parquet"
    if content is not None:
        file.write_bytes(content)
    code, _, errors = run(capsys, monkeypatch, "--table", file)
    assert code == 2 and message in errors and len(errors.splitlines()) == 1


def test_a_bad_table_ends_the_command_with_one_line(tmp_path, capsys, monkeypatch):
    file = write(tmp_path / "known.parquet", epoch=[1, 1, 10**9])
    code, _, errors = run(capsys, monkeypatch, "--table", file)
    assert code == 2 and f"row 2: epoch is 1000000000, not a whole number from 1 to {MOST_EPOCHS:,}" in errors
    assert len(errors.splitlines()) == 1


def test_architectures_written_differently_are_the_same_one(tmp_path):
    texts = ['{"a": 1, "b": 2}', '{"b":2,"a":1}', '{"a": 1, "b": 3}']
    table = read_table(write(tmp_path / "known.parquet", architecture=texts, seed=[0, 1, 0], dice=[0.5, 0.7, 0.4]))
    assert table.size == 2 and table.truth.tolist() == pytest.approx([0.6, 0.4])


def test_shorter_curves_repeat_their_last_dice_and_earlier_gaps_the_first(tmp_path):
    columns = {
        "architecture": [TWO[0], TWO[0], TWO[1], TWO[1]],
        "seed": [0] * 4,
        "epoch": [4, 2, 1, 3],
        "dice": [0.6, 0.5, 0.1, 0.2],
        "memory_bytes": [1, 1, 2, 2],
        "latency_s": [1.0] * 4,
        "epoch_s": [1.0, 3.0, 5.0, 5.0],
    }
    trainings = read_trainings(write(tmp_path / "known.parquet", **columns))
    assert trainings.epochs == 4
    assert trainings.curves[0].tolist() == [[0.5, 0.5, 0.5, 0.6]]
    assert trainings.curves[1].tolist() == [[0.1, 0.1, 0.2, 0.2]]
    assert trainings.epoch_s.tolist() == [2.0, 5.0]


def test_objectives_are_those_asked_for_or_those_that_the_table_has(tmp_path):
    file = write(tmp_path / "known.parquet", latency_s=None, params=[3, 2, 1])
    assert list(read_table(file).directions) == ["dice", "memory"]
    assert list(read_table(file, objectives=("dice", "params")).directions) == ["dice", "params"]
    only = write(tmp_path / "other.parquet", latency_s=None, memory_bytes=None, params=[3, 2, 1], macs=[9, 8, 7])
    assert set(read_table(only).directions) == {"dice", "params", "macs"}
    with pytest.raises(UserError, match="missing objectives: latency \\(found: dice, memory, params\\)"):
        read_table(file, objectives=("dice", "latency"))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("dice,memroy", "--objectives: there is no objective 'memroy'; did you mean 'memory'?"),
        ("memory,latency", "--objectives: dice is missing"),
        ("dice,memory,memory", "--objectives: a name is repeated"),
    ],
)
def test_wrong_objectives_are_refused(tmp_path, capsys, monkeypatch, names, message):
    file = write(tmp_path / "known.parquet")
    code, _, errors = run(capsys, monkeypatch, "--table", file, "--objectives", names)
    assert code == 2 and message in errors


def many(tmp_path, **columns):
    """Write 90 networks of three axes, whose Dice and costs rise with width."""
    rng = np.random.default_rng(0)
    choices = [(width, block, place) for width in range(1, 11) for block in "abc" for place in (0, 1, 2)]
    values = {
        "architecture": [
            json.dumps({"width": width, "block": block, "place": place}) for width, block, place in choices
        ],
        "seed": [0] * len(choices),
        "epoch": [1] * len(choices),
        "dice": [0.5 + 0.03 * width + 0.02 * rng.random() for width, _, _ in choices],
        "memory_bytes": [1000 * width + place for width, _, place in choices],
        "latency_s": None,
    }
    return write(tmp_path / "many.parquet", **{**values, **columns})


@pytest.mark.parametrize("name", ["known-cost", "random", "nsga2"])
@pytest.mark.parametrize("cost", ["memory_bytes", "params", "macs", "inference_memory_bytes", "latency_s"])
def test_every_kind_of_cost_alone_can_be_searched(tmp_path, name, cost):
    widths = [json.loads(text)["width"] for text in read_column(many(tmp_path), "architecture")]
    file = many(tmp_path, **{"memory_bytes": None, cost: [float(100 * width + 1) for width in widths]})
    run = simulate(read_table(file), name, seed=0, rules=Rules(trainings=12, enough=1.1))
    assert len(run.steps) == 12 and run.steps[-1].share > 0.3


def read_column(file, name):
    return pyarrow.parquet.read_table(file)[name].to_pylist()


def test_the_command_prints_tables_of_100_characters_and_its_progress(tmp_path, capsys, monkeypatch):
    names = "known-cost,random,nsga2"
    arguments = ["--table", many(tmp_path), "--seeds", 2, "--trainings", 200, "--proposers", names]
    code, output, errors = run(capsys, monkeypatch, *arguments)
    assert not code and max(map(len, output.splitlines())) <= 100
    assert "90 architectures" in output and "0.0 h" not in output and "known-cost to 95%" in output
    assert errors.splitlines()[-1] == "many: nsga2: 6 of 6 runs"
    arguments[arguments.index(200)] = 5
    code, output, errors = run(capsys, monkeypatch, *arguments)
    assert "share" not in output and "inf" not in output
    code, output, errors = run(capsys, monkeypatch, *arguments[:-2], "--proposers", "random", "--json", "--quiet")
    assert not code and not errors and json.loads(output)[0]["size"] == 90


def test_objectives_choose_the_front_of_a_synthetic_table_too(capsys, monkeypatch):
    arguments = ["--synthetic", "--only", "noisy", "--seeds", 1, "--trainings", 5, "--proposers", "random", "--json"]
    shares = []
    for objectives in ("dice,memory,latency", "dice,params"):
        code, output, _ = run(capsys, monkeypatch, *arguments, "--objectives", objectives)
        assert not code
        shares.append(json.loads(output)[0]["summaries"][0]["shares"])
    assert shares[0] != shares[1]


def test_a_search_that_learns_from_the_same_results_needs_fewer_trainings(tmp_path, capsys, monkeypatch):
    write_table(synthetic_table("noisy"), tmp_path / "one.parquet")
    shutil.copyfile(tmp_path / "one.parquet", tmp_path / "other.parquet")
    options = (
        "--table",
        tmp_path / "one.parquet",
        "--proposers",
        "known-cost",
        "--seeds",
        2,
        "--trainings",
        60,
        "--enough",
        0.95,
    )
    needed = []
    for more in ((), ("--learn-from", tmp_path / "other.parquet")):
        code, out, _ = run(capsys, monkeypatch, *options, "--json", *more)
        (table,) = json.loads(out)
        needed.append(table["summaries"][0]["trainings"][1])  # to 95 %
        assert not code
    assert needed[1] < needed[0]


def test_a_table_that_shares_no_axis_can_not_be_learned_from(tmp_path, capsys, monkeypatch):
    write(tmp_path / "good.parquet")
    write(tmp_path / "other.parquet", architecture=['{"colour": 1}', '{"colour": 2}', '{"colour": 3}'])
    both = "--learn-from", f"{tmp_path / 'good.parquet'},{tmp_path / 'other.parquet'}"
    code, _, said = run(capsys, monkeypatch, "--table", tmp_path / "good.parquet", *both)
    assert code == 2 and said.strip().endswith("other.parquet shares no axis with good")
