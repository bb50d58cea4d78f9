"""Folders that only this user may enter, also below a folder in which everyone may write."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

NOT_OURS = "it is not a folder of this user and can't be trusted; remove it"


def private_folder(folder: Path) -> Path:
    """Create a private folder, or make an existing one private; return it.

    Raises OSError if the path is something else: a link, a file or another user's folder.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise PermissionError(errno.EPERM, NOT_OURS, str(folder))
    if found.st_mode & 0o077:
        folder.chmod(0o700)
    return folder
