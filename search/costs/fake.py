"""Tensors without storage: what is built and run on them has sizes and layouts, and costs nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode


@contextmanager
def fake_tensors() -> Iterator[None]:
    """Within: tensors are fake, CPU ones, with the layouts that the kernels give."""
    with FakeTensorMode(), RealCounting(), RealLayouts():
        yield


class RealCounting(TorchFunctionMode):
    """Keep small series real under fake tensors, and what is read off them: their values are asked for.

    MONAI's losses list their axes by `arange(...).tolist()`, timm's models their rates by `linspace(...).split(...)`.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run such functions outside the fake mode."""
        read = bool(args) and isinstance(args[0], torch.Tensor) and not isinstance(args[0], FakeTensor)
        if func in SERIES or (read and func in READINGS):
            with unset_fake_temporarily():
                return func(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


SERIES = (torch.arange, torch.linspace)
READINGS = (torch.Tensor.tolist, torch.Tensor.item, torch.Tensor.split)


class RealLayouts(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Let fake group norms keep their input's layout, as the kernels do: later copies depend on it."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operator; give what a norm made the strides that the kernel gives it."""
        out = func(*args, **(kwargs or {}))
        if func in KEEP_LAYOUT and isinstance(out[0], torch.Tensor) and args[0].stride() != out[0].stride():
            return (torch.empty_like(args[KEEP_LAYOUT[func]], dtype=out[0].dtype), *out[1:])
        return out


KEEP_LAYOUT = {  # operator: which argument's layout its first result has
    torch.ops.aten.native_group_norm.default: 0,
    torch.ops.aten.native_group_norm_backward.default: 1,
}
