"""The order of imports, and the modules that read-only commands must not load."""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ORDER = (  # of rooms: a room imports only from the lines above its own
    ("blocks",),
    ("space",),
    ("files",),
    ("data", "config"),
    ("trials",),
    ("training", "storage"),
    ("costs", "proposers", "tracking"),
    ("analysis",),
    ("runner", "visualization"),
    ("ablation", "export", "simulate", "dashboard", "setup"),
    ("api",),
    ("cli",),
)
RANK = {room: rank for rank, rooms in enumerate(ORDER) for room in rooms}
LOOSE = {"search"}  # at the root of search/
ONLY = {  # package: where it may be imported
    "optuna": ("search/storage/", "search/analysis/importance.py", "search/proposers/"),
    "plotly": (
        "search/api/study.py",
        "search/visualization/figures/",
        "search/visualization/html.py",
        "search/ablation/figures.py",
    ),
    "ray": ("search/runner/cluster/",),
    "dash": ("search/dashboard/",),
    "typer": ("search/cli/",),
    "mlflow": ("search/tracking/mlflow.py",),
    "wandb": ("search/tracking/wandb.py",),
    "trackio": ("search/tracking/trackio.py",),
}
OUTSIDE = {  # third-party imports that a package may use
    "blocks": {"torch", "timm"},
    "space": {"torch", "timm", "numpy", "blocks"},
}


def module_name(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {
    module_name(file): file
    for package in ("blocks", "space", "search")
    for file in sorted((ROOT / package).rglob("*.py"))
}


def imports(file: Path) -> set[str]:
    """Return every name that a file imports, including lazy imports and those for type checking only."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def arrows(name: str) -> set[str]:
    """Return the modules of this project that a module imports."""
    found = {each if each in FILES else each.rpartition(".")[0] for each in imports(FILES[name])}
    return (found & FILES.keys()) - {name}


def room_of(name: str) -> str:
    package, _, rest = name.partition(".")
    return rest.partition(".")[0] if package == "search" and rest else package


@pytest.mark.parametrize("name", FILES)
def test_imports_go_one_way(name):
    room = room_of(name)
    if room not in LOOSE:
        up = [each for each in arrows(name) if room_of(each) != room and RANK[room_of(each)] >= RANK[room]]
        assert not up, f"{name} imports {up}, of the same or a higher layer"
    file, packages = str(FILES[name].relative_to(ROOT)), {each.partition(".")[0] for each in imports(FILES[name])}
    if room in OUTSIDE:
        assert packages - sys.stdlib_module_names - {room} <= OUTSIDE[room]
    for package, allowed in ONLY.items():
        if package in packages:
            assert file.startswith(allowed), f"{file} imports {package}"


def test_there_are_no_import_cycles():
    graphlib.TopologicalSorter({name: arrows(name) for name in FILES}).prepare()


def test_every_package_has_a_layer():
    rooms = {room_of(name) for name in FILES}
    assert rooms - LOOSE == RANK.keys()
    loose = {name for name, file in FILES.items() if file.parent == ROOT / "search" and file.name != "__init__.py"}
    assert not loose


@pytest.mark.parametrize("verb", ["check", "front"])
def test_read_only_commands_load_neither_torch_nor_monai(verb, tiny_run):
    code = (
        "import sys\nsys.argv = ['voxnas', *sys.argv[1:]]\nfrom search.cli import main\n"
        "try:\n    main()\nexcept SystemExit as done:\n    assert not done.code, done.code\n"
        "heavy = {'torch', 'monai', 'ray', 'timm', 'optuna', 'plotly'} & set(sys.modules)\nassert not heavy, heavy\n"
    )
    arguments = [verb, str(tiny_run.file), "--runs", str(tiny_run.runs)]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_help_loads_almost_nothing():
    code = (
        "import sys\nsys.argv = ['voxnas', '--help']\nfrom search.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'numpy', 'pydantic', 'nibabel', 'sqlalchemy', 'ray'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout


def test_a_run_starts_without_scikit_learn():
    """It takes as long to import as torch, and only `known-cost` needs it, after its first trials."""
    code = "import sys, search.proposers.first_networks\nassert 'sklearn' not in sys.modules\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
