"""Who uses a device of this machine: trainings share it, a latency measurement has it alone.

The locks are `flock`s on two files a device, so that the system frees them however a process ends. Trainings hold
`use` shared. A measurement first takes `turn`, which trainings look at between two steps: they let `use` go and take
it again once the measurement has ended, so that neither side waits for longer than a step or a measurement takes.
"""

from __future__ import annotations

import fcntl
import logging
import os
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from search.config.errors import UserError
from search.config.units import show_seconds

REPORT_S = 2.0  # of waiting, after which a message names whom this process waits for
LONGEST_WAIT_S = 600.0  # after which the device is used without its lock
SUSPENDED_S = 5.0  # of waiting for suspended processes alone, after which the device is used without its lock
POLL_S = 0.02
LOGGER = logging.getLogger("voxnas.device")
_waited_s = 0.0  # by this process


def working_clock() -> float:
    """Return seconds of a monotonic clock that stands still while this process waits for a device."""
    return time.perf_counter() - _waited_s


class SharedDevice:
    """A device while a training uses it beside others; `pause` lets a waiting measurement go first."""

    def __init__(self, device: torch.device) -> None:
        self._use, self._turn = _open(device, "use"), _open(device, "turn")
        self._name = physical_name(device)

    def acquire(self) -> None:
        """Wait until no measurement runs or wants to."""
        _wait(self._turn, fcntl.LOCK_SH, device=self._name)
        _wait(self._use, fcntl.LOCK_SH, device=self._name)
        fcntl.flock(self._turn, fcntl.LOCK_UN)

    def pause(self) -> None:
        """Give way if a measurement waits for the device; costs microseconds where none does."""
        if _try(self._turn, fcntl.LOCK_SH):
            fcntl.flock(self._turn, fcntl.LOCK_UN)
            return
        fcntl.flock(self._use, fcntl.LOCK_UN)
        self.acquire()

    def close(self) -> None:
        """Release the device."""
        os.close(self._use)
        os.close(self._turn)


@contextmanager
def sharing(device: torch.device) -> Iterator[SharedDevice]:
    """Use a device beside other trainings. Raises UserError where the lock's folder can't be trusted."""
    shared = SharedDevice(device)
    try:
        shared.acquire()
        yield shared
    finally:
        shared.close()


@contextmanager
def measuring(device: torch.device) -> Iterator[None]:
    """Use a device alone. Raises UserError where the lock's folder can't be trusted."""
    files = [_open(device, "turn"), _open(device, "use")]
    try:
        for file in files:
            _wait(file, fcntl.LOCK_EX, device=physical_name(device))
        yield
    finally:
        for file in files:
            os.close(file)


def physical_name(device: torch.device) -> str:
    """Name a device as all processes of this machine do: each may see only some of the cards, numbered from 0."""
    index = device.index or 0
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    if device.type == "cuda" and index < len(visible) and visible[index]:
        return f"cuda{visible[index]}"
    return f"cuda{index}" if device.type == "cuda" else device.type


def lock_folder() -> Path:
    """Return this user's private folder of locks: of the session where there is one, else of the temporary folder.

    Raises UserError where something else has its name: a link, a file, another user's folder.
    """
    session = os.environ.get("XDG_RUNTIME_DIR", "")
    if session and os.access(session, os.W_OK | os.X_OK):
        folder = Path(session) / "voxnas"
    else:
        folder = Path(tempfile.gettempdir()) / f"voxnas-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise UserError([f"the folder of device locks, {folder}, can't be created: {error.strerror}"]) from None
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise UserError([f"{folder} is not a folder of this user, so device locks in it can't be trusted: remove it"])
    if found.st_mode & 0o077:
        folder.chmod(0o700)
    return folder


def _open(device: torch.device, purpose: str) -> int:
    """Open a lock's file without following links; return its descriptor."""
    path = lock_folder() / f"{physical_name(device).replace('/', '_')}.{purpose}"
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise UserError([f"the device lock {path} can't be opened: {error.strerror}"]) from None


def _try(file: int, kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _wait(file: int, kind: int, *, device: str) -> None:
    """Take a lock, or go on without it where its holders are suspended or hold it for too long."""
    global _waited_s
    if _try(file, kind):
        return
    began, reported = time.perf_counter(), False
    while not _try(file, kind):
        time.sleep(POLL_S)
        waited = time.perf_counter() - began
        holders = _holders(file) if waited > min(REPORT_S, SUSPENDED_S, LONGEST_WAIT_S) else []
        if waited > REPORT_S and not reported:
            reported = True
            LOGGER.warning("waiting for %s, which %s uses", device, _show(holders))
        if waited > SUSPENDED_S and holders and all(_is_suspended(pid) for pid in holders):
            LOGGER.warning("using %s although %s holds its lock: that process is suspended", device, _show(holders))
            break
        if waited > LONGEST_WAIT_S:
            limit = show_seconds(LONGEST_WAIT_S)
            LOGGER.warning("using %s although %s has held its lock for over %s", device, _show(holders), limit)
            break
    _waited_s += time.perf_counter() - began


def _holders(file: int) -> list[int]:
    """Return the processes that hold a lock on a file, as far as the system tells."""
    inode = os.fstat(file).st_ino
    try:
        lines = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return []
    rows = [line.split() for line in lines]
    found = {int(row[4]) for row in rows if len(row) > 5 and row[1] == "FLOCK" and row[5].endswith(f":{inode}")}
    return sorted(found - {os.getpid()})


def _is_suspended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in ("T", "t")
    except (OSError, IndexError):
        return False


def _show(holders: list[int]) -> str:
    return " and ".join(f"process {pid}" for pid in holders) or "another process"
