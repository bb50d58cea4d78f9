"""What each module of a network does in inference, operation by operation: run once, on tensors without storage.

Every module that isn't torch's own is traced by itself, calling its children; Python's choices (options, branches,
loops) are made by running them, so that only what this network does is left. Numbers read off shapes stay such
(`tracked`), so the trace holds at other sizes wherever the code itself doesn't branch on them.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode, resolve_name

from search.export.source.tracked import Argument, Attribute, Size, larger, origin_of, plain, tracked

COMPUTED_IN = torch.float16  # of the trace: what is cast to float32 stands out, and what is cast back
SILENT = (torch._C._set_grad_enabled, torch.promote_types, torch._assert)
UNRECORDED = {
    "dtype",
    "device",
    "layout",
    "is_cuda",
    "is_mkldnn",
    "is_quantized",
    "is_sparse",
    "is_meta",
    "requires_grad",
    "grad",
    "grad_fn",
    "is_nested",
    "is_mps",
    "is_xla",
    "is_cpu",
    "itemsize",
    "names",
    "is_leaf",
    "ndim",
}
UNRECORDED_METHODS = {"dim", "ndimension", "is_contiguous", "stride", "is_floating_point", "is_complex", "element_size"}
IDENTITIES = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)


Place = tuple[FrameType, int, str, int]  # the frame itself: it stays, so that no later one is taken for it


class NotWritable(ValueError):
    """A network whose source can't be written; the message says what stands in the way."""


@dataclass(eq=False)
class Node:
    """One value of a trace.

    `kind` is input, parameter, call (a function or method, by `target`'s full name), module (a child's call) or item
    (of `args[0]`). `frames` says from where it was called: (frame, instruction, file, line), innermost first.
    """

    kind: str
    target: str
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    frames: list[Place] = field(default_factory=list)


@dataclass(eq=False)
class Trace:
    """One method of one module: its inputs, its calls in their order, and what it returns (nested, of Nodes)."""

    module: nn.Module
    method: str
    inputs: list[tuple[str, Any]] = field(default_factory=list)
    static: dict[str, Any] = field(default_factory=dict)
    calls: list[Node] = field(default_factory=list)
    output: Any = None
    nodes: dict[int, Node] = field(default_factory=dict)
    alive: list[Any] = field(default_factory=list)  # an id stands for a tensor only while that lives
    base: FrameType | None = None

    def bind(self, tensor: Tensor, node: Node) -> None:
        """Let a tensor stand for a node from now on."""
        self.nodes[id(tensor)] = node
        self.alive.append(tensor)

    def add(self, node: Node) -> Node:
        """Append a call, with the place in the sources that it comes from."""
        frame = sys._getframe(1)
        while frame is not None and frame is not self.base:
            name = frame.f_code.co_filename
            if name != __file__ and "/torch/" not in name:
                node.frames.append((frame, frame.f_lasti, name, frame.f_lineno))
            frame = frame.f_back  # type: ignore[assignment]
        self.calls.append(node)
        return node

    def bind_result(self, result: Any, node: Node) -> Any:
        """Let what a call gave stand for its node, and the parts of it for items of that."""
        if isinstance(result, Tensor):
            self.bind(result, node)
        elif isinstance(result, (tuple, list)):
            fields = getattr(type(result), "_fields", None) or _struct_fields(result)
            for index, part in enumerate(result):
                self.bind_result(part, Node("item", fields[index] if fields else "", (node, index)))
        elif isinstance(result, dict):
            for key, part in result.items():
                self.bind_result(part, Node("item", "", (node, key)))
        return result


def _struct_fields(result: Any) -> tuple[str, ...]:
    """Name the parts of what `max(dim=...)` and its like return."""
    if type(result).__module__ != "torch.return_types":
        return ()
    names = [name for name in dir(type(result)) if not name.startswith(("_", "n_")) and name not in ("count", "index")]
    places = {id(part): place for place, part in enumerate(result)}
    return tuple(sorted(names, key=lambda name: places[id(getattr(result, name))]))


