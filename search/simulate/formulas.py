"""Closed-form costs of networks of the space: thousands of networks per second.

Parameters and MACs are exact for plain and residual units and for blocks with a formula (a test compares them). The
two memory peaks and the latency are models with the right terms: good enough to rank networks, but not for budgets.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from search.trials.records import Costs, Latency
from space.architecture import Architecture
from space.canonical import Context
from space.place import Place
from space.pooling import Triple, level_sizes
from space.specs.registry import site_at, spec_at

BYTES = 4  # of a float32
STATES = 4  # weights, gradients and the optimiser's two moments
MACS_PER_S = 4e10
BYTES_PER_S = 8e9
CALL_S = 4e-5  # fixed overhead of an operator
MAPS = {"relu": 2.0, "leakyrelu": 2.0, "gelu": 3.0, "silu": 3.0}  # maps that conv, norm, activation keep for backward
HEADS = 3  # with deep supervision, as in `space.unet`


@dataclass
class _Totals:
    """Totals over a network's operators; values are per patch at batch 1."""

    params: int = 0
    macs: int = 0
    kept: float = 0.0
    moved: float = 0.0
    largest: float = 0.0
    calls: int = 0

    def conv(self, ins: int, outs: int, kernel: Triple, size: Triple) -> None:
        """Add a convolution with an output map of this size."""
        voxels = prod(size)
        self.params += ins * outs * prod(kernel)
        self.macs += ins * outs * prod(kernel) * voxels
        self.map((ins + outs) * voxels, keep=0.0)

    def map(self, values: float, *, keep: float) -> None:
        """Add an operator that writes `values` values and keeps `keep` times as many for backward."""
        self.moved += values
        self.kept += keep * values
        self.largest = max(self.largest, values)
        self.calls += 1


def formula_costs(architecture: Architecture, context: Context, *, batch: int = 2) -> Costs:
    """Return the costs of a network of plain or residual units; `memory_bytes` is for a training step at this batch."""
    totals, sizes = _Totals(), level_sizes(context.patch, architecture["pooling"])
    channels, bottom = architecture["channels"], architecture.levels - 1
    for level in range(architecture.levels):
        ins = channels[level - 1] if level else context.in_channels
        _unit(totals, architecture, level, ins, sizes[level], strided=level > 0)
    for level in range(bottom):
        _grow(totals, architecture, level, sizes)
        ins = channels[level] * (1 if architecture["skip"] == "add" else 2)
        _unit(totals, architecture, level, ins, sizes[level], strided=False)
    for place in architecture.attention():
        _attention(totals, architecture, place, sizes)
    totals.conv(channels[0], context.classes, (1, 1, 1), sizes[0])
    heads = min(HEADS, bottom) if architecture["deep_supervision"] else 1
    totals.params += sum(channels[level] * context.classes for level in range(1, heads)) + heads * context.classes
    image = context.in_channels * prod(context.patch)
    latency = totals.macs / MACS_PER_S + BYTES * totals.moved / BYTES_PER_S + CALL_S * totals.calls
    return Costs(
        params=totals.params,
        macs=totals.macs,
        memory_bytes=int(BYTES * (STATES * totals.params + batch * (totals.kept + totals.largest + image))),
        inference_memory_bytes=int(BYTES * (totals.params + 2 * totals.largest + image)),
        latency=Latency(latency, 0.0, 1, True, "formula", 1, "float32"),
    )


def _unit(totals: _Totals, architecture: Architecture, level: int, ins: int, size: Triple, *, strided: bool) -> None:
    outs, kernel, repeats = architecture["channels"][level], architecture["kernels"][level], architecture["repeats"]
    for step in range(repeats):
        totals.conv(outs if step else ins, outs, kernel, size)
        totals.params += 2 * outs  # the norm's
        totals.map(outs * prod(size), keep=MAPS[architecture["activation"]])
    stride = architecture["pooling"][level - 1] if strided and architecture["downsampling"] == "strided" else (1, 1, 1)
    if architecture["encoder"] == "residual" and (ins != outs or stride != (1, 1, 1)):
        totals.conv(ins, outs, (1, 1, 1), size)
        totals.params += 2 * outs
        totals.map(outs * prod(size), keep=2.0)
    elif architecture["encoder"] == "residual":
        totals.map(outs * prod(size), keep=1.0)


def _grow(totals: _Totals, architecture: Architecture, level: int, sizes: tuple[Triple, ...]) -> None:
    ins, outs, stride = (
        architecture["channels"][level + 1],
        architecture["channels"][level],
        (architecture["pooling"][level]),
    )
    if architecture["upsampling"] == "transposed":
        totals.params += ins * outs * prod(stride)
        totals.macs += ins * outs * prod(stride) * prod(sizes[level + 1])
    else:
        totals.conv(ins, outs, (1, 1, 1), sizes[level + 1])
    totals.map(outs * prod(sizes[level]), keep=1.0 if architecture["skip"] == "add" else 2.0)


def _attention(totals: _Totals, architecture: Architecture, place: Place, sizes: tuple[Triple, ...]) -> None:
    spec = spec_at(architecture, place)
    if spec.formula is None:
        raise ValueError(f"no formula for attention {spec.name!r} at {place}")
    cost = spec.formula(architecture.options(place), site_at(architecture, place, sizes))
    totals.params += cost.params
    totals.macs += cost.macs
    totals.map(cost.written, keep=cost.kept)
    totals.calls += cost.calls - 1  # the map's own
