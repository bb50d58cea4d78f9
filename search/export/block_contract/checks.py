"""The checks of a block's contract, one function each: returns the finding as text, or raises Broken or Skipped."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch

from search.config.errors import UserError
from search.config.units import show_bytes
from search.costs.abstract import AbstractTensors
from search.costs.live_bytes import LiveBytes
from search.export.block_contract.subject import BUILT, SIZES, Subject
from search.export.onnx import OnnxExportError, write_onnx
from search.export.pt2 import write_pt2
from search.files import scratch_folder
from space.specs.spec import show_size

CLOSE = 1e-9  # of values and gradients in float64
LOOSE = 0.05  # of bfloat16's outputs, over the largest
NUMERICAL = 1e-6
MEMORY = 0.001


class Broken(ValueError):
    """A block violates the contract; the message says how."""


class Skipped(ValueError):
    """A check can't run here; the message says why."""


def keeps_shape(subject: Subject) -> str:
    """The output has the input's shape at any size: the built size, odd, thin, one slice, one row."""
    block = subject.build().eval()
    with torch.no_grad():
        for size in SIZES:
            x = subject.volumes(size)
            y = block(x)
            if y.shape != x.shape:
                raise Broken(f"{tuple(x.shape)} becomes {tuple(y.shape)}")
            if not y.isfinite().all():
                raise Broken(f"not finite at {show_size(size)}")
    return f"D x H x W of {', '.join(show_size(size) for size in SIZES)}"


def has_gradients(subject: Subject) -> str:
    """Finite gradients reach the input and every parameter at any size, and none is zero at the built size."""
    count = 0
    for size in SIZES:
        block, x = subject.build(), subject.volumes(size).requires_grad_()
        block(x).square().sum().backward()
        if x.grad is None or not x.grad.isfinite().all():
            raise Broken(f"no finite gradient reaches the input at {show_size(size)}")
        for key, parameter in block.named_parameters():
            if parameter.grad is None:
                raise Broken(f"{key} has no gradient at {show_size(size)}")
            if not parameter.grad.isfinite().all():
                raise Broken(f"the gradient of {key} is not finite at {show_size(size)}")
            if size == BUILT and not parameter.grad.any() and key not in subject.spec.idle_parameters:
                raise Broken(f"the gradient of {key} is zero, so it never learns")
            count += size == BUILT
    return f"the input and {count} parameters"


def has_the_numerical_gradient(subject: Subject) -> str:
    """The gradient matches central finite differences in float64."""
    block = subject.build().double().eval()
    x = subject.volumes((2, 3, 2), batch=1).double().requires_grad_()
    direction = subject.volumes((2, 3, 2), batch=1, seed=2).double()
    (gradient,) = torch.autograd.grad(block(x).square().sum(), x)
    step = 1e-6
    with torch.no_grad():
        difference = block(x + step * direction).square().sum() - block(x - step * direction).square().sum()
    return _same(
        (gradient * direction).sum(),
        difference / (2 * step),
        tolerance=NUMERICAL,
        what="gradient and finite differences",
    )


def keeps_volumes_independent(subject: Subject) -> str:
    """The volumes of a batch don't influence each other."""
    block, x = subject.build().eval().double(), subject.volumes(batch=3).double()
    with torch.no_grad():
        alone = torch.cat([block(x[index : index + 1]) for index in range(3)])
        return _same(block(x), alone, tolerance=CLOSE, what="a single volume and the same in a batch of 3")


def is_deterministic(subject: Subject) -> str:
    """In eval mode the same input gives the same output."""
    block, x = subject.build().eval(), subject.volumes()
    with torch.no_grad():
        if not torch.equal(block(x), block(x)):
            raise Broken("two runs in eval mode differ")
    return "two runs are equal"


def takes_any_layout(subject: Subject) -> str:
    """Channels-last and strided inputs give the same values and gradients as contiguous ones."""
    block = subject.build().double().eval()
    x = subject.volumes((6, 4, 5)).double().transpose(2, 3)
    results = []
    for part in (x.contiguous(), x.contiguous(memory_format=torch.channels_last_3d), x):
        leaf = part.detach().requires_grad_()
        y = block(leaf)
        results.append((y, *torch.autograd.grad(y.square().sum(), leaf)))
        for parameter in block.parameters():
            if parameter.dim() == 5:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last_3d)
    for layout, (y, gradient) in zip(("channels last", "strided"), results[1:], strict=True):
        _same(y, results[0][0], tolerance=CLOSE, what=f"{layout} values")
        _same(gradient, results[0][1], tolerance=CLOSE, what=f"{layout} gradients")
    return "contiguous, channels last, strided"


