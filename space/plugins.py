"""Plug-in blocks: specs from a local file or an installed package, loaded when a study names them."""

from __future__ import annotations

import hashlib
import linecache
import sys
import traceback
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from space.place import Place
from space.specs.registry import BUILT_IN, register
from space.specs.spec import BlockSpec, Site

if TYPE_CHECKING:
    from torch import nn

GROUP = "voxnas.blocks"
FILE_ENDING = ".py"
DIGITS = 12  # of a file's digest
TRIAL_CHANNELS = (16, 32, 64, 48, 8)  # the shape check uses the first that a block accepts
TRIAL_SIZE = (3, 6, 5)
TRIAL_PLACE = Place("skip", 0)
_loaded: dict[BlockCode, tuple[BlockSpec, ...]] = {}


class PluginError(ValueError):
    """A plug-in block that can't be loaded; the message gives the reason."""


@dataclass(frozen=True)
class BlockCode:
    """The code of plug-in blocks as plain values, which can be sent to workers.

    `name` is the name in the study: a file beside the study, or an entry point. `version` is the digest of the file's
    content, or the package and its version. `text` is the file's content and `file` the path it was read from.
    """

    name: str
    version: str
    text: str = ""
    file: str = ""


def is_file_name(name: str) -> bool:
    """Return whether a name under `blocks` refers to a file."""
    return name.endswith(FILE_ENDING) or "/" in name


def read_file(name: str, folder: Path) -> BlockCode:
    """Read a file of blocks in the study's folder without running it. Raises PluginError."""
    path = (folder / name).resolve()
    if Path(name).is_absolute() or folder.resolve() not in path.parents or not name.endswith(FILE_ENDING):
        raise PluginError(f"{name!r} must be a Python file beside the study, such as ./my_block.py")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise PluginError(f"{name} can't be read: {error.strerror or error}") from None
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        raise PluginError(f"{name} is not UTF-8 text") from None
    return BlockCode(name, hashlib.sha256(content).hexdigest()[:DIGITS], text, str(path))


def find_package(name: str) -> BlockCode:
    """Find an installed package's blocks by their entry point. Raises PluginError."""
    point = _entry_point(name)
    if point.dist is None:
        raise PluginError(f"the entry point {name!r} belongs to no installed package")
    return BlockCode(name, f"{point.dist.name} {point.dist.version}")


def find_code(name: str, folder: Path) -> BlockCode:
    """Find blocks by their name in a study without running their code. Raises PluginError."""
    return read_file(name, folder) if is_file_name(name) else find_package(name)


def load_specs(code: BlockCode) -> tuple[BlockSpec, ...]:
    """Run a plug-in's code and register its specs, once per process. Raises PluginError."""
    if code not in _loaded:
        holder = _run_file(code) if code.text or code.file else _load_package(code)
        found = tuple(replace(spec, code=code.version) for spec in _specs_in(holder, code))
        for spec in found:
            _require_module(spec, code)
            _require_shape(spec, code)
        for spec in found:
            register(spec)
        _loaded[code] = found
    return _loaded[code]


def load_blocks(codes: Sequence[BlockCode]) -> tuple[BlockSpec, ...]:
    """Return the built-in specs and those of these plug-ins. Raises PluginError, also for duplicate block names."""
    specs = {spec.name: "voxnas itself" for spec in BUILT_IN}
    found = list(BUILT_IN)
    for code in codes:
        for spec in load_specs(code):
            if spec.name in specs:
                raise PluginError(
                    f"{code.name} defines a block {spec.name!r}, as does {specs[spec.name]}; rename one of them"
                )
            specs[spec.name] = code.name
            found.append(spec)
    return tuple(found)


def block_files(codes: Sequence[BlockCode]) -> dict[str, str]:
    """Return the text of each local block file, by the name that the study uses."""
    return {code.name: code.text for code in codes if code.file}


def _entry_point(name: str) -> EntryPoint:
    installed = entry_points(group=GROUP)
    points = [point for point in installed if point.name == name]
    if not points:
        known = ", ".join(sorted({point.name for point in installed})) or "none"
        raise PluginError(
            f"no installed package provides blocks named {name!r} (entry points of {GROUP!r}: {known}); "
            f"for a local file, write ./{name}.py"
        )
    packages = {(point.dist.name if point.dist else "", point.value) for point in points}
    if len(packages) > 1:
        named = ", ".join(sorted(package for package, _ in packages))
        raise PluginError(f"several packages provide blocks named {name!r}: {named}")
    return points[0]


