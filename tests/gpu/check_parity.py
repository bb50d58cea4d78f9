"""Every block and every paper's network in float32 and bfloat16 on the device, beside float32 on the CPU."""

from __future__ import annotations

import copy
from typing import Any

import torch
from bench_presets import ONE_PER_PAPER, narrow_patch, narrowed
from report import PartReport
from setting import Setting
from torch import Tensor, nn

from blocks import BLOCKS
from search.config.training_section import Training
from search.training.step import MEMORY_FORMAT, autocast, to_memory_format
from space.build import build
from space.canonical import Context
from space.presets import PRESETS

LIMITS = {"float32": 5e-3, "bfloat16": 5e-2}  # tf32 and bf16 operands, |out - ref| / |ref|
NETWORK_LIMITS = {"float32": 2e-2, "bfloat16": 2e-1}  # tens of layers deep
CHANNELS = 32
SIZE = (4, 6, 5)
EPA = {"grid": SIZE, "projection": 7, "heads": 4}
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("isa", {}),
    ("isa", {"shared": False}),
    ("csam", {"slices": 4}),
    ("csam", {"slices": 4, "uncertainty": True, "rank": 2}),
    ("csam", {"slices": 4, "semantic": False}),
    ("csam", {"slices": 4, "positional": False, "slice": False}),
    ("joint", {}),
    ("joint", {"mode": "pointwise"}),
    ("joint", {"mode": "self", "axes": "volume", "reduction": 3}),
    ("epa", EPA),
    ("epa", {**EPA, "projections": "raw"}),
    ("epa", {**EPA, "projections": "separate", "residual_units": 2}),
    ("epa", {**EPA, "order": "corrected"}),
]


def check_parity(setting: Setting, part: PartReport) -> None:
    """Compare outputs and the input's gradient."""
    worst: dict[str, float] = {}
    for name, options in VARIANTS:
        label = f"{name} {' '.join(f'{key}={value}' for key, value in options.items())}".strip()
        with part.item(label):
            torch.manual_seed(0)
            block = BLOCKS[name](CHANNELS, **options).eval()
            for key, parameter in block.named_parameters():
                nn.init.normal_(parameter, mean=float(key.endswith("bias")), std=0.1)
            compare(block, torch.randn(2, CHANNELS, *SIZE), label, setting, part, worst, kind="block")
    for name in ONE_PER_PAPER if setting.tiny else PRESETS:
        preset = PRESETS[name]
        with part.item(name):
            torch.manual_seed(0)
            patch = narrow_patch(name) if setting.tiny else patch_of(name)
            context = Context(patch, preset.context.spacing, preset.context.in_channels, preset.context.classes)
            network = to_memory_format(build(narrowed(preset.architecture), context)).eval()
            images = torch.randn(1, context.in_channels, *patch)
            compare(network, images, name, setting, part, worst, kind="network")
    for key, error in worst.items():
        kind, precision = key.split()
        part.limit(f"{key}: worst error", error, (LIMITS if kind == "block" else NETWORK_LIMITS)[precision])


def patch_of(name: str) -> tuple[int, int, int]:
    """Return the patch of a paper's network on a GPU."""
    return (32, 64, 64) if name.startswith(("unetrpp", "meunet")) else (8, 64, 64)


def compare(
    module: nn.Module, x: Tensor, label: str, setting: Setting, part: PartReport, worst: dict[str, float], *, kind: str
) -> None:
    """Run a module on the CPU and on the device, channels last there, and note the relative errors.

    The input's gradient of a whole network in bfloat16 is reported and not held to a limit: each rounding that flips
    a rectifier on the way changes it, on a CPU as well.
    """
    reference = outcome(module, x, "float32", torch.device("cpu"))
    moved = to_memory_format(copy.deepcopy(module)).to(setting.device)
    for precision in LIMITS:
        found = outcome(moved, x, precision, setting.device)
        errors = [float((ours - its).norm() / its.norm()) for ours, its in zip(found, reference, strict=True)]
        part.row(module=label, precision=precision, output=errors[0], gradient=errors[1])
        key = f"{kind} {precision}"
        held = errors[:1] if (kind, precision) == ("network", "bfloat16") else errors
        worst[key] = max(worst.get(key, 0.0), *held)


def outcome(module: nn.Module, x: Tensor, precision: str, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the output and the input's gradient under a fixed weighting of it, on the CPU in float32."""
    leaf = x.to(device).clone(memory_format=MEMORY_FORMAT).detach().requires_grad_()
    with autocast(device, Training(precision=precision)):
        out = module(leaf)
    weighting = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(device)
    (out.float() * weighting).sum().backward()
    gradient = torch.ones(()) if leaf.grad is None else leaf.grad.float().cpu()  # a cascade's labels have none
    return out.detach().float().cpu(), gradient
