"""Whether the installed packages are those that voxnas needs, and those that it was tested with."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from search.setup.check import Check

CONSTRAINTS = Path(__file__).parents[2] / "constraints.txt"  # only in a checkout
SHOWN = 4
EXTRAS = {"onnx": "ONNX export", "bundle": "MONAI bundles", "cluster": "Ray's dashboard and jobs"}


def check_python() -> Check:
    """Compare Python's version with the supported ones."""
    needed, here = metadata("voxnas")["Requires-Python"], platform.python_version()
    if SpecifierSet(needed).contains(here, prereleases=True):
        return Check("Python", "ok", here)
    return Check("Python", "error", f"{here}, not {needed}", "create a virtual environment with a supported Python")


def check_required() -> Check:
    """Compare installed versions with the required ones."""
    wrong = list(_unmet(_requirements()))
    if not wrong:
        return Check("packages", "ok", "all required packages are installed")
    return Check("packages", "error", _some(wrong), "pip install --upgrade voxnas, or make test in a checkout")


def check_tested() -> Check:
    """Compare installed versions with those that the tests ran with, in a checkout."""
    if not CONSTRAINTS.is_file():
        return Check("tested versions", "ok", "constraints.txt is not here to compare with")
    different = []
    for line in CONSTRAINTS.read_text().splitlines():
        pin = Requirement(line) if line and not line.startswith("#") else None
        here = installed(pin.name) if pin and (pin.marker is None or pin.marker.evaluate()) else None
        if pin and here is not None and not pin.specifier.contains(here, prereleases=True):
            different.append(f"{pin.name} {here} (tested with {str(pin.specifier).removeprefix('==')})")
    if not different:
        return Check("tested versions", "ok", "as in constraints.txt")
    advice = "pip install --constraint constraints.txt --editable ."
    return Check("tested versions", "warning", _some(different), advice)


def check_extras() -> Check:
    """List optional parts whose packages are missing."""
    missing = [extra for extra in EXTRAS if any(_unmet(_requirements(extra)))]
    if not missing:
        return Check("optional parts", "ok", "all are installed")
    found = "not installed: " + ", ".join(f"{extra} ({EXTRAS[extra]})" for extra in missing)
    return Check("optional parts", "ok", found, f"pip install 'voxnas[{','.join(missing)}]'")


def installed(name: str) -> str | None:
    """Return a package's version, None if it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _requirements(extra: str = "") -> Iterator[Requirement]:
    """Yield the requirements of voxnas, or those of an extra."""
    for line in requires("voxnas") or ():
        requirement = Requirement(line)
        marker = requirement.marker
        if not extra and (marker is None or marker.evaluate({"extra": ""})):
            yield requirement
        if extra and marker is not None and marker.evaluate({"extra": extra}) and not marker.evaluate({"extra": ""}):
            yield requirement


def _unmet(requirements: Iterable[Requirement]) -> Iterator[str]:
    for requirement in requirements:
        here = installed(requirement.name)
        if here is None:
            yield f"{requirement.name} is not installed"
        elif not requirement.specifier.contains(here, prereleases=True):
            yield f"{requirement.name} {here}, not {requirement.specifier}"


def _some(texts: list[str]) -> str:
    more = f" and {len(texts) - SHOWN} more" if len(texts) > SHOWN else ""
    return ", ".join(texts[:SHOWN]) + more
