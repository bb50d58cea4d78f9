"""Who may import whom, and what looking at a study must not load."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ONLY = {  # package: files that may know it
    "optuna": ("search/store/", "search/proposers/"),
    "plotly": ("search/figures/", "search/report.py", "search/ablation/report.py"),
    "ray": ("search/cluster/",),
    "dash": ("search/dashboard/",),
    "typer": ("search/cli.py",),
}


def imports(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found


FILES = sorted(file for package in ("blocks", "space", "search") for file in (ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_imports_go_one_way(file):
    name, known = str(file.relative_to(ROOT)), imports(file)
    if name.startswith("blocks/"):
        outside = known - sys.stdlib_module_names - {"blocks"}
        assert outside <= {"torch", "timm"}
    if name.startswith("space/"):
        assert not known & {"search", "optuna", "ray", "plotly", "monai"}
    for package, allowed in ONLY.items():
        if package in known:
            assert name.startswith(allowed), f"{name} imports {package}"


@pytest.mark.parametrize("verb", ["check", "front"])
def test_looking_loads_neither_torch_nor_monai(verb, tiny_run):
    code = (
        "import sys\nsys.argv = ['voxnas', *sys.argv[1:]]\nfrom search.cli import main\n"
        "try:\n    main()\nexcept SystemExit as done:\n    assert not done.code, done.code\n"
        "heavy = {'torch', 'monai', 'ray', 'timm', 'optuna', 'plotly'} & set(sys.modules)\nassert not heavy, heavy\n"
    )
    arguments = [verb, str(tiny_run.file), "--runs", str(tiny_run.runs)]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_help_loads_next_to_nothing():
    code = (
        "import sys\nsys.argv = ['voxnas', '--help']\nfrom search.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'numpy', 'pydantic', 'nibabel', 'sqlalchemy', 'ray'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout
