"""The container files: what they copy exists and suffices to install, and they install the tested versions."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "studies" / "docker"
FORMS = {
    "Dockerfile": (r"^COPY (.+) \./\S*$", r"^RUN (pip install .+)$"),
    "voxnas.def": (r"^ {4}(\S+) /opt/voxnas/\S+$", r"^ {4}(pip install .+)$"),
}


@pytest.mark.parametrize("name", FORMS)
def test_a_container_copies_all_that_an_installation_reads(name):
    copies, _ = FORMS[name]
    text = (FOLDER / name).read_text()
    copied = {part for line in re.findall(copies, text, flags=re.M) for part in line.split()}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = {each.rstrip("*") for each in project["tool"]["setuptools"]["packages"]["find"]["include"]} - {"voxnas"}
    described = {project["project"]["readme"], *project["project"]["license-files"]}
    assert copied == packages | described | {"pyproject.toml", "constraints.txt"}
    assert all((ROOT / each).exists() for each in copied)


@pytest.mark.parametrize("name", FORMS)
def test_a_container_installs_the_tested_versions_with_known_extras(name):
    _, install = FORMS[name]
    (command,) = re.findall(install, (FOLDER / name).read_text(), flags=re.M)
    assert "--constraint constraints.txt" in command
    extras = re.search(r"\.\[(.+)\]", command)[1].split(",")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(extras) < set(project["optional-dependencies"])
