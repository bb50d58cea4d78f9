"""The reference of keys: every key is described, its example is valid, and the written page is up to date."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import jsonschema
import pytest
from test_search_cli import call

from search.ablation.schema import Ablation
from search.api.reference import ABLATION, STUDY, all_keys, as_markdown, find_keys, flow, keys_of, schema_of
from search.config import UserError, load_study
from search.config.keys import Key, file_schema
from search.config.validate import read_as
from search.config.yaml_source import Source, read_source, set_value

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "studies" / "docs" / "keys.md"
FILES = sorted(
    file
    for folder in ("studies", "search")
    for file in (ROOT / folder).rglob("*.yaml")
    if file.parent.name != "cluster"  # Ray's files and Kubernetes's
)
PARTS = {  # the least file of each kind
    STUDY: {"data": {"path": "."}, "objectives": {"dice": "maximize"}},
    ABLATION: {"name": "a", "data": {"path": "."}, "base": {"preset": "csam_unet"}, "arms": {"remove": ["csam.slice"]}},
}
BESIDE = {  # what else a key needs
    "space.open": {"space.base": "csam_unet"},
    "space.base": {"space.open": ["attention@skips"]},
    "space.forbid.when": {"space.forbid": [{"why": "too large"}]},
    "space.forbid.why": {"space.forbid": [{"when": {"width": 32}}]},
    "base.pick": {"base": {"study": "acdc.yaml"}},
    "base.study": {"base": {}},
    "scale": {"scales.small": {"training.epochs": 2}},
}
SCHEMAS = {kind: jsonschema.Draft202012Validator(schema_of(kind)) for kind in PARTS}
PAIRS = [(entry, kind) for entry in all_keys() for kind in entry.files]
each_key = pytest.mark.parametrize(("entry", "kind"), PAIRS, ids=[f"{kind}-{entry.name}" for entry, kind in PAIRS])


def file_with(entry, kind, tmp_path):
    """Write the least file of a kind with the example of a key."""
    source = Source("", json.loads(json.dumps(PARTS[kind])))
    for key, value in BESIDE.get(entry.name, {}).items():
        set_value(source, tuple(key.split(".")), json.loads(json.dumps(value)), place="")
    holder = source.values
    for part in entry.group.split(".") if entry.group else ():
        holder = holder.setdefault(part, {}) if not isinstance(holder.get(part), str) else {}
        holder = holder[0] if isinstance(holder, list) else holder
    if entry.group.startswith("objectives."):
        holder = source.values["objectives"][entry.group.partition(".")[2]] = {}
    holder[entry.name.rpartition(".")[2]] = entry.example
    file = tmp_path / "file.yaml"
    file.write_text(json.dumps(source.values))
    return file


@each_key
def test_the_example_of_every_key_is_valid(entry, kind, tmp_path):
    file = file_with(entry, kind, tmp_path)
    values = json.loads(file.read_text())
    assert flow(entry.example) in flow(values)
    assert [error.message for error in SCHEMAS[kind].iter_errors(values)] == []
    if kind == STUDY:
        assert load_study(file, need_data=False).study
    else:
        assert read_as(Ablation, read_source(file))[1] == []


@each_key
def test_the_line_of_an_example_reads_back_as_the_example(entry, kind, tmp_path):
    key, _, text = entry.line.partition(": ")
    (tmp_path / "line.yaml").write_text(f"file: {{{key}: {text}}}")
    assert read_source(tmp_path / "line.yaml").values == {"file": {key: entry.example}}


@each_key
def test_the_meaning_of_every_key_is_a_sentence_that_covers_its_absence(entry, kind):
    assert entry.meaning[0].isupper() and entry.meaning.endswith(".") and len(entry.meaning) > 10
    if entry.default == "not set":
        assert "Without it, " in entry.meaning


@pytest.mark.parametrize("kind", PARTS)
def test_every_field_of_the_schemas_is_a_key(kind):
    schema = schema_of(kind)
    fields = {field for each in (schema, *schema["$defs"].values()) for field in each["properties"]}
    assert fields == {entry.name.rpartition(".")[2] for entry, each in PAIRS if each == kind}


def test_a_field_without_a_meaning_is_refused():
    @dataclass(frozen=True)
    class Rock:
        name: Annotated[str, Key("Name of the rock.", "granite")]
        hardness: int = 3

    with pytest.raises(ValueError, match="the field of 'hardness' has no Key in its annotation"):
        list(keys_of(file_schema(Rock, title="rock")))


@pytest.mark.parametrize("file", FILES, ids=[str(file.relative_to(ROOT)) for file in FILES])
def test_the_schemas_accept_the_files_of_the_repository(file):
    values = read_source(file).values
    kind = ABLATION if "arms" in values else STUDY
    values.setdefault("name", file.stem)
    assert [error.message for error in SCHEMAS[kind].iter_errors(values)] == []


@pytest.mark.parametrize(
    ("kind", "key", "value"),
    [
        (STUDY, "training", {"epochs": 0}),
        (STUDY, "training", {"epoch": 3}),
        (STUDY, "training", {"patch": [16, 16]}),
        (STUDY, "training", {"augment": {"gamma": "maybe"}}),
        (STUDY, "objectives", {"dice": "minimize"}),
        (STUDY, "search", {"proposer": "best"}),
        (STUDY, "executor", {"device": "gpu"}),
        (ABLATION, "metrics", ["speed"]),
        (ABLATION, "seeds", 0),
        (ABLATION, "search", {"trials": 3}),
    ],
)
def test_the_schemas_refuse_what_the_command_refuses(kind, key, value):
    values = {**PARTS[kind], key: value}
    assert list(SCHEMAS[kind].iter_errors(values))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("training", None),
        ("training", {"augment": {"noise": 0.1, "blur": "on", "gamma": "off"}, "deadline": "6 h"}),
        ("objectives", {"dice": None, "memory": {"budget": "4 GiB", "direction": "record"}, "latency": "minimize"}),
        ("search", {"halving": "off"}),
    ],
)
def test_the_schema_accepts_the_short_forms_that_the_command_accepts(key, value, tmp_path):
    values = {**PARTS[STUDY], key: value}
    (tmp_path / "file.yaml").write_text(json.dumps(values))
    assert load_study(tmp_path / "file.yaml", need_data=False)
    assert list(SCHEMAS[STUDY].iter_errors(values)) == []


def test_the_written_reference_is_up_to_date(monkeypatch, capsys):
    assert call(monkeypatch, capsys, "help", "--markdown").out == as_markdown() == PAGE.read_text(), "run `make docs`"


def test_help_shows_one_key_in_full(monkeypatch, capsys):
    assert call(monkeypatch, capsys, "help", "training.learning_rate").out.splitlines() == [
        "training.learning_rate",
        "  Initial learning rate.",
        "  type     number > 0",
        "  default  0.003; 0.01 in nnunet-2.8",
        "  example  learning_rate: 0.001",
        "  in       study files and ablation files",
    ]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("track", "tensorboard or mlflow or wandb or trackio or list of (tensorboard or mlflow or wandb or trackio)"),
        ("training.mirror", "none or list of (D or H or W)"),
        ("blocks", "list of text"),
        ("executor.device", "auto, cpu, cuda or cuda:N"),
    ],
)
def test_a_type_states_what_a_list_may_hold_and_gives_no_order(name, expected):
    assert find_keys(name)[0].type == expected


def test_help_on_a_group_lists_its_keys_and_help_alone_lists_all(monkeypatch, capsys):
    group = call(monkeypatch, capsys, "help", "halving").out
    assert group.startswith("search.halving\n")
    assert all(name in group for name in ("halving.min_epochs", "halving.reduction", "halving.brackets"))
    every = call(monkeypatch, capsys, "help").out
    assert all(f"{entry.name} " in every for entry in all_keys())


def test_the_end_of_a_name_finds_all_keys_that_end_with_it():
    assert [entry.name for entry in find_keys("seed")] == ["data.seed", "search.seed"]
    assert {entry.files for entry in find_keys("surface_tolerance")} == {(STUDY,), (ABLATION,)}


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ("epoks", r"^help: no key is called 'epoks'; did you mean 'epochs'\?; `voxnas help` lists all keys$"),
        ("training.epoks", r"did you mean 'training.epochs'\?"),
        ("xyzzy", r"^help: no key is called 'xyzzy'; `voxnas help` lists all keys$"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_one(named, message):
    with pytest.raises(UserError, match=message):
        find_keys(named)


def test_schema_prints_the_schema_of_a_kind_of_file(monkeypatch, capsys):
    for kind in PARTS:
        assert json.loads(call(monkeypatch, capsys, "schema", kind).out) == schema_of(kind)
    wrong = call(monkeypatch, capsys, "schema", "abblation", code=2).err
    assert "'abblation' is not a kind of file; did you mean 'ablation'?" in wrong
