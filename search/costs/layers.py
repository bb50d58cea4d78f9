"""A network's layers as a table: place, block, output shape, parameters and MACs of each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import groupby

import torch
from torch import Tensor, nn

from search.costs.abstract import AbstractTensors
from search.costs.block_macs import specs_by_class
from search.costs.macs import count_modules
from space.architecture import Architecture
from space.build import Network, build
from space.canonical import Context
from space.place import Place, down_place
from space.specs.placeholder import Placeholder, placeholders
from space.unet import UNet


@dataclass(frozen=True)
class Layer:
    """A row of the table.

    `network` names the network within a cascade, else it is empty. `side` is a kind of place, `head`, or `below` for
    a whole backbone. `output` is (C, D, H, W); it is empty for layers that run in training only. `spec` is the name of
    an attention block's spec. A plug-in block whose code is not loaded is not `counted`: its parameters and MACs are 0.
    """

    network: str
    side: str
    level: int
    block: str
    attention: bool
    output: tuple[int, ...]
    params: int
    macs: int
    spec: str = ""
    counted: bool = True

    @property
    def place(self) -> str:
        """The row's place as text: `encoder0`, `second bottleneck`."""
        side = self.side if self.side in ("bottleneck", "below") else f"{self.side}{self.level}"
        return f"{self.network} {side}".strip()


def layers(architecture: Architecture, context: Context) -> tuple[Layer, ...]:
    """List a network's layers from input to output; abstract tensors keep this cheap at any size.

    Placeholders replace plug-in blocks whose code is not loaded. Raises space.build.Refused.
    """
    with placeholders(architecture), AbstractTensors():
        network = build(architecture, context).eval()
        outputs = _record_outputs(network)
        counts = count_modules(network, context)
        names = {module: spec.name for module, spec in specs_by_class().items()}
    found = []
    for part in _parts(network):
        module = network.get_submodule(part.module)
        first = next(iter(module)) if isinstance(module, nn.Sequential) else module
        found.append(
            Layer(
                part.network,
                part.side,
                part.level,
                _block_name(module),
                part.attention,
                outputs.get(part.module, ()),
                counts[part.module].params,
                counts[part.module].macs,
                spec=names.get(type(first), "") if part.attention else "",
                counted=not isinstance(first, Placeholder),
            )
        )
    return tuple(found)


def _record_outputs(network: nn.Module) -> dict[str, tuple[int, ...]]:
    """Return a dict that forward hooks fill with each module's last output shape (C, D, H, W)."""
    outputs: dict[str, tuple[int, ...]] = {}

    def watch(name: str, module: nn.Module) -> None:
        def remember(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            if isinstance(output, torch.Tensor):
                outputs[name] = tuple(output.shape[1:])

        module.register_forward_hook(remember)

    for name, module in network.named_modules():
        watch(name, module)
    return outputs


@dataclass(frozen=True)
class _Part:
    """A module of a network: its name and its position in the U."""

    side: str
    level: int
    module: str
    attention: bool = False
    network: str = ""


def _parts(network: Network) -> Iterator[_Part]:
    """List the parts from input to output; a cascade's networks one after the other."""
    if isinstance(network, UNet):
        yield from _unet_parts(network)
        return
    for prefix, each in network.networks().items():
        for part in _unet_parts(each):
            yield replace(part, network=prefix, module=f"{prefix}.{part.module}")


def _unet_parts(network: UNet) -> Iterator[_Part]:
    """List the parts of a single U, without levels that have no unit."""
    held, bottom = network.attention, network.levels - 1

    def attention(place: Place) -> Iterator[_Part]:
        if str(place) in held:
            yield _Part(place.kind, place.level_of(network.levels), f"attention.{place}", attention=True)

    for level in range(network.levels):
        place = down_place(level, network.levels)
        if not isinstance(network.down[level], nn.Identity):
            yield _Part(place.kind, level, f"down.{level}")
        if level == 0 and network.backbone is not None:
            yield _Part("below", bottom, "backbone")
        yield from attention(place)
    for level in reversed(range(bottom)):
        yield from attention(Place("skip", level))
        yield _Part("decoder", level, f"grow.{level}")
        if not isinstance(network.up[level], nn.Identity):
            yield _Part("decoder", level, f"up.{level}")
        yield from attention(Place("decoder", level))
    for level in range(len(network.heads)):
        yield _Part("head", level, f"heads.{level}")


def _block_name(module: nn.Module) -> str:
    """Return a part's class names: `MaxPool3d, DenseUnit`, `EPABlock x3`."""
    if type(module) is not nn.Sequential:
        return str(getattr(module, "title", type(module).__name__))
    runs = [(name, len(list(same))) for name, same in groupby(_block_name(child) for child in module)]
    return ", ".join(f"{name} x{count}" if count > 1 else name for name, count in runs)
