"""Parameters and multiply-adds: thop on abstract tensors, with rules of ours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import thop
import torch
from thop.profile import register_hooks
from torch import Tensor, nn

from search.costs.abstract import AbstractTensors
from search.costs.block_macs import block_macs, specs_by_class
from space.architecture import Architecture
from space.build import Network, build
from space.canonical import Context

FREE = (nn.GELU, nn.SiLU)  # and all that thop has a rule of its own for
Rule = Callable[[Any, tuple[Tensor, ...], Tensor], None]


@dataclass(frozen=True)
class Counts:
    """Parameters and MACs of a network, or of one of its modules with all inside it."""

    params: int
    macs: int


def params_and_macs(architecture: Architecture, context: Context) -> tuple[int, int]:
    """Count parameters, and the multiply-adds of one patch at batch 1.

    MACs are those of the published operations: convolutions, linear maps and matrix products; norms, activations
    and upsampling count 0 (thop alone counts norms). The network is made of abstract tensors, so thop leaves nothing
    behind in a real one.
    """
    with AbstractTensors():
        network = build(architecture, context).eval()
        total = count_modules(network, context)[""]
    return total.params, total.macs


def count_modules(network: Network, context: Context) -> dict[str, Counts]:
    """Count each module of a network of abstract tensors, by its name; the whole network's is ''."""
    patch = torch.zeros(1, context.in_channels, *context.patch)
    with torch.no_grad():
        macs, _, tree = thop.profile(
            network, inputs=(patch,), custom_ops=_rules(network), verbose=False, ret_layer_info=True
        )
    counts = {"": Counts(_params(network), int(macs))}
    for name, value in _flat(tree):
        counts[name] = Counts(_params(network.get_submodule(name)), value)
    return counts


def _params(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _flat(tree: dict[str, Any], prefix: str = "") -> list[tuple[str, int]]:
    """List (dotted name, MACs) of thop's nested answer."""
    found = []
    for name, (macs, _, inside) in tree.items():
        found.append((f"{prefix}{name}", int(macs)))
        found += _flat(inside, f"{prefix}{name}.")
    return found


def _rules(network: nn.Module) -> dict[type[nn.Module], Rule]:
    """Return thop's rules: an attention block counts by its spec, and what is inside it not at all.

    Ours reach the papers' numbers with fewer operations, some of them outside of any module.
    """
    specs = specs_by_class()
    blocks = [module for module in network.modules() if type(module) in specs]
    inside = {id(part) for block in blocks for part in block.modules() if part is not block}

    def count_block(module: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if id(module) not in inside:
            module.total_ops += block_macs(specs[type(module)], module, inputs)

    def count_linear(module: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if id(module) not in inside:
            kind = next(kind for kind in type(module).__mro__ if kind in LINEAR_MACS)
            module.total_ops += LINEAR_MACS[kind](module, inputs[0], output)

    return {
        **dict.fromkeys((*register_hooks, *FREE), _nothing),
        **dict.fromkeys(LINEAR_MACS, count_linear),
        **dict.fromkeys(specs, count_block),
    }


def _nothing(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    """Count no multiply-adds."""


def _convolution(module: Any, given: Tensor, made: Tensor) -> int:
    return int(made.numel() * module.in_channels // module.groups * prod(module.kernel_size))


def _transposed(module: Any, given: Tensor, made: Tensor) -> int:
    return int(given.numel() * module.out_channels // module.groups * prod(module.kernel_size))


def _linear(module: Any, given: Tensor, made: Tensor) -> int:
    return int(made.numel() * module.in_features)


LINEAR_MACS: dict[type[nn.Module], Callable[[Any, Tensor, Tensor], int]] = {
    nn.Conv2d: _convolution,
    nn.Conv3d: _convolution,
    nn.ConvTranspose3d: _transposed,
    nn.Linear: _linear,
}
