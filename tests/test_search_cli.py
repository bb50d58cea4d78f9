"""The command line: complete help, verbatim text from files, tables as JSON on request."""

import json
import re
import shlex
import sys
from importlib.metadata import version
from io import StringIO
from pathlib import Path

import pytest
import typer
from conftest import STUDY, write_study
from rich.console import Group
from rich.table import Table
from rich.text import Text

from search.api.find import find_study
from search.api.terminal import PlainConsole, printable
from search.cli import main
from search.cli.app import app
from search.cli.options import complete_study
from search.cli.running import load_to_use
from search.cli.verbs.register import COMPARE, DEPLOY, RESULTS, SEARCH, START
from search.config import UserError
from search.config.units import counted

GROUP = typer.main.get_command(app)
VERBS = GROUP.commands
HOSTILE = "a[b] [/x] [bold red] :smile: \x1b[31mred\x1b[0m \x1b]0;title\x07bell\x07 \u202egnp"
HARMLESS = "a[b] [/x] [bold red] :smile: red bell gnp"


def call(monkeypatch, capsys, *arguments, code=0):
    """Run the command in this process; return its standard output and standard error."""
    monkeypatch.setattr(sys, "argv", ["voxnas", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        main()
    printed = capsys.readouterr()
    assert (stop.value.code or 0) == code, printed.err
    return printed


def words(text):
    return re.sub(r"[\s│]+", " ", text)


def help_of(monkeypatch, capsys, *verb):
    monkeypatch.setenv("COLUMNS", "400")
    return words(call(monkeypatch, capsys, *verb, "--help").out)


@pytest.mark.parametrize("name", VERBS)
def test_help_shows_every_text_and_every_default(name, monkeypatch, capsys):
    said = help_of(monkeypatch, capsys, name)
    assert words(VERBS[name].help) in said
    for parameter in VERBS[name].params:
        assert parameter.help, f"{name} {parameter.name} has no help"
        assert words(parameter.help) in said
        default = parameter.show_default if isinstance(parameter.show_default, str) else parameter.default
        if isinstance(parameter.show_default, str) or (default and not parameter.is_bool_flag):
            assert str(default) in said, (name, parameter.name, default)


def parse(command):
    """Parse a `voxnas` command as the command line does, without running it."""
    with GROUP.make_context("voxnas", shlex.split(command)[1:], resilient_parsing=False) as context:
        name, verb, rest = GROUP.resolve_command(context, [*context._protected_args, *context.args])
        verb.make_context(name, rest, parent=context)
    return name


@pytest.mark.parametrize("name", VERBS)
def test_help_ends_with_an_example_that_parses(name, monkeypatch, capsys):
    example = VERBS[name].epilog.removeprefix("Example: ")
    assert parse(example) == name and words(example) in help_of(monkeypatch, capsys, name)
    with pytest.raises(Exception, match="No such option: --no-such-option"):
        parse(f"{example} --no-such-option")


def test_help_lists_every_verb_once_under_a_heading_for_its_task(monkeypatch, capsys):
    said = help_of(monkeypatch, capsys)
    for heading in (START, SEARCH, RESULTS, COMPARE, DEPLOY):
        assert f"─ {heading} ─" in said
    assert "─ Commands ─" not in said
    assert all(f" {name} {words(verb.help)}" in said for name, verb in VERBS.items())
    assert "--install-completion" in said


def test_the_version_is_that_of_the_package(monkeypatch, capsys):
    assert call(monkeypatch, capsys, "--version").out == f"voxnas {version('voxnas')}\n"


def test_markup_and_escape_sequences_never_reach_the_terminal():
    console = PlainConsole(file=StringIO(), width=200, force_terminal=True, color_system="truecolor")
    table = Table(title=HOSTILE, caption=HOSTILE)
    table.add_column(HOSTILE)
    table.add_row(HOSTILE)
    table.add_row(Text("[cell] \x1b[31m"))
    console.print(HOSTILE, Group(table, Text("[group] \x1b[31m")))
    shown = re.sub(r"\x1b\[[0-9;]*m", "", console.file.getvalue())  # rich's own colours of title and heading
    assert shown.count(HARMLESS) == 5 and "[cell]" in shown and "[group]" in shown
    assert "\x1b" not in shown and "\u202e" not in shown and "31m" not in console.file.getvalue()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain\ttext\nline", "plain\ttext\nline"),
        ("\x1b[2J\x1b[1;1Hcleared", "cleared"),
        ("\x1b]8;;https://a.example\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("unfinished \x1b]52;c;Y2xpcA", "unfinished 52;c;Y2xpcA"),
        ("\x9b31mC1", "31mC1"),
        ("a\rb\x08c\x00\x1b", "abc"),
        ("größe 体積 β² 🫀", "größe 体積 β² 🫀"),
        ("bytes \udcff of no text", "bytes \ufffd of no text"),
    ],
)
def test_control_characters_are_removed(text, shown):
    assert printable(text) == shown


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """A study whose class names and rules look like markup."""
    rules = '  forbid: [{when: {width: 2, repeats: 2}, why: "[/x] [bold]too\\e[31m thin"}]\n'
    made = write_study(tmp_path_factory.mktemp("odd"), STUDY.replace("objectives:", f"{rules}objectives:", 1))
    file = made.data / "phantom" / "dataset.json"
    values = json.loads(file.read_text())
    values["labels"] = {key: each if each == "background" else f"a[b]{key}" for key, each in values["labels"].items()}
    file.write_text(json.dumps(values))
    return made


