"""What operators do to abstract tensors: their kind by schema, and their results, learned once per signature."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch

from search.costs.abstract_tensor import AbstractCudaTensor, AbstractTensor, Spec, spec_of
from search.costs.cuda_kernels import run_empty_as_cuda, workspace_bytes
from search.costs.empty import run_empty
from search.costs.quick_layouts import META

Kind = Literal["series", "composite", "nothing", "in place", "learned"]
ATEN = torch.ops.aten
SERIES = (ATEN.arange, ATEN.linspace)
RESHAPED = (
    ATEN.resize_,
    ATEN.set_,
    ATEN.squeeze_,
    ATEN.unsqueeze_,
    ATEN.t_,
    ATEN.transpose_,
    ATEN.as_strided_,
    ATEN.swapdims_,
)


@dataclass(frozen=True, eq=False)
class Operator:
    """An operator and its kind.

    `series` runs for real, `composite` is decomposed, `learned` runs once per signature. The results of `nothing` and
    `in place` follow from the schema.
    """

    func: Any
    kind: Kind


@dataclass(frozen=True, slots=True)
class TensorResult:
    """One tensor that an operator returns: in a new storage, or a view of the tensor argument with this number."""

    spec: Spec
    argument: int | None
    storage: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Results:
    """The results of an operator: TensorResults and plain values, in a `sequence` type or single (None).

    `workspace_bytes` are allocated only while the operator runs.
    """

    items: tuple[Any, ...]
    sequence: type | None
    workspace_bytes: int


_known: dict[int, Operator] = {}  # by id: hashing an operator takes longer


def operator_of(func: Any) -> Operator:
    """Return an operator's kind, determined once."""
    found = _known.get(id(func))
    if found is None:
        found = _known[id(func)] = Operator(func, _kind(func))
    return found


def _kind(func: Any) -> Kind:
    schema = func._schema
    if func.overloadpacket in SERIES:
        return "series"
    has_kernel = partial(torch._C._dispatch_has_kernel_for_dispatch_key, func.name())
    if has_kernel("CompositeImplicitAutograd") and not has_kernel("CPU"):
        return "composite"
    if not schema.returns:
        return "nothing"
    first = schema.arguments[0].alias_info if schema.arguments else None
    if first is not None and first.is_write and schema.name.endswith("_"):
        if func.overloadpacket in RESHAPED:
            raise ValueError(f"{func} changes a tensor's size in place, which abstract tensors don't support")
        return "in place"
    return "learned"


def append_parts(values: Iterable[Any], parts: list[Any], tensors: list[Any]) -> None:
    """Append to `parts` what determines an operator's results, and to `tensors` the tensors among the arguments."""
    for value in values:
        kind = type(value)
        if kind is AbstractTensor or kind is AbstractCudaTensor:
            tensors.append(value)
            parts.append(value.spec)
        elif kind is int or kind is bool or value is None:
            parts.append(value)
        elif kind is float:
            parts.append((value, float))  # 1 == 1.0, but the result dtypes differ
        elif kind is list or kind is tuple or isinstance(value, list | tuple):
            inside: list[Any] = []
            append_parts(value, inside, tensors)
            parts.append(tuple(inside))
        elif isinstance(value, torch.Tensor):
            tensors.append(value)
            parts.append((value.shape, value.stride(), value.dtype))
        else:
            parts.append(value)


def learn(func: Any, args: Any, kwargs: Any, *, cuda: bool) -> Results:
    """Run an operator on `meta` tensors of the same sizes and describe its results.

    Some operators import modules when they first run. Imports leave frames in reference cycles, and these would hold
    all tensors of their callers: the price would depend on what the process has run before.
    """
    modules = len(sys.modules)
    given: list[torch.Tensor] = []
    empty_args = _empty(args, given)
    empty_kwargs = {name: _empty(value, given) for name, value in kwargs.items()}
    run = run_empty_as_cuda if cuda else run_empty
    out = run(func, empty_args, empty_kwargs, given=args)
    if len(sys.modules) > modules:
        gc.collect()
    storages = [each.untyped_storage()._cdata for each in given]
    items = out if isinstance(out, list | tuple) else (out,)
    sequence = type(out) if isinstance(out, list | tuple) else None
    workspace = workspace_bytes(func, empty_args, out) if cuda else 0
    return Results(tuple(_describe(item, storages) for item in items), sequence, workspace)


def _empty(value: Any, given: list[torch.Tensor]) -> Any:
    """Replace abstract tensors by `meta` tensors and devices by META; append all tensors to `given` in order."""
    kind = type(value)
    if kind is AbstractTensor or kind is AbstractCudaTensor:
        spec = value.spec
        value = torch.empty_strided(spec.size, spec.stride, dtype=spec.dtype, device=META)
        given.append(value)
    elif isinstance(value, torch.Tensor):
        if value.dim():
            value = torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device=META)
        given.append(value)
    elif isinstance(value, list | tuple):
        return type(value)(_empty(each, given) for each in value)
    return META if isinstance(value, torch.device) else value


def _describe(item: Any, storages: list[int]) -> Any:
    if not isinstance(item, torch.Tensor):
        return item
    storage = item.untyped_storage()
    argument = storages.index(storage._cdata) if storage._cdata in storages else None
    spec = spec_of(tuple(item.shape), item.stride(), item.dtype)
    return TensorResult(spec, argument, storage._cdata, storage.nbytes())
