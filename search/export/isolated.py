"""Run an exported `predict.py` in a process that can import neither voxnas nor its dependencies.

`python -I -B isolated.py DIR/predict.py ARGUMENTS...` starts the script in a fresh process. `--monai ARGUMENTS...
--then ARGUMENTS...` runs `monai.bundle` instead, once or several times, with its own dependencies importable.
"""

from __future__ import annotations

import importlib
import runpy
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

BLOCKED = (
    "blocks",
    "space",
    "search",
    "monai",
    "moocore",
    "optuna",
    "plotly",
    "pydantic",
    "ray",
    "rich",
    "ruamel",
    "safetensors",
    "scipy",
    "sqlalchemy",
    "thop",
    "timm",
    "torchvision",
    "typer",
)
BLOCKED_FOR_MONAI = ("blocks", "space", "search", "timm", "safetensors")


class ImportBlocker(MetaPathFinder):
    """Raises ModuleNotFoundError for blocked packages before any other finder is asked."""

    def __init__(self, blocked: Sequence[str]) -> None:
        self.blocked = blocked

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Raise for a blocked package; leave all others to the usual finders."""
        if fullname.partition(".")[0] in self.blocked:
            raise ModuleNotFoundError(f"No module named {fullname!r}", name=fullname)
        return None


def isolate(blocked: Sequence[str]) -> None:
    """Block the import of packages and test each. Raises SystemExit if one can still be imported."""
    sys.meta_path.insert(0, ImportBlocker(blocked))
    for name in blocked:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError:
            continue
        raise SystemExit(f"{name} can still be imported: this process is not isolated")


if __name__ == "__main__":
    if sys.argv[1] == "--monai":
        isolate(BLOCKED_FOR_MONAI)
        commands = " ".join(sys.argv[2:]).split(" --then ")
        for command in commands:
            sys.argv = ["monai.bundle", *command.split()]
            runpy.run_module("monai.bundle", run_name="__main__")
    else:
        isolate(BLOCKED)
        sys.argv = sys.argv[1:]
        runpy.run_path(sys.argv[0], run_name="__main__")