def test_names_with_brackets_are_printed_whole(odd, monkeypatch, capsys):
    checked = call(monkeypatch, capsys, "check", odd.file, "--runs", odd.runs).out
    assert "a[b]1 " in checked
    shown = call(monkeypatch, capsys, "space", odd.file, "--runs", odd.runs, "--sample", 1, "--timed", 0).out
    assert "forbidden: [/x] [bold]too thin" in shown
    wrong = call(monkeypatch, capsys, "front", "[/x]\x1b[31m", "--runs", odd.runs, code=2).err
    assert wrong.startswith("voxnas: '[/x]") and "\x1b" not in wrong


def test_only_verbs_without_a_table_have_no_json():
    without = {name for name, verb in VERBS.items() if all(each.name != "json" for each in verb.params)}
    assert without == {
        "demo",
        "init",
        "clone",
        "phantom",
        "schema",
        "run",
        "submit",
        "tabulate",
        "dashboard",
        "report",
        "export",
        "import",
    }


@pytest.mark.parametrize(
    ("arguments", "keys"),
    [
        ("check {file} --costs", {"data", "training", "space", "search", "costs"}),
        ("space {file} --sample 2 --timed 0", {"size", "axes", "infeasible", "costs"}),
        ("front tiny", {"objectives", "hypervolume", "front"}),
        ("status tiny", {"planned", "counts", "running", "failures"}),
        ("studies", {"done", "studies"}),
        ("show sau_net", {"architecture", "layers"}),
    ],
)
def test_every_table_is_available_as_json(arguments, keys, tiny_run, monkeypatch, capsys):
    given = arguments.format(file=tiny_run.file).split()
    runs = () if given[0] == "show" else ("--runs", tiny_run.runs)
    assert keys <= json.loads(call(monkeypatch, capsys, *given, *runs, "--json").out).keys()


def test_the_json_of_check_counts_cases_folds_and_trials(tiny_run, monkeypatch, capsys):
    values = json.loads(call(monkeypatch, capsys, "check", tiny_run.file, "--runs", tiny_run.runs, "--json").out)
    assert values["data"]["cases"] == 6 and values["data"]["fold"] == 0 and values["data"]["train"] == 4
    assert values["training"]["patch_dhw"] == [5, 24, 24]
    assert values["search"] == {
        "proposer": "random",
        "trials": 3,
        "hours": None,
        "done": 3,
        "interrupted": 0,
        "learns_from": [],
    }
    assert values["space"]["size"] == 12 and set(values["space"]["open_axes"]) >= {"width", "repeats"}


def test_a_study_is_read_by_its_file_its_folder_and_its_name(tiny_run, monkeypatch, capsys):
    found = [find_study(each, runs=tiny_run.runs) for each in (tiny_run.file, tiny_run.runs / "tiny", "tiny")]
    assert {runs for _, runs in found} == {tiny_run.runs}
    assert all(loaded.study == found[0][0].study for loaded, _ in found)
    tables = [call(monkeypatch, capsys, "front", each, "--runs", tiny_run.runs).out for each in (tiny_run.file, "tiny")]
    assert tables[0] == tables[1] and "network" in tables[0]


