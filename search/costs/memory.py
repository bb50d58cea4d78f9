"""Peak memory of a training step and of inference, predicted on fake tensors: no device, nothing allocated."""

from __future__ import annotations

from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from search.costs.live_bytes import LiveBytes
from search.study.schema import Training
from search.training.step import LAYOUT, SupervisedLoss, autocast, lay_out, make_optimiser, training_step
from space.architecture import Architecture
from space.build import build
from space.canonical import Context
from space.unet import UNet


class RealCounting(TorchFunctionMode):
    """Keep `torch.arange(...).tolist()` real under fake tensors: MONAI's losses list their axes with it."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run arange and tolist outside the fake mode."""
        if func in (torch.arange, torch.Tensor.tolist):
            with unset_fake_temporarily():
                return func(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


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
CPU = torch.device("cpu")


def training_memory_bytes(architecture: Architecture, context: Context, training: Training) -> int:
    """Predict the peak live bytes of one training step: weights, gradients, optimiser state, activations, batch."""
    with FakeTensorMode(), RealCounting(), RealLayouts(), LiveBytes() as counter:
        network = lay_out(build(architecture, context))
        run_training_step(network, context, training, device=CPU)
    return int(counter.peak_bytes)


def run_training_step(network: UNet, context: Context, training: Training, *, device: torch.device) -> None:
    """Run one step on zeros, the optimiser's state already there, as from the second step on."""
    network.train()
    optimiser = make_optimiser(network, training)
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimiser.step()
    images = torch.zeros(training.batch, context.in_channels, *context.patch, device=device).contiguous(
        memory_format=LAYOUT
    )
    labels = torch.zeros(training.batch, 1, *context.patch, device=device)
    training_step(network, optimiser, SupervisedLoss(), images=images, labels=labels, training=training)


def inference_memory_bytes(architecture: Architecture, context: Context, training: Training) -> int:
    """Predict the peak live bytes of segmenting one patch at batch 1, weights included."""
    with FakeTensorMode(), RealLayouts(), LiveBytes() as counter, torch.inference_mode(), autocast(CPU, training):
        network = lay_out(build(architecture, context)).eval()
        network(torch.zeros(1, context.in_channels, *context.patch).contiguous(memory_format=LAYOUT))
    return int(counter.peak_bytes)
