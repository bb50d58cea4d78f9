"""`model.py`: one network as a source file that requires only torch."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from search.costs.abstract import AbstractTensors
from search.export.source.classes import Class, Module, group
from search.export.source.construction import body_of, holds_weights
from search.export.source.instrument import instrumented
from search.export.source.method import Method, Writer
from search.export.source.nodes import NotWritable, Trace
from search.export.source.trace import COMPUTED_IN, Tracing, is_leaf
from search.files import write_text

READER = Path(__file__).with_name("reader.py")
WIDTH = 116


@dataclass(frozen=True)
class Source:
    """The name of the network's class, and whether the source is the same at every tested size."""

    network: str
    sizes: Literal["any", "patch"]


def write_source(
    build: Callable[[], nn.Module], path: Path, *, in_channels: int, sizes: Sequence[tuple[int, ...]], title: str
) -> Source:
    """Write the network of `build` as it runs on images of the first of `sizes` (D, H, W).

    The source is valid for any size if all other sizes give the same text, else only for the first. `build` is called
    with abstract tensors: nothing is computed. Raises NotWritable.
    """
    text, name = _traced(build, (2, in_channels, *sizes[0]), title)
    same = all(_traced(build, (1, in_channels, *size), title)[0] == text for size in sizes[1:])
    write_text(path, text)
    return Source(name, "any" if same else "patch")


def _traced(build: Callable[[], nn.Module], shape: tuple[int, ...], title: str) -> tuple[str, str]:
    """Return the source of a network traced on an image of this shape, and the name of its class."""
    with AbstractTensors(), torch.no_grad():
        network = build().eval()
        for tensor in (*network.parameters(), *network.buffers()):
            if tensor.is_floating_point():
                tensor.data = tensor.data.to(COMPUTED_IN)  # `Module.to` can't swap abstract tensors
        tracing = Tracing(network)
        with instrumented(tracing, network):
            forward = type(network).forward.__get__(network)
            tracing.run(network, "forward", forward, (torch.zeros(shape, dtype=COMPUTED_IN),), {})
        return source_of(network, tracing, title=title)


def source_of(network: nn.Module, tracing: Tracing, *, title: str) -> tuple[str, str]:
    """Return the source of `model.py`, and the name of the network's class."""
    called = {module for module, _ in tracing.traces} | {
        node.args[0] for trace in tracing.traces.values() for node in trace.calls if node.kind == "module"
    }
    modules = [_module(module, tracing, called) for module in _written(network, called)]
    read: dict[nn.Module, dict[str, None]] = {}
    for each in modules:
        for method in each.methods:
            for module, name in method.attributes:
                read.setdefault(module, {})[name] = None
    for each in modules:
        each.attributes = list(read.get(each.module, ()))
    classes = group(modules)
    unique = {id(each): each for each in classes.values()}
    reader = READER.read_text(encoding="utf-8").split("\n\n\n", 1)[1].replace("NETWORK", classes[network].name)
    written = "\n\n\n".join([*(_class(each) for each in unique.values()), reader])
    head = _head(modules, title, ordered="OrderedDict" in written)
    return head + "\n\n\n" + written, classes[network].name


def _written(network: nn.Module, called: set[nn.Module]) -> list[nn.Module]:
    """Return the modules whose classes are written to model.py."""
    containers = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
    return [
        module
        for module in network.modules()
        if not is_leaf(module) and type(module) not in containers and (module in called or holds_weights(module))
    ]


def _module(module: nn.Module, tracing: Tracing, called: set[nn.Module]) -> Module:
    path = _paths(module)
    base, methods = "nn.Module", []
    sequential = isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward
    for (owner, _), trace in tracing.traces.items():
        if owner is module and not sequential:
            methods.append(_method(trace, path))
    if sequential and list(module._modules) == [str(index) for index in range(len(module._modules))]:
        base = "nn.Sequential"
    elif sequential:
        raise NotWritable(f"{type(module).__name__} is a Sequential with named children")
    return Module(module, body_of(module, called), methods, base)


def _method(trace: Trace, path: Callable[[Any], str]) -> Method:
    return Writer(trace, path).write()


