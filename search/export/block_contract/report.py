"""The results of a block's checks, as a table and as plain values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.table import Table
from rich.text import Text

from search.export.block_contract.run import Result
from space.specs.spec import BlockSpec

COLOURS = {"passed": "green", "failed": "bold red", "skipped": "yellow"}


def results_table(spec: BlockSpec, results: Sequence[Result]) -> Table:
    """Return the results as a table, one check per row."""
    table = Table(title=f"Block {spec.name}: {spec.citation}", title_justify="left")
    for heading in ("check", "result", "detail"):
        table.add_column(heading, overflow="fold", no_wrap=heading == "result")
    for each in results:
        table.add_row(each.check, Text(each.result, style=COLOURS[each.result]), each.detail)
    return table


def results_values(spec: BlockSpec, results: Sequence[Result]) -> dict[str, Any]:
    """Return the results as plain values."""
    return {
        "block": spec.name,
        "code": spec.code,
        "passed": all(each.result != "failed" for each in results),
        "checks": [asdict(each) for each in results],
    }
