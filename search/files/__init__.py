"""Files on disk: replaced whole, without traces of processes that died."""

from search.files.private import private_folder
from search.files.regular import discard, require_regular
from search.files.replace import (
    copy_file,
    is_partial,
    partial_path,
    remove_partials,
    replace_file,
    require_writable,
    scratch_folder,
    write_text,
)

__all__ = [
    "copy_file",
    "discard",
    "is_partial",
    "partial_path",
    "private_folder",
    "remove_partials",
    "replace_file",
    "require_regular",
    "require_writable",
    "scratch_folder",
    "write_text",
]
