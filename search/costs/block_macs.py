"""Multiply-accumulates (MACs) of an attention block: by its spec's rule, or by torch's counter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from space.specs.registry import known_specs
from space.specs.spec import BlockSpec


def specs_by_class() -> dict[type[nn.Module], BlockSpec]:
    """Return the known specs by module class; if two specs share a class, the first."""
    return {spec.load(): spec for spec in reversed(known_specs())}


def block_macs(spec: BlockSpec, module: nn.Module, inputs: tuple[Tensor, ...]) -> int:
    """Count the MACs of a block for these inputs."""
    if spec.macs is not None:
        return int(spec.macs(module, inputs[0].shape))
    return counted_macs(module, inputs)


def counted_macs(module: nn.Module, inputs: tuple[Tensor, ...]) -> int:
    """Run a module under torch's counter, which counts convolutions, linear layers and matrix products only."""
    with FlopCounterMode(display=False, custom_mapping=CPU_ATTENTION) as counter:
        module.forward(*inputs)
    return int(counter.get_total_flops()) // 2


def _attention_flops(
    query: Sequence[int], key: Sequence[int], value: Sequence[int], *rest: Any, out_shape: Any = None, **kwargs: Any
) -> int:
    """Count scaled dot-product attention as on a GPU; torch counts 0 for its CPU kernel."""
    return int(sdpa_flop_count(query, key, value))  # type: ignore[no-untyped-call]


CPU_ATTENTION = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops}
