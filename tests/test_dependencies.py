"""pip's constraints, uv's lock and pyproject.toml name the same packages in the same versions."""

import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def locked():
    packages = tomllib.loads((ROOT / "uv.lock").read_text())["package"]
    return {each["name"]: each for each in packages}


def test_pip_and_uv_install_the_same_versions(locked):
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = [Requirement(line) for line in lines if line and not line.startswith("#")]
    versions = {canonicalize_name(each.name): each.specifier for each in pinned}
    assert versions == {name: f"=={each['version']}" for name, each in locked.items() if name != "voxnas"}


def test_the_lock_is_made_from_what_pyproject_asks_for(locked):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [Requirement(each) for each in project["dependencies"]]
    asked += [Requirement(each) for extra in project["optional-dependencies"].values() for each in extra]
    wanted = {(canonicalize_name(each.name), str(each.specifier)) for each in asked if each.name != "voxnas"}
    metadata = locked["voxnas"]["metadata"]["requires-dist"]
    found = {(each["name"], ",".join(sorted(each.get("specifier", "").split(",")))) for each in metadata}
    assert {(name, ",".join(sorted(each.split(",")))) for name, each in wanted} == found - {("voxnas", "")}


def test_no_package_comes_from_a_private_index(locked):
    sources = {each["source"].get("registry", "here") for each in locked.values()}
    assert sources == {"here", "https://pypi.org/simple"}
