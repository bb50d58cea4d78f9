"""Files of ours in whose place something else may stand: a folder, a link, or a pipe that would block its reader."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

NO_FILE = "Not a regular file"


def require_regular(path: Path) -> Path:
    """Return a path. Raises OSError if it is no file, or anything but a file: opening a pipe would wait for ever."""
    path.stat()
    if not path.is_file():
        raise OSError(errno.EINVAL, NO_FILE, str(path))
    return path


def discard(path: Path) -> None:
    """Delete a file, a link, a pipe or a folder with its content; nothing happens if the path is free."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def clear(path: Path) -> None:
    """Delete what is at a path unless it is a file, or a link to a file or to nothing."""
    if path.exists() and not path.is_file():
        discard(path)