def _paths(module: nn.Module) -> Callable[[Any], str]:
    """Return a function from a module's parts, parameters and buffers to their names in its methods."""
    known: dict[int, str] = {id(module): "self"}

    def descend(owner: nn.Module, path: str) -> None:
        for name, value in (*owner._parameters.items(), *owner._buffers.items()):
            if value is not None:
                known.setdefault(id(value), f"{path}.{name}")
        for name, child in owner._modules.items():
            if child is None:
                continue
            if isinstance(owner, nn.ModuleDict) and type(owner) is nn.ModuleDict:
                inside = f'{path}["{name}"]'
            elif name.isidentifier():
                inside = f"{path}.{name}"
            elif isinstance(owner, (nn.Sequential, nn.ModuleList)):
                inside = f"{path}[{name}]"
            else:
                inside = f'{path}.get_submodule("{name}")'
            if id(child) not in known:
                known[id(child)] = inside
                descend(child, inside)

    descend(module, "self")

    def path(value: Any) -> str:
        if id(value) not in known:
            raise NotWritable(f"{type(module).__name__} uses a {type(value).__name__} of another module")
        return known[id(value)]

    return path


def _class(written: Class) -> str:
    first = written.members[0]
    kind = type(first.module)
    lines = [f"class {written.name}({first.base}):"]
    lines += [f"    {line}" if line else "" for line in _docstring(kind)]
    arguments = "".join(f", {name}" for name in written.arguments)
    lines += ["", f"    def __init__(self{arguments}) -> None:"]
    lines += [f"        {line}" for each in written.lines for line in _broken(each)]
    for method in first.methods:
        given = ", ".join(["self", *method.arguments])
        lines += ["", f"    def {method.name}({given}):"]
        lines += [f"        {line}" for each in method.lines for line in _broken(each)]
    return "\n".join(lines)


def _broken(line: str) -> list[str]:
    """Break a long line at the commas of its first long list."""
    code, mark, comment = line.partition("  # ")
    found = _long_list(code) if len(code) + 8 > WIDTH else None
    if found is None:
        return [line]
    start, commas, end = found
    bounds = [start, *commas, end]
    parts = [code[first:last].strip(", ") for first, last in zip(bounds, bounds[1:], strict=False)]
    inner = [piece for part in parts if part for piece in _broken(part + ",")]
    return [code[:start], *(f"    {piece}" for piece in inner), code[end:] + mark + comment]


def _long_list(code: str) -> tuple[int, list[int], int] | None:
    """Return the start, the commas and the end of the first long bracket."""
    for start, sign in enumerate(code, start=1):
        if sign not in "([{" or code[start : start + 1] in "([{)]}":
            continue
        depth = 0
        commas: list[int] = []
        for index in range(start, len(code)):
            if code[index] in ")]}":
                if depth == 0:
                    if index - start > WIDTH // 3:
                        return start, commas, index
                    break
                depth -= 1
            elif code[index] in "([{":
                depth += 1
            elif code[index] == "," and depth == 0:
                commas.append(index)
    return None


def _docstring(kind: type) -> list[str]:
    """Return a docstring: the first paragraph of the class's own."""
    text = inspect.cleandoc(kind.__doc__ or "") if "__doc__" in vars(kind) else ""
    first = " ".join(text.partition("\n\n")[0].split()).replace("\\", "\\\\").replace('"""', "'''")
    if not first:
        return [f'"""{kind.__name__} of {kind.__module__}."""']
    lines = textwrap.wrap(first, WIDTH - 8)
    return [f'"""{lines[0]}"""'] if len(lines) == 1 else [f'"""{lines[0]}', *lines[1:], '"""']


def _head(modules: list[Module], title: str, *, ordered: bool) -> str:
    """Return the module docstring, with the sources of the classes, and the imports."""
    sources: dict[str, None] = {}
    for each in modules:
        for paragraph in inspect.cleandoc(inspect.getmodule(type(each.module)).__doc__ or "").split("\n\n"):
            if paragraph.startswith("Source"):
                sources[" ".join(paragraph.split())] = None
    paragraphs = [textwrap.fill(paragraph, WIDTH) for paragraph in (title, *sources)]
    imports = ["import json", *(["from collections import OrderedDict"] if ordered else [])]
    imports += ["from os import PathLike", ""]
    imports += ["import torch", "import torch.nn.functional as F", "from torch import nn"]
    return '"""' + "\n\n".join(paragraphs) + '\n"""\n\n' + "\n".join(imports)
