"""A file lock that allows one driver per study, for databases without locks of their own."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from search.config.errors import UserError
from search.storage.database import lock_file, shared_by_drivers
from search.storage.heartbeat import driver_name


@contextmanager
def hold_lock(url: str, folder: Path, name: str) -> Iterator[None]:
    """Hold the lock file of a study; the system releases it when the process ends in any way.

    PostgreSQL has its own locks, so no file is locked. Raises UserError if another process holds the lock.
    """
    if shared_by_drivers(url):
        yield
        return
    path = lock_file(url, folder, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "another process"
            raise UserError([f"{name} is already running, in {holder}"]) from None
        try:
            file.truncate(0)
            os.write(file.fileno(), driver_name().encode())
        except OSError as error:  # a full disk
            raise OSError(error.errno, error.strerror, str(path)) from error
        yield
