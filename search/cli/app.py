"""The command `voxnas`: its verbs, its version, and how mistakes are reported."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from functools import cache
from typing import Annotated, Any

import typer

from search.cli.stopping import STOPPED
from search.cli.verbs import comparing, deploying, results, searching, start

PERMISSIONS = (errno.EACCES, errno.EPERM, errno.EROFS)
PATH_MISTAKES = (
    *PERMISSIONS,
    *(errno.ENOENT, errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP, errno.ENXIO),
)
app = typer.Typer(
    name="voxnas",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
for verbs in (start, searching, results, comparing, deploying):
    app.add_typer(verbs.app)


def _print_version(requested: bool) -> None:
    if requested:
        from importlib.metadata import version

        print(f"voxnas {version('voxnas')}")
        raise typer.Exit


@app.callback(epilog="voxnas VERB --help shows a verb's options and an example.")
def voxnas(
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version and exit.", callback=_print_version, is_eager=True),
    ] = False,
) -> None:
    """Neural architecture search and ablation for volumetric medical image segmentation."""


@cache
def _command() -> Callable[..., Any]:
    """Return the command with all its verbs, built once a process: that takes longer than most verbs."""
    return typer.main.get_command(app)


def main() -> None:
    """Run a verb; each mistake or fault is one line on standard error, without a traceback.

    The exit code is 2 for a mistake of the user, also for a path that can't be used, and 1 for what stopped a run.
    """
    try:
        try:
            _command()(prog_name="voxnas")  # also where `python -m search.cli` or a test calls it
        finally:
            sys.stdout.flush()  # here, where a full disk behind it can still be reported
    except SystemExit as ended:
        if ended.code == STOPPED and "ray" not in sys.modules:  # which ends what it started as the interpreter ends
            sys.stderr.flush()
            os._exit(STOPPED)  # all is closed; the end of the interpreter takes another second of CPU time
        raise
    except BrokenPipeError:  # `voxnas ... | head`
        _drop_output()
        sys.exit(1)
    except OSError as error:
        if not error.strerror:
            raise
        from search.api.terminal import printable
        from search.config.secrets import without_arguments_secrets

        where = without_arguments_secrets(f"{error.filename}: ", sys.argv[1:]) if error.filename else ""
        _drop_output()
        print(f"voxnas: {printable(where)}{error.strerror}{_way_out(error)}", file=sys.stderr)
        sys.exit(2 if error.errno in PATH_MISTAKES else 1)
    except Exception as error:
        from search.config.errors import UserError  # here, as it takes longer than the rest of `--help`

        if not isinstance(error, UserError):
            raise
        from search.api.terminal import printable
        from search.config.secrets import without_arguments_secrets

        for mistake in error.mistakes:
            said = without_arguments_secrets(str(mistake), sys.argv[1:])
            print(f"voxnas: {printable(said)}", file=sys.stderr)
        sys.exit(error.exit_code)


def _drop_output() -> None:
    """Let what standard output still holds disappear, if it can't be written."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _way_out(error: OSError) -> str:
    """Return what to do about a file that could not be read or written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return "; free some space or raise the limit, then rerun the same command to resume"
    if error.errno in PERMISSIONS:
        return "; this user needs other permissions there, or another folder (--runs, --out)"
    return ""


if __name__ == "__main__":
    main()
