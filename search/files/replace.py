"""Files that are replaced whole: written under a temporary name in the same folder, then renamed.

A temporary name holds the process and the machine that write the file. The next process on that machine to write there
removes what a process that no longer exists left behind.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import socket
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, lru_cache
from pathlib import Path

from search.files.regular import clear

PREFIX = ".part-"
PARTIAL = re.compile(r"(?:\.part|voxnas)-(\d+)-([0-9a-f]{8})-")
LONGEST = 200  # bytes of a file's name in its temporary name, which file systems limit to 255
CLOCKS_S = 120.0  # by which the clock of a file server may differ
PROBE_BYTES = 1 << 20  # more than a file system rounds up


def replace_file(path: Path, write: Callable[[Path], object], *, ours: bool = False) -> Path:
    """Write a file under a temporary name, sync it, and rename it, so a partial file never appears under `path`.

    The user's umask decides who may read it. A link stays a link; what is no file, such as a pipe, is written to
    directly. In a folder of ours (`ours`) nobody chose the path: what is no file, also a folder, is replaced.
    Raises OSError with the operating system's reason and `path`, also where a library reports only that its write
    failed.
    """
    if ours:
        clear(path)
    if path.exists() and not path.is_file() and not path.is_dir():
        return _write_directly(path, write)
    target = Path(os.path.realpath(path))
    target.parent.mkdir(parents=True, exist_ok=True)
    _tidy(str(target.parent))
    part = partial_path(target)
    try:
        part.touch()
        mode = stat.S_IMODE(part.stat().st_mode)
        _write_or_explain(part, write)
        part.chmod(mode)  # safetensors makes its files private
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(target)
    except OSError as error:
        if error.errno is not None and error.filename in (None, str(part), part):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    finally:
        part.unlink(missing_ok=True)
    return path


def _write_directly(path: Path, write: Callable[[Path], object]) -> Path:
    try:
        write(path)
    except OSError as error:
        if error.errno is not None and error.filename is None:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    return path


def _write_or_explain(part: Path, write: Callable[[Path], object]) -> None:
    """Write a file; if that fails because the disk is full or a limit is reached, raise OSError with this reason."""
    try:
        write(part)
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        try:  # torch and numpy report a failed write without its reason: try again to append to the file
            with part.open("ab") as file:
                file.write(bytes(PROBE_BYTES))
                file.flush()
                os.fsync(file.fileno())
        except OSError as reason:
            raise reason from error
        raise


def require_writable(path: Path) -> None:
    """Raise OSError if a file or folder can't be created at a path, before the work for it begins."""
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    folder = next(each for each in path.absolute().parents if each.exists())
    if not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
    if not os.access(folder, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))


def write_text(path: Path, text: str, *, ours: bool = False) -> Path:
    """Write a text file atomically, in UTF-8; return its path. `ours` is that of `replace_file`."""
    return replace_file(path, lambda part: part.write_text(text, encoding="utf-8"), ours=ours)


def copy_file(source: Path, path: Path, *, ours: bool = False) -> Path:
    """Copy a file's content atomically; return the path of the copy. `ours` is that of `replace_file`."""
    return replace_file(path, lambda part: shutil.copyfile(source, part), ours=ours)


def partial_path(path: Path) -> Path:
    """Return the temporary name of a file or folder that this process writes; its ending stays."""
    name = path.name.encode()[-LONGEST:].decode(errors="ignore").lstrip(".")
    return path.with_name(f"{PREFIX}{os.getpid()}-{_machine()}-{name}")


def is_partial(path: Path) -> bool:
    """Return whether a name is a temporary one."""
    return path.name.startswith(PREFIX)


def remove_partials(folder: Path) -> None:
    """Delete what processes of this machine left unfinished in a folder when they died."""
    try:
        names = os.listdir(folder)
    except OSError:  # a folder may be writable but not readable
        return
    for name in names:
        if name.startswith(PREFIX) and _is_abandoned(folder / name):
            _remove(folder / name)


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Create a temporary folder for the context; remove those of processes that died."""
    for name in os.listdir(tempfile.gettempdir()):
        if _is_abandoned(path := Path(tempfile.gettempdir()) / name):
            _remove(path)
    with tempfile.TemporaryDirectory(prefix=f"voxnas-{os.getpid()}-{_machine()}-") as folder:
        yield Path(folder)


def _is_abandoned(path: Path) -> bool:
    """Return whether a temporary file belongs to a process of this machine that no longer exists.

    Another process may have its number by now, as a container's first process always has: one that began later.
    """
    found = PARTIAL.match(path.name)
    if found is None or found[2] != _machine():
        return False
    try:
        os.kill(int(found[1]), 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):  # another user's process; a number that no process has
        return False
    try:
        return path.lstat().st_mtime < _began(int(found[1])) - CLOCKS_S
    except (OSError, ValueError, IndexError, StopIteration):  # removed meanwhile, or no /proc
        return False


def _began(pid: int) -> float:
    """Return when a process began, in seconds since 1970."""
    ticks = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    booted = next(line for line in Path("/proc/stat").read_text().splitlines() if line.startswith("btime"))
    return int(booted.split()[1]) + ticks / os.sysconf("SC_CLK_TCK")


def _remove(path: Path) -> None:
    """Delete a file or folder, if this user may."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
        return
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return


@cache
def _tidy(folder: str) -> None:
    """Remove abandoned files from a folder, once in this process: listing a large folder takes time."""
    remove_partials(Path(folder))


@lru_cache
def _machine() -> str:
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]
