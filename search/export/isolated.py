"""Run an exported `predict.py` in a process that has neither voxnas nor what voxnas is made with.

`python -I -B isolated.py DIR/predict.py ARGUMENTS...`: started by its path in a fresh process. With `--monai
ARGUMENTS... --then ARGUMENTS...` it runs `monai.bundle` instead, once or more, and lets it have what it is made with.
"""

from __future__ import annotations

import importlib
import runpy
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

ABSENT = (
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


OURS = ("blocks", "space", "search", "timm", "safetensors")


class Absence(MetaPathFinder):
    """Finds nothing where absent packages are looked for, and says so instead of asking the next finder."""

    def __init__(self, absent: Sequence[str]) -> None:
        self.absent = absent

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Raise for an absent package, leave every other to the usual finders."""
        if fullname.partition(".")[0] in self.absent:
            raise ModuleNotFoundError(f"No module named {fullname!r}", name=fullname)
        return None


def isolate(absent: Sequence[str]) -> None:
    """Make packages impossible to import, and try each; SystemExit where one can be."""
    sys.meta_path.insert(0, Absence(absent))
    for name in absent:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError:
            continue
        raise SystemExit(f"{name} can be imported: this process proves nothing")


if __name__ == "__main__":
    if sys.argv[1] == "--monai":
        isolate(OURS)
        commands = " ".join(sys.argv[2:]).split(" --then ")
        for command in commands:
            sys.argv = ["monai.bundle", *command.split()]
            runpy.run_module("monai.bundle", run_name="__main__")
    else:
        isolate(ABSENT)
        sys.argv = sys.argv[1:]
        runpy.run_path(sys.argv[0], run_name="__main__")
