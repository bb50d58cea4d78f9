"""The command `voxnas`: its verbs, its version, and how mistakes are reported."""

from __future__ import annotations

import errno
import os
import sys
from typing import Annotated

import typer

from search.cli.verbs import comparing, deploying, results, searching, start

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


def main() -> None:
    """Run a verb; a mistake of the user is one line on standard error with exit code 2, a fault of the disk with 1."""
    try:
        app()
    except BrokenPipeError:  # `voxnas ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        if not error.strerror:
            raise
        from search.api.terminal import printable

        where = f"{error.filename}: " if error.filename else ""
        print(f"voxnas: {printable(str(where))}{error.strerror}{_way_out(error)}", file=sys.stderr)
        sys.exit(1)
    except Exception as error:
        from search.config.errors import UserError  # here, as it takes longer than the rest of `--help`

        if not isinstance(error, UserError):
            raise
        from search.api.terminal import printable

        for mistake in error.mistakes:
            print(f"voxnas: {printable(str(mistake))}", file=sys.stderr)
        sys.exit(2)


def _way_out(error: OSError) -> str:
    """Return what to do about a file that could not be read or written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return "; free some space or raise the limit, then rerun the same command to resume"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "; this user needs other permissions there, or another folder (--runs, --out)"
    return ""


if __name__ == "__main__":
    main()
