"""`voxnas init`: write a study file for a data folder and this machine."""

from __future__ import annotations

import shlex
from pathlib import Path

from search.api.terminal import print_text
from search.cli.free_file import require_free
from search.cli.running import following
from search.config import UserError
from search.config.schema import NAME_PATTERN
from search.config.validate import PATTERNS
from search.files import write_text
from search.storage.ownership import is_folder_name


def write_study(folder: Path, out: Path | None, *, hours: float, force: bool, runs: Path, quiet: bool) -> None:
    """Look at the data and the machine, and write the study. Raises UserError if the file exists already."""
    if out is not None:
        if not is_folder_name(out.stem):
            raise UserError(
                [f"--out {out}: the file's name becomes the study's: {PATTERNS[NAME_PATTERN]}, not 'cache'"]
            )
        require_free(out, force=force)
    with following("init", quiet=quiet) as view:
        view.on_stage("loading PyTorch")
        from search.config import load_study
        from search.runner.plan import make_plan
        from search.setup.machine import this_machine
        from search.setup.suggest import suggest_study

        name, text = suggest_study(folder, this_machine(), hours=hours, runs=runs, stage=view.on_stage, out=out)
        file = out or Path(f"{name}.yaml")
        require_free(file, force=force)
        write_text(file, text)
        plan = make_plan(load_study(file), runs=runs)
    for note in plan.notes:
        print_text(f"note: {note}")
    print_text(f"Wrote {file}. Next:")
    for verb in ("check", "run"):
        print_text(
            f"  {shlex.join(['voxnas', verb, str(file), *([] if runs == Path('runs') else ['--runs', str(runs)])])}"
        )
