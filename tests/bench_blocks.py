"""Time and memory of each block compared with a literal transcription of its equations.

Run: make bench-blocks. Both alternate in one process, so a busy machine slows both; the ratio is the median of the
paired ratios. Live bytes are the peak sum of live storages in a run, with inputs, without weights.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from bench_figures import report
from literal_forms import literal_csam, literal_epa, literal_joint
from torch import Tensor, nn

from blocks.csam import CSAM
from blocks.epa import EPA
from blocks.isa import ISA
from blocks.joint import JointAttention
from search.costs.live_bytes import LiveBytes


def one_convolution(block: ISA, x: Tensor) -> Tensor:
    """The baseline for ISA: one 1x1 convolution of the same width."""
    return block.conv(x)


@dataclass(frozen=True)
class Case:
    """A block, its transcription, its input, and its limits: (forward, forward+backward), None without a limit."""

    name: str
    block: nn.Module
    literal: Callable[[nn.Module, Tensor], Tensor]
    shape: tuple[int, ...]
    time_limits: tuple[float | None, float | None]
    bytes_limits: tuple[float | None, float | None]
    bytes_over_input: bool = False


def cases() -> list[Case]:
    """Return the cases for which the limits are stated."""
    epa = EPA(32, tokens=32768, projection=64, heads=4)
    return [
        Case("EPA N=32768 C=32 P=64", epa, literal_epa, (1, 32768, 32), (0.45, 0.6), (0.4, 0.7)),
        Case(
            "CSAM S=20 C=64 128x128", CSAM(64, slices=20), literal_csam, (1, 64, 20, 128, 128), (0.4, 0.65), (0.7, 0.7)
        ),
        Case(
            "Joint plane 64x64 C=64", JointAttention(64), literal_joint, (1, 64, 1, 64, 64), (None, None), (6, 10), True
        ),
        Case("ISA C=32, conv 1x1", ISA(32), one_convolution, (1, 32, 16, 96, 96), (3, 3), (None, None)),
    ]


def forward(run: Callable[[Tensor], Tensor], x: Tensor, cotangent: Tensor) -> None:
    """One inference pass."""
    with torch.no_grad():
        run(x)


def forward_backward(run: Callable[[Tensor], Tensor], x: Tensor, cotangent: Tensor) -> None:
    """One training pass, with the gradient of the input."""
    x = x.detach().requires_grad_()
    run(x).backward(cotangent)


def seconds(work: Callable[[], None]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def paired_ratio(ours: Callable[[], None], theirs: Callable[[], None], *, repeats: int) -> tuple[float, float, float]:
    """Return the median of the paired ratios, and both medians in seconds, after one warm-up each."""
    ours(), theirs()
    pairs = [(seconds(ours), seconds(theirs)) for _ in range(repeats)]
    ratio = statistics.median(a / b for a, b in pairs)
    return ratio, statistics.median(a for a, _ in pairs), statistics.median(b for _, b in pairs)


def live_bytes(work: Callable[[], None], module: nn.Module, *held: Tensor) -> int:
    """Return the peak live bytes of one call, including the tensors `held`."""
    for parameter in module.parameters():
        parameter.grad = None
    with LiveBytes().hold(*held) as counter:
        work()
    return counter.peak_bytes


def measure(case: Case, step: Callable, *, repeats: int) -> tuple[float, float, float, float]:
    """Return time ratio, our seconds, their seconds, bytes ratio (or extra bytes relative to the input's)."""
    torch.manual_seed(0)
    for parameter in case.block.parameters():
        nn.init.normal_(parameter, std=0.1)
    x = torch.randn(case.shape)
    cotangent = torch.randn_like(x)
    ours = lambda: step(case.block, x, cotangent)  # noqa: E731
    theirs = lambda: step(lambda t: case.literal(case.block, t), x, cotangent)  # noqa: E731
    held = (x, cotangent) if step is forward_backward else (x,)
    our_bytes = live_bytes(ours, case.block, *held)
    if case.bytes_over_input:
        bytes_ratio = our_bytes / (x.numel() * x.element_size()) - len(held)
    else:
        bytes_ratio = our_bytes / live_bytes(theirs, case.block, *held)
    return (*paired_ratio(ours, theirs, repeats=repeats), bytes_ratio)


def main() -> None:
    """Report each case and step."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=9)
    # One thread by default: with fewer free cores than threads every parallel loop waits for the last one.
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", default="", help="cases whose name contains this")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for case in cases():
        if options.only not in case.name:
            continue
        for index, step in enumerate((forward, forward_backward)):
            ratio, ours, theirs, size = measure(case, step, repeats=options.repeats)
            what = f"{case.name}, {step.__name__}"
            report(f"{what}: time over the transcription's", ratio, limit=case.time_limits[index])
            over = "bytes over the input's" if case.bytes_over_input else "bytes over the transcription's"
            report(f"{what}: {over}", size, limit=case.bytes_limits[index])
            print(f"{what}: {ours * 1e3:.1f} ms, transcription {theirs * 1e3:.1f} ms")


if __name__ == "__main__":
    main()
