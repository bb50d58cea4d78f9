"""Find, authorise and load the plug-in blocks that a study or an ablation lists under `blocks`."""

from __future__ import annotations

from pathlib import Path

from search.config.errors import Mistake
from search.config.yaml_source import Source
from space.plugins import BlockCode, PluginError, find_code, is_file_name, load_blocks
from space.specs.registry import BUILT_IN
from space.specs.spec import BlockSpec

KEY = "blocks"
ALLOW = "--allow-code (in Python: allow_code=True)"
VERSION_OF = "code of "  # prefix of each plug-in's key in a study's identity, which records its version


def load_named_blocks(
    source: Source, file: Path, *, allow_code: bool
) -> tuple[tuple[BlockCode, ...], tuple[BlockSpec, ...], list[Mistake]]:
    """Return the code of the blocks that a file lists, all specs it may use, and the mistakes.

    The code of a local file runs only with `allow_code`, because a study file may come from an untrusted source.
    """
    named = source.values.get(KEY) or []
    if not isinstance(named, list) or not all(isinstance(name, str) for name in named):
        return (), BUILT_IN, []  # the schema reports the mistake
    codes, mistakes = list[BlockCode](), list[Mistake]()
    specs: tuple[BlockSpec, ...] = BUILT_IN
    for index, name in enumerate(named):
        path = (KEY, index)
        if is_file_name(name) and not allow_code:
            why = f"{name} contains code that would run on this machine; review it, then add {ALLOW}"
            mistakes.append(source.mistake(path, why))
            continue
        try:
            code = find_code(name, file.parent)
            if code in codes:
                mistakes.append(source.mistake(path, f"{name!r} is listed twice"))
                continue
            specs = load_blocks((*codes, code))
            codes.append(code)
        except PluginError as error:
            mistakes.append(source.mistake(path, str(error)))
    return tuple(codes), specs, mistakes
