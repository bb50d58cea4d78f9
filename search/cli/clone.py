"""`voxnas clone`: write a study file like another one, with other values of some keys."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from search.api.find import KEPT
from search.api.terminal import print_text
from search.cli.free_file import require_free
from search.config import UserError, load_study
from search.config.clone import clone_text
from search.files import replace_file


def clone_study(study: str, new: Path, overrides: Sequence[str], *, runs: Path, force: bool) -> None:
    """Write and check the clone. Raises UserError, and writes nothing, if the result is not a valid study."""
    require_free(new, force=force)
    file = next((each for each in (Path(study), Path(study) / KEPT, runs / study / KEPT) if each.is_file()), None)
    if file is None:
        raise UserError([f"{study!r} is neither a study file nor the name of a study in {runs}"])
    text = clone_text(file, overrides, new=new)
    from search.storage.address import require_address  # here, as importing it takes longer than the mistakes above

    def write_checked(draft: Path) -> None:
        draft.write_text(text, encoding="utf-8")
        try:
            loaded = load_study(draft, need_data=False)
            if loaded.study.storage:
                require_address(loaded.study.storage)  # a password would be copied
        except UserError as error:
            raise UserError([str(each).replace(str(draft), str(new)) for each in error.mistakes]) from None

    replace_file(new, write_checked)
    made = load_study(new, need_data=False)
    words = ["voxnas", "check", str(new), *([] if made.data_folder else ["--data", "FOLDER"])]
    hint = "" if made.data_folder else f"    # FOLDER contains {made.study.data.path}"
    print_text(f"Wrote {new}. Next:\n  {shlex.join(words)}{hint}")
