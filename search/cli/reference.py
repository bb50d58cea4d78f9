"""`voxnas help`: one key in full, or a table of keys."""

from __future__ import annotations

from dataclasses import asdict

from rich.table import Table

from search.api.reference import Entry, all_keys, as_markdown, find_keys
from search.api.terminal import open_console, print_json, print_text


def show_help(named: str | None, *, markdown: bool, json: bool) -> None:
    """Print the reference of a key, of a group and its keys, or of all keys."""
    if markdown:
        print(as_markdown(), end="")
        return
    entries = all_keys() if named is None else find_keys(named)
    if json:
        print_json([asdict(each) for each in entries])
        return
    if named is None:
        open_console().print(_table(entries))
        return
    tops = [each for each in entries if each.name == named or each.name.endswith(f".{named}")]
    for number, each in enumerate(tops):
        print_text(("\n" if number else "") + describe(each))
        below = tuple(other for other in entries if other.name.startswith(f"{each.name}."))
        if below:
            open_console().print(_table(below))


def describe(entry: Entry) -> str:
    """Return the full description of a key."""
    rows = {
        "type": entry.type,
        "unit": entry.unit,
        "default": entry.default,
        "example": entry.line,
        "in": " and ".join(f"{kind} files" for kind in entry.files),
    }
    lines = [f"  {title:<9}{text}" for title, text in rows.items() if text]
    return "\n".join([entry.name, f"  {entry.meaning}", *lines])


def _table(entries: tuple[Entry, ...]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("key", no_wrap=True)
    table.add_column("default", overflow="fold", max_width=26)
    table.add_column("meaning", overflow="fold")
    for each in entries:
        table.add_row(each.name, each.default, each.meaning)
    return table
