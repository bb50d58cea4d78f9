"""The papers' networks as tables: each layer's place, block, output, parameters and MACs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor, nn

from search.costs.abstract import AbstractTensors
from search.costs.macs import count_modules
from space.architecture import Architecture
from space.build import Network, build
from space.canonical import Context
from space.unet import UNet


@dataclass(frozen=True)
class Layer:
    """A row: `output` is (C, D, H, W), empty where the layer works in training only; attention blocks are marked."""

    place: str
    block: str
    attention: bool
    output: tuple[int, ...]
    params: int
    macs: int


def layers(architecture: Architecture, context: Context) -> tuple[Layer, ...]:
    """List a network's layers as data meets them; on abstract tensors, so that size costs nothing."""
    with AbstractTensors():
        network = build(architecture, context).eval()
        outputs = _watch_outputs(network)
        counts = count_modules(network, context)
    return tuple(
        Layer(
            place,
            _block_name(network.get_submodule(name)),
            "attention." in name,
            outputs.get(name, ()),
            counts[name].params,
            counts[name].macs,
        )
        for place, name in _parts(network)
    )


def _watch_outputs(network: nn.Module) -> dict[str, tuple[int, ...]]:
    """Return what will hold the shape (C, D, H, W) that each module last gave out."""
    outputs: dict[str, tuple[int, ...]] = {}

    def watch(name: str, module: nn.Module) -> None:
        def remember(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            if isinstance(output, torch.Tensor):
                outputs[name] = tuple(output.shape[1:])

        module.register_forward_hook(remember)

    for name, module in network.named_modules():
        watch(name, module)
    return outputs


def _parts(network: Network) -> Iterator[tuple[str, str]]:
    """Name (place, module) from the input to the output; a cascade's networks one after the other."""
    if isinstance(network, UNet):
        yield from _unet_parts(network)
        return
    for prefix, part in network.networks().items():
        for place, name in _unet_parts(part):
            yield f"{prefix} {place}", f"{prefix}.{name}"


def _unet_parts(network: UNet) -> Iterator[tuple[str, str]]:
    """Name (place, module) of one U; levels without a unit of their own are left out."""
    held = network.attention

    def attention(place: str) -> Iterator[tuple[str, str]]:
        if place in held:
            yield place, f"attention.{place}"

    for level in range(network.levels):
        place = network.down_place(level)
        if not isinstance(network.down[level], nn.Identity):
            yield place, f"down.{level}"
        if level == 0 and network.backbone is not None:
            yield "below", "backbone"
        yield from attention(place)
    for level in reversed(range(network.levels - 1)):
        yield from attention(f"skip{level}")
        yield f"decoder{level}", f"grow.{level}"
        if not isinstance(network.up[level], nn.Identity):
            yield f"decoder{level}", f"up.{level}"
        yield from attention(f"decoder{level}")
    for level in range(len(network.heads)):
        yield f"head{level}", f"heads.{level}"


def _block_name(module: nn.Module) -> str:
    """Name a part by its classes: `MaxPool3d, DenseUnit`, `EPABlock x3`."""
    if type(module) is not nn.Sequential:
        return str(getattr(module, "title", type(module).__name__))
    runs = [(name, len(list(same))) for name, same in groupby(_block_name(child) for child in module)]
    return ", ".join(f"{name} x{count}" if count > 1 else name for name, count in runs)
