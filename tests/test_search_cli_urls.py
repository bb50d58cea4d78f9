"""A URL where a path is expected: refused before anything is read or written, for every path of every verb."""

import sys
from pathlib import Path

import pytest
import typer.main

from search.cli import main
from search.cli.app import app

URL = "postgresql+psycopg://me:hunter2@127.0.0.1:9/db"
COMMAND = typer.main.get_command(app)


def _is_path(parameter):
    return parameter.type_descriptor.annotation in (Path, list[Path])


def _with_url():
    """Yield a verb with each of its paths in turn as a URL, and all else that it requires."""
    for name, verb in COMMAND.commands.items():
        for asked in filter(_is_path, verb.params):
            arguments = []
            for each in verb.params:
                if each is asked or each.required:
                    flag = [each.opts[0]] if each.opts[0].startswith("-") else []
                    arguments += [*flag, URL if each is asked else "1"]
            yield pytest.param([name, *arguments], id=f"{name} {asked.name}")


def test_the_paths_of_verbs_are_found():
    assert len(list(_with_url())) > 30


@pytest.mark.parametrize("arguments", list(_with_url()))
def test_a_url_in_place_of_a_path_is_refused_and_makes_no_folder(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["voxnas", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr()
    assert ended.value.code == 2, said
    assert "a file or folder is expected instead of the URL postgresql+psycopg://...; a study file names" in said.err
    assert "hunter2" not in said.out + said.err and not list(tmp_path.iterdir())


def test_a_folder_that_is_called_like_a_scheme_is_a_path(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("a study:").mkdir()
    Path("https:").mkdir()
    for folder in ("a study:/data", "https:/data"):
        monkeypatch.setattr(sys, "argv", ["voxnas", "phantom", folder, "--cases", "1"])
        _run()
        assert (tmp_path / folder / "dataset.json").is_file()


def _run():
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