def _load_package(code: BlockCode) -> Any:
    installed = find_package(code.name).version
    if installed != code.version:
        raise PluginError(f"the blocks {code.name!r} need {code.version}, but {installed} is installed here")
    try:
        return _entry_point(code.name).load()
    except Exception as error:
        raise PluginError(f"{code.name} can't be imported: {type(error).__name__}: {error}") from error


def _run_file(code: BlockCode) -> ModuleType:
    """Run a file's text as a new module; tracebacks show its source lines on all machines."""
    module = ModuleType(f"voxnas_block_{Path(code.name).stem}_{code.version}")
    module.__file__ = code.file
    if not Path(code.file).is_file():
        linecache.cache[code.file] = (len(code.text), None, code.text.splitlines(keepends=True), code.file)
    sys.modules[module.__name__] = module
    try:
        exec(compile(code.text, code.file, "exec"), module.__dict__)  # noqa: S102 (the user allowed this file)
    except (Exception, SystemExit) as error:
        del sys.modules[module.__name__]
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == code.file]
        line = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else None
        where = f"{code.name}:{line}" if line else code.name
        hint = "; a block file can import installed packages only" if isinstance(error, ImportError) else ""
        raise PluginError(f"{where}: {type(error).__name__}: {error}{hint}") from error
    return module


def _specs_in(holder: Any, code: BlockCode) -> list[BlockSpec]:
    """Return the specs in a module, or in an entry point's object."""
    values: Iterable[Any] = vars(holder).values() if isinstance(holder, ModuleType) else (holder,)
    flat = [each for value in values for each in (value if isinstance(value, (tuple, list)) else (value,))]
    found = {id(each): each for each in flat if isinstance(each, BlockSpec) and each not in BUILT_IN}
    if not found:
        raise PluginError(f'{code.name} defines no BlockSpec; add e.g. BLOCK = BlockSpec("my_block", MyBlock)')
    return list(found.values())


def _require_module(spec: BlockSpec, code: BlockCode) -> None:
    from torch import nn

    try:
        kind = spec.load()
    except (ImportError, AttributeError) as error:
        raise PluginError(f"{code.name}: block {spec.name!r}: {spec.module!r} can't be imported: {error}") from error
    if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
        raise PluginError(f"{code.name}: block {spec.name!r} needs a subclass of nn.Module, not {kind!r}")


def first_site(spec: BlockSpec) -> Site | None:
    """Return a small site that a block accepts with its first choices; None if it rejects all candidates."""
    sites = (Site(channels, TRIAL_SIZE, TRIAL_PLACE) for channels in TRIAL_CHANNELS)
    return next((site for site in sites if not spec.why_not(first_options(spec), site)), None)


def first_options(spec: BlockSpec) -> dict[str, Any]:
    """Return a block's open options at their first choices."""
    chosen: dict[str, Any] = {}
    for option in spec.options:
        if all(chosen.get(other) in allowed for other, allowed in option.when):
            chosen[option.name] = option.choices[0]
    return chosen


def _require_shape(spec: BlockSpec, code: BlockCode) -> None:
    """Run a block once on a small volume and require an output of the input's shape."""
    import torch

    from space.specs.build import build_block

    block_name = f"{code.name}: block {spec.name!r}"
    try:
        site = first_site(spec)
        if site is None:
            return
        x = torch.zeros(2, site.channels, *site.size)
        with torch.random.fork_rng(devices=()), torch.no_grad():
            block: nn.Module = build_block(spec, site, first_options(spec)).eval()
            y = block(x)
    except Exception as error:
        raise PluginError(f"{block_name} fails on (2, C, 3, 6, 5): {type(error).__name__}: {error}") from error
    if not isinstance(y, torch.Tensor):
        raise PluginError(f"{block_name} must return a single tensor, not {type(y).__name__}")
    if y.shape != x.shape:
        raise PluginError(f"{block_name} must keep the shape {tuple(x.shape)}, but returns {tuple(y.shape)}")
