"""`voxnas check-block`: the contract of attention blocks, run on one block or on all of a file."""

from __future__ import annotations

from pathlib import Path

import typer

from search.api.terminal import open_console, print_json
from search.config.errors import UserError
from search.export.block_contract import check_spec
from search.export.block_contract.report import results_table, results_values
from space.plugins import BlockCode, PluginError, find_code, load_blocks, read_file
from space.specs.registry import BUILT_IN
from space.specs.spec import BlockSpec


def report_block(named: str, *, json: bool) -> None:
    """Print the result of each check; exit with code 1 if one fails. Raises UserError if there is no such block."""
    found = []
    try:
        for spec in find_specs(named):
            found.append((spec, check_spec(spec)))
    except (PluginError, ValueError) as error:
        raise UserError([f"check-block: {error}"]) from None
    if json:
        print_json([results_values(spec, results) for spec, results in found])
    else:
        for spec, results in found:
            open_console().print(results_table(spec, results))
    if any(each.result == "failed" for _, results in found for each in results):
        raise typer.Exit(1)


def find_specs(named: str) -> tuple[BlockSpec, ...]:
    """Return the blocks of a file, of an installed package, or one of the papers'. Raises PluginError."""
    own = tuple(spec for spec in BUILT_IN if spec.name == named)
    return own or load_blocks((_code(named),))[len(BUILT_IN) :]


def _code(named: str) -> BlockCode:
    path = Path(named)
    return read_file(path.name, path.parent) if path.suffix == ".py" else find_code(named, Path())
