"""Parameters and multiply-accumulates (MACs), counted by thop on abstract tensors with our own rules."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import thop
import torch
from thop.profile import register_hooks, zero_ops
from torch import Tensor, nn

from search.costs.abstract import AbstractTensors
from search.costs.block_macs import block_macs, specs_by_class
from search.training.step import MEMORY_FORMAT
from space.architecture import Architecture
from space.build import Network, build
from space.canonical import Context

FREE = (nn.GELU, nn.SiLU)  # count 0, as do all modules with a rule in thop except LINEAR_MACS
ELEMENTARY = tuple(f"torch.nn.modules.{name}" for name in ("batchnorm", "activation", "pooling", "dropout")) + (
    "torch.nn.modules.normalization",
    "torch.nn.modules.instancenorm",
    "blocks.norm",
)
WITH_PRODUCTS = (nn.MultiheadAttention,)
Rule = Callable[[Any, tuple[Tensor, ...], Tensor], None]


@dataclass(frozen=True)
class Counts:
    """Parameters and MACs of a network, or of a module including its submodules."""

    params: int
    macs: int


def params_and_macs(architecture: Architecture, context: Context) -> tuple[int, int]:
    """Count the parameters, and the MACs of a single patch (batch 1).

    MACs include the operations that papers count: convolutions, linear layers and matrix products. Norms, activations
    and upsampling count 0; thop itself counts norms. The network consists of abstract tensors, so the buffers that
    thop adds never reach a real network.
    """
    with AbstractTensors():
        total = count_network(build(architecture, context), context)
    return total.params, total.macs


def count_network(network: Network, context: Context) -> Counts:
    """Count a network of abstract tensors, by segmenting one patch in eval mode as `memory.run_inference` does."""
    macs, _ = _profile(network, context)
    return Counts(_params(network), int(macs))


def count_modules(network: Network, context: Context) -> dict[str, Counts]:
    """Count each module of a network of abstract tensors by name; '' is the whole network."""
    macs, _, tree = _profile(network, context, ret_layer_info=True)
    counts = {"": Counts(_params(network), int(macs))}
    for name, value in _flat(tree):
        counts[name] = Counts(_params(network.get_submodule(name)), value)
    return counts


def _profile(network: Network, context: Context, *, ret_layer_info: bool = False) -> Any:
    patch = torch.zeros(1, context.in_channels, *context.patch).contiguous(memory_format=MEMORY_FORMAT)
    return thop.profile(
        network, inputs=(patch,), custom_ops=_rules(network), verbose=False, ret_layer_info=ret_layer_info
    )


def _params(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _flat(tree: dict[str, Any], prefix: str = "") -> list[tuple[str, int]]:
    """Flatten thop's nested result to (dotted name, MACs)."""
    found = []
    for name, (macs, _, inside) in tree.items():
        found.append((f"{prefix}{name}", int(macs)))
        found += _flat(inside, f"{prefix}{name}.")
    return found


def _rules(network: nn.Module) -> dict[type[nn.Module], Rule]:
    """Return the rules for thop: attention blocks count by their spec, their submodules not at all.

    Our blocks compute the papers' operations in fewer steps, some of them outside any module.
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

    kinds = {type(module) for module in network.modules()}
    return {
        **dict.fromkeys((*register_hooks, *FREE), _nothing),
        **dict.fromkeys((kind for kind in kinds if _is_elementary(kind)), zero_ops),
        **dict.fromkeys(LINEAR_MACS, count_linear),
        **dict.fromkeys(specs, count_block),
    }


def _is_elementary(kind: type[nn.Module]) -> bool:
    """Return whether a module is a norm, an activation, a pooling or the like, in which no product can run.

    thop registers three hooks for any other rule: to count nothing, and to skip the products of functions inside.
    """
    return kind is nn.Identity or (kind.__module__.startswith(ELEMENTARY) and not issubclass(kind, WITH_PRODUCTS))


def _nothing(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    """Count no MACs."""


def _convolution(module: Any, x: Tensor, out: Tensor) -> int:
    return int(out.numel() * module.in_channels // module.groups * prod(module.kernel_size))


def _transposed(module: Any, x: Tensor, out: Tensor) -> int:
    return int(x.numel() * module.out_channels // module.groups * prod(module.kernel_size))


def _linear(module: Any, x: Tensor, out: Tensor) -> int:
    return int(out.numel() * module.in_features)


LINEAR_MACS: dict[type[nn.Module], Callable[[Any, Tensor, Tensor], int]] = {
    nn.Conv2d: _convolution,
    nn.Conv3d: _convolution,
    nn.ConvTranspose3d: _transposed,
    nn.Linear: _linear,
}
