"""What surrounds trainings: the disk, file locks, Ray, the browser."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import webbrowser
from pathlib import Path
from tempfile import TemporaryFile

from search.config.errors import UserError
from search.config.units import show_bytes
from search.costs.device_lock import lock_folder
from search.setup.check import Check
from search.setup.packages import installed

FULL_BYTES, LOW_BYTES = 2**30, 10 * 2**30
RAY_S = 90.0
START_RAY = """
import ray
ray.init(num_cpus=1, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
assert ray.get(ray.remote(lambda: 7).remote()) == 7
ray.shutdown()
"""


def check_disk(runs: Path) -> Check:
    """Look for space where studies are written, and write there."""
    folder = next(each for each in (runs.resolve(), *runs.resolve().parents) if each.is_dir())
    free = shutil.disk_usage(folder).free
    found = f"{show_bytes(free)} free in {folder}"
    try:
        with TemporaryFile(dir=folder) as file:
            file.write(b"voxnas")
    except OSError as error:
        return Check("disk", "error", f"{folder} can't be written: {error.strerror}", "give another folder with --runs")
    if free < FULL_BYTES:
        return Check("disk", "error", found, "free some space: voxnas studies --free NAME deletes what is not needed")
    if free < LOW_BYTES:
        return Check("disk", "warning", found, "prepared volumes and weights may need more; --runs names another disk")
    return Check("disk", "ok", found)


def check_locks(runs: Path) -> Check:
    """Lock a file where studies are written, and the folder of device locks."""
    folder = next(each for each in (runs.resolve(), *runs.resolve().parents) if each.is_dir())
    try:
        with TemporaryFile(dir=folder) as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        where = lock_folder()
    except (OSError, UserError) as error:
        advice = "file locks keep two runs apart; put --runs on a local disk"
        return Check("locks", "error", f"{folder}: {error}", advice)
    return Check("locks", "ok", f"in {folder} and {where}")


def check_ray() -> Check:
    """Start Ray in another process, and run a task there."""
    here = installed("ray")
    try:
        done = subprocess.run([sys.executable, "-c", START_RAY], capture_output=True, text=True, timeout=RAY_S)
        said = (done.stderr.strip().splitlines() or ["no reason given"])[-1] if done.returncode else ""
    except subprocess.TimeoutExpired:
        said = f"it did not start within {RAY_S:.0f} s"
    if said:
        return Check(
            "Ray", "warning", f"{here} can't start: {said}", "only executor.kind: ray needs it; see ray start --help"
        )
    return Check("Ray", "ok", f"{here} starts and runs a task")


def check_browser() -> Check:
    """Look for a browser for the dashboard."""
    try:
        name = webbrowser.get().name
    except webbrowser.Error:
        advice = (
            "ssh -L 8050:localhost:8050 HOST shows the dashboard of this machine on yours; reports are single files"
        )
        return Check("browser", "ok", "none on this machine", advice)
    display = "" if os.environ.get("DISPLAY") or sys.platform == "darwin" else " (no display)"
    return Check("browser", "ok", f"{name}{display}")
