"""Locks on a machine's devices: trainings share a device, a latency measurement uses it exclusively.

Each device has two lock files, `use` and `turn`, locked with `flock`: the system releases the locks however a process
ends. Trainings hold `use` shared. A measurement first takes `turn`, which trainings check between steps. If it is
taken, they release `use` and take it again after the measurement. Hence a measurement waits for at most one training
step, and a training for at most one measurement.

No process waits for ever: one that is suspended, or holds a device for too long, is passed. This process then doesn't
wait for it again before it has released the lock.
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
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from search.config.errors import UserError
from search.config.units import show_seconds
from search.files import private_folder

if TYPE_CHECKING:
    import torch

REPORT_S = 1.0  # of waiting, after which a message names the processes that hold the lock
MAX_WAIT_S = 600.0  # after which the device is used without its lock
SUSPENDED_S = 5.0  # of waiting, after which the device is used without its lock if all holders are suspended
POLL_S = 0.02
LOGGER = logging.getLogger("voxnas.device")
_waited_s = 0.0  # by this process


@dataclass(frozen=True)
class Passed:
    """The holders of a lock that this process no longer waits for, because they are suspended or take too long."""

    holders: frozenset[int]
    suspended: bool

    def covers(self, holders: list[int]) -> bool:
        """Return whether a lock is still held by these alone, and for the same reason."""
        return self.holders.issuperset(holders) and (not self.suspended or all(map(_is_suspended, holders)))


_passed: dict[int, Passed] = {}  # by the inode of the lock file


def working_clock() -> float:
    """Return the seconds of a monotonic clock that excludes the time this process waited for devices."""
    return time.perf_counter() - _waited_s


class SharedDevice:
    """A device that a training shares with others; `pause` gives way to a waiting measurement."""

    def __init__(self, device: torch.device) -> None:
        self._use, self._turn = _open(device, "use"), _open(device, "turn")
        self._name = physical_name(device)

    def acquire(self) -> None:
        """Wait until no measurement runs or waits."""
        _wait(self._turn, fcntl.LOCK_SH, device=self._name)
        _wait(self._use, fcntl.LOCK_SH, device=self._name)
        fcntl.flock(self._turn, fcntl.LOCK_UN)

    def pause(self) -> None:
        """Give way to a waiting measurement; takes microseconds if there is none."""
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
    """Share a device with other trainings. Raises UserError if the lock folder can't be trusted."""
    shared = SharedDevice(device)
    try:
        shared.acquire()
        yield shared
    finally:
        shared.close()


@contextmanager
def measuring(device: torch.device) -> Iterator[None]:
    """Use a device exclusively. Raises UserError if the lock folder can't be trusted."""
    files = [_open(device, "turn"), _open(device, "use")]
    try:
        for file in files:
            _wait(file, fcntl.LOCK_EX, device=physical_name(device))
        yield
    finally:
        for file in files:
            os.close(file)


def physical_name(device: torch.device) -> str:
    """Return a device's machine-wide name; processes that see only some of the cards number those from 0."""
    index = device.index or 0
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    if device.type == "cuda" and index < len(visible) and visible[index]:
        return f"cuda{visible[index]}"
    return f"cuda{index}" if device.type == "cuda" else device.type


def lock_folder() -> Path:
    """Return this user's private lock folder, in the session's runtime folder if it exists, else in the temporary one.

    Raises UserError if the path is something else: a link, a file or another user's folder.
    """
    session = Path(os.environ.get("XDG_RUNTIME_DIR", ""))
    folder = session / "voxnas" if _is_own_session(session) else _temporary_folder() / f"voxnas-{os.geteuid()}"
    try:
        return private_folder(folder)
    except OSError as error:
        raise UserError([f"the device lock folder {folder} can't be used: {error.strerror}"]) from None


def _is_own_session(folder: Path) -> bool:
    """Return whether a session's runtime folder can be used; `sudo` and `su` may keep that of another user."""
    try:
        owner = folder.stat().st_uid
    except OSError:
        return False
    return folder.is_absolute() and owner == os.geteuid() and os.access(folder, os.W_OK | os.X_OK, effective_ids=True)


def _temporary_folder() -> Path:
    """Return the temporary folder, also if its disk is full: then `tempfile` would return the working directory."""
    named = tempfile.tempdir or os.environ.get("TMPDIR", "")
    return Path(named) if os.path.isabs(named) and os.path.isdir(named) else Path("/tmp")


def _open(device: torch.device, purpose: str) -> int:
    """Open a lock file without following links; return its descriptor."""
    path = lock_folder() / f"{physical_name(device).replace('/', '_')}.{purpose}"
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise UserError([f"the device lock {path} can't be opened: {error.strerror}"]) from None
    found = os.fstat(file)
    if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
        os.close(file)
        raise UserError([f"the device lock {path} is not a file of this user and can't be trusted; remove it"])
    return file


def _try(file: int, kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _wait(file: int, kind: int, *, device: str) -> None:
    """Take a lock; pass its holders, with a warning, if they are suspended or the wait is too long."""
    global _waited_s
    lock = os.fstat(file).st_ino
    if _try(file, kind):
        _passed.pop(lock, None)
        return
    if lock in _passed and _passed[lock].covers(_holders(file)):
        return
    began, reported = time.perf_counter(), False
    while not _try(file, kind):
        time.sleep(POLL_S)
        waited = time.perf_counter() - began
        holders = _holders(file) if waited > min(REPORT_S, SUSPENDED_S, MAX_WAIT_S) else []
        if waited > REPORT_S and not reported:
            reported = True
            LOGGER.warning("waiting for %s, in use by %s", device, _show(holders))
        if waited > SUSPENDED_S and holders and all(_is_suspended(pid) for pid in holders):
            state = "is" if len(holders) == 1 else "are"
            LOGGER.warning("using %s without its lock: %s %s suspended", device, _show(holders), state)
            _passed[lock] = Passed(frozenset(holders), suspended=True)
            break
        if waited > MAX_WAIT_S:
            limit = show_seconds(MAX_WAIT_S)
            LOGGER.warning("using %s without its lock after waiting %s for %s", device, limit, _show(holders))
            _passed[lock] = Passed(frozenset(holders), suspended=False)
            break
    _waited_s += time.perf_counter() - began


def _holders(file: int) -> list[int]:
    """Return the ids of other processes that hold a lock on a file, if /proc/locks lists them."""
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
