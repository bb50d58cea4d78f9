"""Makes the modules of a network report their calls and sizes to a tracing."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from search.export.source.trace import Tracing
from search.export.source.tracked import Attribute, tracked


@contextmanager
def instrumented(tracing: Tracing, network: nn.Module) -> Iterator[None]:
    """Make the network's modules report to the tracing in this context, and track their numeric attributes."""
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
    torch.compiler._is_exporting_flag = True  # blocks then skip their hand-written gradients
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
