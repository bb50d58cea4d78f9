"""Traces what each module of a network does in inference: one run on tensors without storage.

Each module that isn't torch's own is traced separately and calls its children. Options, branches and loops of Python
are executed, so only the operations of this network remain. Sizes read from shapes stay symbolic (`tracked`): the
trace holds at other sizes unless the code itself branches on them.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode, resolve_name

from search.export.source.nodes import Node, NotWritable, Trace
from search.export.source.tracked import Argument, Attribute, Size, larger, origin_of, plain, tracked

COMPUTED_IN = torch.float16  # of the trace, so that casts to float32 and back can be recognised
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


class Tracing(TorchFunctionMode):
    """Records the traces of a network's modules while the network runs in this mode."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.traces: dict[tuple[nn.Module, str], Trace] = {}
        self.stack: list[Trace | None] = []  # None: nothing is recorded
        self.modules = {id(module): module for module in network.modules()}
        self.parameters = {id(value): value for value in (*network.parameters(), *network.buffers())}

    @property
    def current(self) -> Trace | None:
        """The trace being recorded."""
        return self.stack[-1] if self.stack else None

    def run(self, module: nn.Module, method: str, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Call a module's method, and trace it at its first call."""
        names = inspect.signature(function).bind(*args, **kwargs).arguments
        static = {name: value for name, value in names.items() if not is_dynamic(value)}
        known = self.traces.get((module, method))
        if known is not None:
            if repr(known.static) != repr(static):
                raise NotWritable(
                    f"{type(module).__name__}.{method} is called with different options: {known.static}, {static}"
                )
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
        """Suspend recording in this context."""
        self.stack.append(None)
        try:
            yield
        finally:
            self.stack.pop()

    def replaced(self, trace: Trace, value: Any) -> Any:
        """Replace the tensors of a nested value by nodes. Raises NotWritable for a tensor of unknown origin."""
        if isinstance(value, Tensor):
            node = trace.nodes.get(id(value))
            if node is None and id(value) in self.parameters:
                node = Node("parameter", "", (value,))
                trace.bind(value, node)
            if node is None:
                raise NotWritable(f"{type(trace.module).__name__}.{trace.method} uses a tensor of unknown origin")
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
        """Record a function or method of torch, and run it."""
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
            return result  # a cast without effect
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
        """Record a child's call; run torch's own modules, and trace all others."""
        trace = self.current
        if trace is None or id(module) not in self.modules:
            return original(module, *args, **kwargs)
        if isinstance(module, IDENTITIES):
            return args[0]
        return self.call_method(module, "forward", original, args, kwargs)

    def call_method(self, module: nn.Module, method: str, original: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Record a call of a child's method."""
        trace = self.current
        if trace is None or trace.module is module:
            return original(module, *args, **kwargs)
        given = self.replaced(trace, tuple(args)), self.replaced(trace, dict(kwargs))
        if is_leaf(module):
            with self.paused():
                result = original(module, *map_plain(args), **map_plain(kwargs))
        else:
            result = self.run(module, method, getattr(type(module), method).__get__(module), args, kwargs)
            trace_of_child = self.traces[module, method]
            if result is (args[0] if args else None) and not trace_of_child.calls:
                return result
            static = trace_of_child.static
            named = list(inspect.signature(getattr(module, method)).parameters)
            given = (
                tuple(each for name, each in zip(named, given[0], strict=False) if name not in static),
                {name: each for name, each in given[1].items() if name not in static},
            )
        node = trace.add(Node("module", method, (module, *given[0]), given[1]))
        return trace.bind_result(result, node)


def is_leaf(module: nn.Module) -> bool:
    """Return whether a module is one of torch's own and not a container."""
    containers = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
    return type(module).__module__.startswith("torch.") and not isinstance(module, containers)


def is_dynamic(value: Any) -> bool:
    """Return whether a value depends on the network's input."""
    if isinstance(value, (tuple, list)):
        return any(is_dynamic(part) for part in value)
    if isinstance(value, dict):
        return any(is_dynamic(part) for part in value.values())
    origin = origin_of(value)
    return isinstance(value, Tensor) or (origin is not None and not isinstance(origin, Attribute))


def map_plain(value: Any) -> Any:
    """Return a nested value with plain numbers in place of tracked ones."""
    if type(value) in (tuple, list):
        return type(value)(map_plain(part) for part in value)
    if isinstance(value, dict):
        return {key: map_plain(part) for key, part in value.items()}
    if isinstance(value, slice):
        return slice(plain(value.start), plain(value.stop), plain(value.step))
    return plain(value)


def _input(trace: Trace, name: str, value: Any) -> Any:
    """Bind an argument; return it with numbers tracked as coming from the argument."""
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