class Tracing(TorchFunctionMode):
    """The traces of a network, while it runs inside."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.traces: dict[tuple[nn.Module, str], Trace] = {}
        self.stack: list[Trace | None] = []  # None: nothing is recorded
        self.modules = {id(module): module for module in network.modules()}
        self.parameters = {id(value): value for value in (*network.parameters(), *network.buffers())}

    @property
    def current(self) -> Trace | None:
        """The trace that is recorded now."""
        return self.stack[-1] if self.stack else None

    def run(self, module: nn.Module, method: str, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Call a module's method and trace it, unless it has been."""
        names = inspect.signature(function).bind(*args, **kwargs).arguments
        static = {name: value for name, value in names.items() if not is_dynamic(value)}
        known = self.traces.get((module, method))
        if known is not None:
            if repr(known.static) != repr(static):
                raise NotWritable(f"{type(module).__name__}.{method} is called in two ways: {known.static}, {static}")
            with self.paused():
                return function(*args, **kwargs)
        trace = Trace(module, method, static=static)
        self.traces[module, method] = trace
        for name, value in names.items():
            if name not in static:
                names[name] = _input(trace, name, value)
                trace.inputs.append((name, value))
        bound = inspect.signature(function).bind(*args, **kwargs)
        bound.arguments.update(names)
        trace.base = sys._getframe()
        self.stack.append(trace)
        try:
            result = function(*bound.args, **bound.kwargs)
            trace.output = self.replaced(trace, result)
            if is_dynamic(result) and origin_of(result) is not None:
                raise NotWritable(f"{type(module).__name__}.{method} returns a size")
        finally:
            self.stack.pop()
            trace.base = None
        return result

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Within: nothing is recorded."""
        self.stack.append(None)
        try:
            yield
        finally:
            self.stack.pop()

    def replaced(self, trace: Trace, value: Any) -> Any:
        """Return a nested value with nodes in place of tensors; a tensor that nothing gave is refused."""
        if isinstance(value, Tensor):
            node = trace.nodes.get(id(value))
            if node is None and id(value) in self.parameters:
                node = Node("parameter", "", (value,))
                trace.bind(value, node)
            if node is None:
                raise NotWritable(f"{type(trace.module).__name__}.{trace.method} uses a tensor from nowhere")
            return node
        if isinstance(value, (tuple, list)):
            kind = list if isinstance(value, list) else tuple
            return kind(self.replaced(trace, part) for part in value)
        if isinstance(value, dict):
            return {key: self.replaced(trace, part) for key, part in value.items()}
        if isinstance(value, slice):
            return slice(*(self.replaced(trace, part) for part in (value.start, value.stop, value.step)))
        return value

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Record a function or method of torch, and run it on what it is given."""
        kwargs = kwargs or {}
        trace = self.current
        if trace is None or func in SILENT:
            return func(*args, **kwargs)
        if func is torch.sym_max:
            return larger(*args)
        name = _name(func)
        result = func(*map_plain(args), **map_plain(kwargs))
        head, _, last = name.rpartition(".")
        if last == "shape" or (last == "size" and head == "torch.Tensor"):
            return self._sizes(trace, args, kwargs, result)
        if last in UNRECORDED or (head == "torch.Tensor" and last in UNRECORDED_METHODS):
            return result
        if last in ("to", "type", "float", "half") and result is args[0]:
            return result  # a cast to what it is already
        if last == "pad" and id(args[0]) in self.parameters and not any(args[1]):
            return args[0]
        if last in ("dropout", "dropout2d", "dropout3d") and not _given(func, args, kwargs, "training", True):
            return args[0]
        node = trace.add(Node("call", name, self.replaced(trace, tuple(args)), self.replaced(trace, dict(kwargs))))
        return trace.bind_result(result, node)

    def _sizes(self, trace: Trace, args: Any, kwargs: Any, result: Any) -> Any:
        node = self.replaced(trace, args[0])
        if isinstance(result, int):
            axis = args[1] if len(args) > 1 else kwargs["dim"]
            return tracked(result, Size(node, axis % args[0].dim()))
        return tuple(tracked(size, Size(node, axis)) for axis, size in enumerate(result))

    def call_module(self, module: nn.Module, original: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Record a child's call; torch's own modules are run as they are, all others traced in their turn."""
        trace = self.current
        if trace is None or id(module) not in self.modules:
            return original(module, *args, **kwargs)
        if isinstance(module, IDENTITIES):
            return args[0]
        return self.call_method(module, "forward", original, args, kwargs)

    def call_method(self, module: nn.Module, method: str, original: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Record the call of a child's method."""
        trace = self.current
        if trace is None or trace.module is module:
            return original(module, *args, **kwargs)
        given = self.replaced(trace, tuple(args)), self.replaced(trace, dict(kwargs))
        if is_leaf(module):
            with self.paused():
                result = original(module, *map_plain(args), **map_plain(kwargs))
        else:
            result = self.run(module, method, getattr(type(module), method).__get__(module), args, kwargs)
            made = self.traces[module, method]
            if result is (args[0] if args else None) and not made.calls:
                return result
            static = made.static
            named = list(inspect.signature(getattr(module, method)).parameters)
            given = (
                tuple(each for name, each in zip(named, given[0], strict=False) if name not in static),
                {name: each for name, each in given[1].items() if name not in static},
            )
        node = trace.add(Node("module", method, (module, *given[0]), given[1]))
        return trace.bind_result(result, node)


def is_leaf(module: nn.Module) -> bool:
    """Tell whether a module is torch's own and no container."""
    containers = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
    return type(module).__module__.startswith("torch.") and not isinstance(module, containers)


def is_dynamic(value: Any) -> bool:
    """Tell whether a value depends on the network's input."""
    if isinstance(value, (tuple, list)):
        return any(is_dynamic(part) for part in value)
    if isinstance(value, dict):
        return any(is_dynamic(part) for part in value.values())
    origin = origin_of(value)
    return isinstance(value, Tensor) or (origin is not None and not isinstance(origin, Attribute))


def map_plain(value: Any) -> Any:
    """Return a nested value without tracked numbers."""
    if type(value) in (tuple, list):
        return type(value)(map_plain(part) for part in value)
    if isinstance(value, dict):
        return {key: map_plain(part) for key, part in value.items()}
    if isinstance(value, slice):
        return slice(plain(value.start), plain(value.stop), plain(value.step))
    return plain(value)


def _input(trace: Trace, name: str, value: Any) -> Any:
    """Bind an argument; return it with its numbers coming from the argument itself."""
    node = Node("input", name)
    if isinstance(value, Tensor):
        trace.bind(value, node)
    elif isinstance(value, (tuple, list)):
        parts = []
        for index, part in enumerate(value):
            if isinstance(part, Tensor):
                trace.bind(part, Node("item", "", (node, index)))
            parts.append(tracked(plain(part), Argument(f"{name}[{index}]")) if origin_of(part) is not None else part)
        return type(value)(parts) if type(value) in (tuple, list) else value
    elif origin_of(value) is not None:
        return tracked(plain(value), Argument(name))
    return value


def _name(func: Any) -> str:
    if getattr(func, "__name__", "") == "__get__":
        return f"torch.Tensor.{func.__self__.__name__}"
    found = resolve_name(func)
    if not isinstance(found, str):
        raise NotWritable(f"{func} has no public name")
    return found


def _given(func: Any, args: Any, kwargs: Any, name: str, default: Any) -> Any:
    bound = inspect.signature(func).bind(*args, **kwargs)
    return bound.arguments.get(name, default)


@contextmanager
def installed(tracing: Tracing, network: nn.Module) -> Iterator[None]:
    """Within: the network's modules report to the tracing; its numbers know whose they are."""
    original = nn.Module.__call__

    def call(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        return tracing.call_module(module, original, args, kwargs)

    for module in network.modules():
        _track_attributes(module)
        if not type(module).__module__.startswith("torch."):
            for name in _public_methods(type(module)):
                _report_method(tracing, module, name)
    exporting = torch.compiler._is_exporting_flag
    nn.Module.__call__ = call  # type: ignore[method-assign]
    torch.compiler._is_exporting_flag = True  # the blocks then take their plain ways, without hand-written gradients
    try:
        with tracing:
            yield
    finally:
        torch.compiler._is_exporting_flag = exporting
        nn.Module.__call__ = original  # type: ignore[method-assign]


def _public_methods(kind: type) -> list[str]:
    inherited = {name for base in kind.__mro__ if base.__module__.startswith("torch.") for name in vars(base)}
    return [
        name
        for base in kind.__mro__
        for name, value in vars(base).items()
        if inspect.isfunction(value) and not name.startswith("_") and name not in inherited
    ]


def _report_method(tracing: Tracing, module: nn.Module, name: str) -> None:
    function = getattr(type(module), name)

    def method(*args: Any, **kwargs: Any) -> Any:
        return tracing.call_method(module, name, function, args, kwargs)

    method.__signature__ = inspect.signature(function.__get__(module))  # type: ignore[attr-defined]
    module.__dict__[name] = method


def _track_attributes(module: nn.Module) -> None:
    own = not type(module).__module__.startswith("torch.")
    for name, value in list(module.__dict__.items()):
        if name.startswith("_") or not (own or name.startswith(("in_", "out_", "num_"))):
            continue
        if type(value) is int:
            module.__dict__[name] = tracked(value, Attribute(module, name))
        elif type(value) is tuple and value and all(type(part) is int for part in value):
            module.__dict__[name] = tuple(
                tracked(part, Attribute(module, name, index)) for index, part in enumerate(value)
            )
