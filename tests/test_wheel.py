"""The wheel: it holds every module and asset of the tree, and works without the tree."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("blocks", "space", "search")
UNPACKED = {"search/visualization/assets/bundle.mjs"}  # makes an asset, is none itself
MOVED = {"search/api/voxnas/": "voxnas/"}
JUNK = shutil.ignore_patterns("__pycache__", "*.pyc")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Build a wheel from a copy of the tree: a build leaves files behind."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in PACKAGES:
        shutil.copytree(ROOT / name, folder / "tree" / name, ignore=JUNK)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copyfile(ROOT / name, folder / "tree" / name)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet"]
    done = subprocess.run(
        [*command, "--wheel-dir", str(folder), str(folder / "tree")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("voxnas-*.whl")
    return built


def packed_name(file: Path) -> str:
    name = file.relative_to(ROOT).as_posix()
    for tree, packed in MOVED.items():
        if name.startswith(tree):
            return packed + name.removeprefix(tree)
    return name


def test_the_wheel_holds_the_files_of_the_trees_packages_and_no_others(wheel):
    files = {file for name in PACKAGES for file in (ROOT / name).rglob("*") if file.is_file()}
    expected = {packed_name(file) for file in files if "__pycache__" not in file.parts} - UNPACKED
    with ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert packed == expected


def test_the_installed_wheel_knows_its_version_its_demo_and_its_assets_without_the_tree(wheel, tmp_path):
    install = [sys.executable, "-m", "pip", "install", "--no-deps", "--quiet", "--no-index"]
    subprocess.run([*install, "--target", str(tmp_path / "site"), str(wheel)], check=True, capture_output=True)
    lines = (
        "import search, voxnas",
        "from search.cli.demo import STUDY",
        "from search.config import load_study",
        "from search.visualization.html import ASSETS",
        "assert load_study(STUDY, need_data=False).study.name == 'demo'",
        "assert (ASSETS / 'report.html').is_file() and (ASSETS / 'plotly.js').is_file()",
        "print(search.__file__, voxnas.__version__)",
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(tmp_path / "site" / "search"))
