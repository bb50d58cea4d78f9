"""The wheel: it holds every module and asset of the tree, and works without the tree."""

import os
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("blocks", "space", "search")
UNPACKED = {"search/visualization/assets/bundle.mjs"}  # makes an asset, is none itself
MOVED = {"search/api/voxnas/": "voxnas/"}
DEMO_TIMEOUT_S = 3600
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


def outside(folder: Path) -> dict[str, str]:
    """Return an environment that doesn't lead to this checkout."""
    return {**{key: value for key, value in os.environ.items() if key != "PYTHONPATH"}, "HOME": str(folder)}


def shown_by_dashboard(voxnas: Path, home: Path) -> dict[str, str]:
    """Start the dashboard over the runs in a folder; return its pages by path."""
    command = [str(voxnas), "dashboard", "--port", "0"]
    process = subprocess.Popen(command, cwd=home, env=outside(home), stdout=subprocess.PIPE, text=True)
    try:
        place = process.stdout.readline().split()[0].rstrip("/")
        paths = ("/", "/study/demo/front", "/voxnas/plotly.js", "/voxnas/style.css", "/voxnas/start.js")
        return {path: urllib.request.urlopen(place + path, timeout=60).read().decode() for path in paths}
    finally:
        process.terminate()
        process.wait(60)


def masked(python: Path, home: Path) -> str:
    """Segment a volume of the demo with its exported network; return what predict.py prints."""
    image = min((home / "runs" / "demo-data").rglob("imagesTr/*.nii.gz"))
    command = [
        str(python),
        "-I",
        str(home / "runs" / "demo" / "export" / "predict.py"),
        str(image),
        "--out",
        "mask.nii.gz",
    ]
    return subprocess.run(command, cwd=home, env=outside(home), capture_output=True, text=True, check=True).stdout


@pytest.mark.long
@pytest.mark.timeout(2 * DEMO_TIMEOUT_S)
def test_a_fresh_environment_with_the_wheel_runs_demo_dashboard_and_export(wheel, tmp_path):
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    tools, home = tmp_path / "venv" / "bin", tmp_path / "home"
    home.mkdir()
    constraints = ["--constraint", str(ROOT / "constraints.txt")]
    subprocess.run([str(tools / "pip"), "install", "--quiet", *constraints, str(wheel)], check=True)
    command = [str(tools / "voxnas"), "demo"]
    done = subprocess.run(
        command, cwd=home, env=outside(home), capture_output=True, text=True, timeout=DEMO_TIMEOUT_S, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Next:" in done.stdout and (home / "runs" / "demo" / "report.html").is_file()
    pages = shown_by_dashboard(tools / "voxnas", home)
    assert "demo" in pages["/study/demo/front"] and all(pages.values())
    assert "voxels of core" in masked(tools / "python", home)