def has_its_state_in_the_state_dict(subject: Subject) -> str:
    """Weights saved from one block and loaded into another, or copied, give the same output."""
    block, other, x = subject.build().eval(), subject.fresh().eval(), subject.volumes()
    try:
        other.load_state_dict(block.state_dict(), strict=True)
    except RuntimeError as error:
        raise Broken(str(error).splitlines()[-1].strip()) from error
    with torch.no_grad():
        if not torch.equal(block(x), other(x)):
            raise Broken("another block with the same state dict has a different output")
        if not torch.equal(block(x), copy.deepcopy(block)(x)):
            raise Broken("a deep copy has a different output")
    return f"{len(block.state_dict())} tensors"


def trains_in_bfloat16(subject: Subject) -> str:
    """Under autocast the output is close to that in float32, and gradients are finite."""
    block, x = subject.build(), subject.volumes().requires_grad_()
    with torch.no_grad():  # in eval mode, since a block may draw random numbers in training
        expected = block.eval()(x)
        with torch.autocast("cpu", torch.bfloat16):
            y = block(x)
    with torch.autocast("cpu", torch.bfloat16):
        block.train()(x).float().sum().backward()
    wrong = [key for key, each in block.named_parameters() if each.grad is None or not each.grad.isfinite().all()]
    if wrong:
        raise Broken(f"no finite gradient of {wrong[0]} under autocast")
    difference = float((y.float() - expected).abs().max() / expected.abs().max())
    if not difference < LOOSE:
        raise Broken(f"outputs under autocast differ by {difference:.1%} of the largest")
    return f"within {difference:.1%} of float32"


def exports_to_pt2(subject: Subject) -> str:
    """torch.export exports the block for any size."""
    with scratch_folder() as folder:
        try:
            written = write_pt2(
                subject.build().eval(),
                folder / "block.pt2",
                in_channels=subject.site.channels,
                patch=BUILT,
                strides=((1, 1, 1),),
            )
        except UserError as error:
            raise Broken("; ".join(map(str, error.mistakes))) from error
    if written.sizes != "any":
        raise Broken(written.note)
    return f"{written.note}; differs by {written.max_difference:.1g}"


def exports_to_onnx(subject: Subject) -> str:
    """torch exports the block to ONNX, and onnxruntime gives the same output."""
    with scratch_folder() as folder:
        path = folder / "block.onnx"
        try:
            written = write_onnx(subject.build().eval(), path, in_channels=subject.site.channels, patch=BUILT)
        except OnnxExportError as error:
            kind = Skipped if "voxnas[onnx]" in str(error) else Broken
            raise kind(str(error)) from error
    return f"differs by {written.max_difference:.1g}"


def has_the_predicted_memory(subject: Subject) -> str:
    """The predicted peak memory of a step matches the measured one, as budgets require."""

    def peak_bytes(counter: AbstractTensors | LiveBytes) -> int:
        with counter:
            block = subject.fresh()
            x = torch.zeros(2, subject.site.channels, 5, 8, 6, requires_grad=True)
            block(x).sum().backward()
        return counter.peak_bytes

    try:
        predicted = peak_bytes(AbstractTensors())
    except (ValueError, RuntimeError, NotImplementedError) as error:
        raise Broken(f"its memory can't be predicted: {str(error).splitlines()[0]}") from error
    measured = peak_bytes(LiveBytes())
    if abs(predicted - measured) > MEMORY * measured:
        raise Broken(f"predicted {show_bytes(predicted)}, measured {show_bytes(measured)}")
    return f"{show_bytes(predicted)}, as measured"


def _same(found: torch.Tensor, expected: torch.Tensor, *, tolerance: float, what: str) -> str:
    difference = float((found - expected).detach().abs().max() / expected.detach().abs().max().clamp(min=1.0))
    if not difference <= tolerance:
        raise Broken(f"{what} differ by {difference:.2g}")
    return f"differs by at most {difference:.1g}"


Check = Callable[[Subject], str]
CHECKS: dict[str, Check] = {
    "keeps the shape at any size": keeps_shape,
    "gradients reach input and parameters": has_gradients,
    "gradient matches finite differences": has_the_numerical_gradient,
    "volumes of a batch are independent": keeps_volumes_independent,
    "eval is deterministic": is_deterministic,
    "any memory layout": takes_any_layout,
    "state-dict round trip": has_its_state_in_the_state_dict,
    "trains in bfloat16": trains_in_bfloat16,
    "memory matches the prediction": has_the_predicted_memory,
    "exports to .pt2": exports_to_pt2,
    "exports to ONNX": exports_to_onnx,
}
ONCE: tuple[Check, ...] = (exports_to_pt2, exports_to_onnx)  # slow: only at the first choices
