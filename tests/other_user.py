"""Another user than root, who may do everything: tests of permissions run as this one."""

import os
from contextlib import contextmanager
from pathlib import Path

NOBODY = 65534


@contextmanager
def as_nobody(folder):
    """Run as a user who owns nothing, if this is root."""
    if os.getuid() != 0:
        yield
        return
    os.seteuid(0)
    for each in (folder, *folder.parents):
        if each.owner() == "root" and each != Path(each.anchor):
            each.chmod(each.stat().st_mode | 0o055)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def make_readable(folder):
    """Let every user read the files in a folder."""
    for file in folder.rglob("*"):
        file.chmod(0o755)
