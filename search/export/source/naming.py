"""Names and shape comments of a trace's values, from the original source."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import FrameType

from search.export.source.nodes import Location, Node

SHAPE = re.compile(r"#\s*(\([A-Z]\w*,[^()]*\))")


@dataclass(frozen=True)
class StatementNames:
    """The names that a statement assigns (several for a tuple), and the shape in its comment."""

    names: tuple[str, ...] = ()
    comment: str = ""


@lru_cache
def _statements(file: str) -> dict[int, ast.stmt]:
    """Return the innermost statement of each line of a file."""
    found: dict[int, ast.stmt] = {}
    for node in ast.walk(ast.parse(Path(file).read_text(encoding="utf-8"))):
        if isinstance(node, ast.stmt):
            for line in range(node.lineno, (node.end_lineno or node.lineno) + 1):
                if line not in found or found[line].lineno <= node.lineno:
                    found[line] = node
    return found


@lru_cache
def _comments(file: str) -> dict[int, str]:
    """Return the shapes in the comments of a file, by line."""
    text = Path(file).read_text(encoding="utf-8")
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    comments = {token.start[0]: SHAPE.match(token.string) for token in tokens if token.type == tokenize.COMMENT}
    return {line: found[1] for line, found in comments.items() if found}


def statement_names(calls: list[Node], index: int) -> StatementNames:
    """Return the names assigned by the statement whose last operation is `calls[index]`."""
    following = calls[index + 1].frames if index + 1 < len(calls) else []
    for frame, instruction, file, line in calls[index].frames:
        statement = _statements(file).get(line)
        if statement is None or _continues(following, frame, instruction, statement):
            return StatementNames()
        if isinstance(statement, ast.Return):
            continue
        return _of_statement(statement, file)
    return StatementNames()


def _continues(following: list[Location], frame: FrameType, instruction: int, statement: ast.stmt) -> bool:
    """Return whether the next operation belongs to the same execution of the statement."""
    for other, later, file, line in following:
        if other is frame:
            return later >= instruction and _statements(file).get(line) is statement
    return False


def _of_statement(statement: ast.stmt, file: str) -> StatementNames:
    comment = _comments(file).get(statement.end_lineno or statement.lineno, "")
    target: ast.expr | None = None
    if isinstance(statement, ast.Assign):
        target = statement.targets[0]
    elif isinstance(statement, (ast.AugAssign, ast.AnnAssign)):
        target = statement.target
    if isinstance(target, ast.Name):
        return StatementNames((target.id,), comment)
    if isinstance(target, ast.Tuple) and all(isinstance(each, ast.Name) for each in target.elts):
        return StatementNames(tuple(each.id for each in target.elts if isinstance(each, ast.Name)), comment)
    return StatementNames()
