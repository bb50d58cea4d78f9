"""Habits that every verb shares: help and tables in 80 columns, --quiet, --json, completion."""

import json
import re
import sys

import pytest
from test_search_cli import GROUP, VERBS, call

from search.cli import main

WIDTH = 80
TABLES = {  # a cheap call of each verb that prints a table
    "check": "check {file} --costs",
    "space": "space {file} --sample 2 --timed 0",
    "show": "show csam_unet",
    "show --all": "show --all",
    "help": "help training",
    "front": "front tiny",
    "trials": "trials tiny",
    "compare": "compare tiny {run}",
    "status": "status tiny",
    "studies": "studies",
}
WITHOUT_RUNS = ("show", "help")
ELSEWHERE = {"doctor", "check-block", "confirm", "ablate", "simulate", "test"}  # slow; tested with their rooms


def options(name):
    return {option for parameter in VERBS[name].params for option in parameter.opts}


def printed_by(command, tiny_run, monkeypatch, capsys, *more):
    given = command.format(file=tiny_run.file, run=tiny_run.runs / "tiny").split()
    runs = () if given[0] in WITHOUT_RUNS else ("--runs", tiny_run.runs)
    return call(monkeypatch, capsys, *given, *runs, *more).out


@pytest.mark.parametrize("name", ["", *VERBS])
def test_help_fits_80_columns_and_names_every_option_whole(name, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(WIDTH))
    said = call(monkeypatch, capsys, *([name] if name else []), "--help").out
    assert max(map(len, said.splitlines())) <= WIDTH and "…" not in said
    params = VERBS[name].params if name else GROUP.params
    for option in (each for parameter in params for each in parameter.opts if each.startswith("--")):
        assert re.search(rf"(?<![\w-]){option}(?![\w-])", said), option


def test_every_verb_with_a_table_is_called_here_or_with_its_room():
    assert {command.split()[0] for command in TABLES.values()} | ELSEWHERE == {
        name for name in VERBS if "--json" in options(name)
    }


@pytest.mark.parametrize("command", TABLES.values(), ids=TABLES)
def test_tables_fit_80_columns_and_have_the_same_content_as_json(command, tiny_run, monkeypatch, capsys):
    monkeypatch.setattr("search.api.terminal.PIPE_WIDTH", WIDTH)
    shown = printed_by(command, tiny_run, monkeypatch, capsys)
    long = [line for line in shown.splitlines() if len(line) > WIDTH]
    assert not long
    assert json.loads(printed_by(command, tiny_run, monkeypatch, capsys, "--json"))


def test_every_verb_that_shows_progress_can_be_quiet():
    loud = {name for name in VERBS if "--quiet" not in options(name)}
    assert loud == {  # these print nothing but their result
        *("show", "help", "schema", "phantom", "clone", "check-block"),
        *("front", "trials", "compare", "report", "studies", "status", "import"),
        *("submit", "dashboard"),
        "demo",  # its progress is its purpose
    }


@pytest.mark.parametrize("command", ["check {file}", "space {file} --sample 2 --timed 0"])
def test_a_quiet_verb_prints_its_result_alone(command, tiny_run, monkeypatch, capsys):
    given = command.format(file=tiny_run.file).split()
    printed = call(monkeypatch, capsys, *given, "--runs", tiny_run.runs, "--quiet")
    assert printed.out and not printed.err


def completed(words, monkeypatch, capsys):
    """Complete a command line as bash does, with the cursor behind its last word."""
    monkeypatch.setattr(sys, "argv", ["voxnas"])
    monkeypatch.setenv("_VOXNAS_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(len(words.split(" ")) - 1))
    with pytest.raises(SystemExit):
        main()
    return capsys.readouterr().out.split()


def test_the_shell_completes_verbs_options_and_studies(tiny_run, monkeypatch, capsys):
    assert set(completed("voxnas ", monkeypatch, capsys)) == set(VERBS)
    assert completed("voxnas che", monkeypatch, capsys) == ["check", "check-block"]
    for name in VERBS:
        assert set(completed(f"voxnas {name} --", monkeypatch, capsys)) >= {
            option for option in options(name) if option.startswith("--")
        }
    monkeypatch.chdir(tiny_run.runs.parent)
    assert completed("voxnas front ti", monkeypatch, capsys) == ["tiny", "tiny.yaml"]
