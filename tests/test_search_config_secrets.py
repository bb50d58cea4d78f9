"""Passwords in messages: hidden in every form in which a database's address may be mistyped."""

import pytest
from conftest import write_study
from test_search_cli import call

from search.config.secrets import without_arguments_secrets, without_secret
from search.config.units import parse_bytes

ADDRESSES = [
    "postgresql://me:hunter2@host/db",
    "postgresql+psycopg://me:hunter2@ho st/db",
    "postgresql+psycopg://me:hunter2@host:port/db",
    "postgres://me:hunter2@[::1/db",
    "postgresql:/me:hunter2@h/db",
    "postgresql//me:hunter2@h/d",
    "me:hunter2@host/db",
    "jdbc:postgresql://me:hunter2@h/d",
    "redis://:hunter2@h",
    "postgresql+psycopg://me:hunter2/x@h/d",
    "postgresql+psycopg://me:hunter2#@h/d",
    "postgresql+psycopg://me:a@hunter2:b@h/d",
    "postgresql+psycopg://me\n:hunter2@h/d",
    " postgresql://me:hunter2@h/d",
    "grpc://u:hunter2@h",
    "host=h password=hunter2 dbname=d",
    "postgresql+psycopg://h/d?sslpassword=hunter2",
    "postgresql+psycopg://h/d?options=-c%20PASSWORD=hunter2",
]


@pytest.mark.parametrize("address", ADDRESSES)
def test_a_password_is_hidden_in_every_form_of_an_address(address):
    assert "hunter2" not in without_secret(f"storage: {address!r} is no database")
    for argument in (address, f"storage={address}", f"data.path={address}", f"training.init={address}"):
        assert "hunter2" not in without_arguments_secrets(f"no such file: {address}; see {address!r}", [argument])


@pytest.mark.parametrize("text", ["study.yaml:3:5: space.choices.attention@bottleneck: 4 is wrong", "me@host is away"])
def test_a_text_without_a_password_stays(text):
    assert (
        without_secret(text) == without_arguments_secrets(text, ["space.choices.attention@bottleneck=[none]"]) == text
    )


@pytest.mark.parametrize("verb", ["front", "status", "report", "studies", "run", "check", "export", "clone"])
@pytest.mark.parametrize(
    "address", ["me:hunter2@host/db", "postgresql://me:hunter2@host/db", "postgresql:/me:hunter2@h"]
)
def test_no_verb_repeats_a_password_that_is_given_instead_of_a_study(verb, address, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    more = {"export": ["--out", "out"], "clone": ["new.yaml"]}
    printed = call(monkeypatch, capsys, verb, address, *more.get(verb, []), code=2)
    assert "voxnas: " in printed.err and "hunter2" not in printed.err + printed.out


@pytest.mark.parametrize("where", ["the file", "an override"])
def test_a_clone_copies_no_password(where, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    study, address = write_study(tmp_path), "postgresql+psycopg://me:hunter2@host/db"
    override = ["--set", f"storage={address}"] if where == "an override" else []
    if not override:
        study.file.write_text(f"{study.file.read_text()}\nstorage: {address}\n")
    printed = call(monkeypatch, capsys, "clone", study.file, "new.yaml", *override, code=2)
    assert "storage: remove the password from the URL; set it in PGPASSWORD or ~/.pgpass" in printed.err
    assert "hunter2" not in printed.err + printed.out and not (tmp_path / "new.yaml").exists()


@pytest.mark.parametrize("verb", ["init", "confirm"])
def test_a_password_after_a_blank_is_not_repeated(verb, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    printed = call(monkeypatch, capsys, verb, " postgresql://me:hunter2@host/db", code=2)
    assert "postgresql:/" in printed.err and "hunter2" not in printed.err + printed.out


def test_a_size_below_a_byte_is_no_budget_of_nothing():
    assert parse_bytes("0.4 B") == 1