@pytest.mark.parametrize(
    ("named", "overrides", "message"),
    [
        ("tinny", [], r"'tinny' is neither a study file nor the name of a study; did you mean 'tiny'\? \(studies in"),
        ("no.yaml", [], r"'no.yaml' is neither a study file nor the name of a study \(studies in .*: tiny\)"),
        ("tiny", ["keep=all"], "--set needs the study's file; tiny is a run, whose settings are fixed"),
    ],
)
def test_a_missing_study_is_reported_with_the_nearest_name(named, overrides, message, tiny_run):
    with pytest.raises(UserError, match=message):
        find_study(named, overrides=overrides, runs=tiny_run.runs)


def test_without_any_run_no_name_is_suggested(tmp_path):
    with pytest.raises(UserError, match="no study has run in .* yet"):
        find_study("tiny", runs=tmp_path)


def test_completion_suggests_names_of_runs_and_study_files(tiny_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "tiny").mkdir(parents=True)
    (tmp_path / "runs" / "tiny" / "study.yaml").touch()
    (tmp_path / "tissue.yaml").touch()
    (tmp_path / "times.txt").touch()
    (tmp_path / "tests").mkdir()
    assert sorted(complete_study("ti")) == ["tiny", "tissue.yaml"]
    assert sorted(complete_study("t")) == ["tests/", "tiny", "tissue.yaml"]


def test_the_last_study_can_be_deleted_and_the_list_is_empty(tmp_path, monkeypatch, capsys):
    from test_search_analysis_status import fill

    fill(tmp_path).close()
    runs = ("--runs", tmp_path / "runs")
    assert "1 study" in call(monkeypatch, capsys, "studies", *runs).out
    assert "0 studies" in call(monkeypatch, capsys, "studies", "--delete", "tiny", "--yes", *runs).out


def test_counts_agree_with_their_nouns():
    assert [counted(number, "trial") for number in (0, 1, 2, 1200)] == [
        "0 trials",
        "1 trial",
        "2 trials",
        "1,200 trials",
    ]


def test_a_quiet_run_prints_its_outcome_alone(tiny_run, monkeypatch, capsys):
    printed = call(monkeypatch, capsys, "run", tiny_run.file, "--runs", tiny_run.runs, "--quiet").out
    assert printed == "3 trials are done (3 trained)\n"


def test_a_run_ends_with_commands_that_show_and_use_its_results(tiny_run, monkeypatch, capsys):
    printed = call(monkeypatch, capsys, "run", tiny_run.file, "--runs", tiny_run.runs).out
    outcome, _, following = printed.partition("Next:\n")
    assert outcome.endswith("3 trials are done (3 trained)\n")
    commands = following.splitlines()
    assert [parse(command.strip()) for command in commands] == ["front", "dashboard", "report", "export"]
    front, *_, export = map(shlex.split, commands)
    assert "network" in call(monkeypatch, capsys, *front[1:]).out
    data = Path(export[export.index("--data") + 1])
    found = load_to_use(export[2], data, None, tiny_run.runs)  # the export's study and data are found
    assert found.loaded.data_folder == tiny_run.data / "phantom"


@pytest.mark.parametrize("named", ["tiny", "runs/tiny"])
def test_a_study_to_export_is_named_by_its_run_too_and_keeps_the_overrides_of_the_run(named, tiny_run):
    found = load_to_use(named if named == "tiny" else str(tiny_run.data / named), tiny_run.data, None, tiny_run.runs)
    assert found.settings == load_to_use(str(tiny_run.file), tiny_run.data, None, tiny_run.runs).settings
    assert found.folder == tiny_run.runs / "tiny"
    with pytest.raises(UserError, match="--set needs the study's file; tiny is a run, whose settings are fixed"):
        load_to_use("tiny", tiny_run.data, ["training.epochs=3"], tiny_run.runs)


def test_progress_is_lines_where_output_is_no_terminal_but_claims_to_be(monkeypatch):
    from search.api.progress import RunView

    view = RunView(PlainConsole(file=StringIO(), force_terminal=True), name="tiny", trials=1)
    assert view.live is None


def test_an_override_with_a_mistake_names_its_key_once(tiny_run):
    with pytest.raises(UserError, match=r"^--set training.epochs: input should be a valid integer, got 'ten'"):
        find_study(tiny_run.file, overrides={"training.epochs": "ten"})
