"""Time and memory of blocks, norms and training steps on the device."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import torch
from bench_blocks import Case, cases, forward, forward_backward
from check_faults import jobs
from report import PartReport
from setting import Setting
from torch import nn

from blocks.norm import NORMS, make_norm
from search.config.training_section import Training
from search.data.prepared import load_prepared
from search.runner.train import train_epoch
from search.runner.watch import Watch
from search.training.patches import PatchSource
from search.training.schemes import make_phases, training_step
from search.training.step import MEMORY_FORMAT, make_optimiser, precision_name, to_memory_format
from space.build import build
from space.presets import PRESETS

LOOP = 0.95  # of the steps per second of a loop that does nothing but steps
COMPILED = ("sau_net", "csam_unet", "unetrpp_acdc", "meunet")


def timed(work: Callable[[], object], setting: Setting, *, repeats: int) -> float:
    """Return the median seconds of a call, by the device's own clock."""
    for _ in range(2):
        work()
    found = []
    for _ in range(repeats):
        setting.synchronise()
        began = time.perf_counter()
        work()
        setting.synchronise()
        found.append(time.perf_counter() - began)
    return statistics.median(found)


def peak_bytes(work: Callable[[], object], setting: Setting) -> int:
    """Return the most bytes that a call allocates beside what lives already."""
    if not setting.cuda:
        return 0
    work()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    work()
    return torch.cuda.max_memory_allocated() - before


def check_blocks(setting: Setting, part: PartReport) -> None:
    """Compare each block with its transcription, forward and with gradients, in both precisions."""
    repeats = 2 if setting.tiny else 20
    for case in cases():
        for bfloat16 in (False, True):
            for step in (forward, forward_backward):
                with part.item(f"{case.name} {step.__name__}"), autocast_if(bfloat16, setting):
                    compare_block(case, step, bfloat16, setting, part, repeats=repeats)


def autocast_if(bfloat16: bool, setting: Setting) -> torch.autocast:
    """Return bfloat16 autocast, or none."""
    return torch.autocast(setting.device.type, torch.bfloat16, enabled=bfloat16)


def compare_block(
    case: Case, step: Callable, bfloat16: bool, setting: Setting, part: PartReport, *, repeats: int
) -> None:
    """Note the seconds and bytes of a block and of its transcription."""
    block = to_memory_format(case.block).to(setting.device)
    shape = tuple(min(size, 16) if setting.tiny and place > 1 else size for place, size in enumerate(case.shape))
    if setting.tiny and "EPA" in case.name:
        return
    x = torch.randn(shape, device=setting.device)
    x = x.contiguous(memory_format=MEMORY_FORMAT) if x.dim() == 5 else x
    cotangent = torch.randn_like(x)
    if setting.tiny and "CSAM" in case.name:
        x, cotangent = (each.repeat(1, 1, 2, 1, 1)[:, :, :20] for each in (x, cotangent))
    ours, theirs = (
        lambda: step(block, x, cotangent.to(block(x).dtype) if step is forward_backward else cotangent),
        lambda: step(lambda t: case.literal(block, t).to(torch.float32), x, cotangent),
    )
    mine, its = timed(ours, setting, repeats=repeats), timed(theirs, setting, repeats=repeats)
    part.row(
        block=case.name,
        step=step.__name__,
        precision="bfloat16" if bfloat16 else "float32",
        ours_ms=mine * 1e3,
        literal_ms=its * 1e3,
        time_ratio=mine / its,
        ours_MiB=peak_bytes(ours, setting) / 2**20,
        literal_MiB=peak_bytes(theirs, setting) / 2**20,
    )


def check_norms(setting: Setting, part: PartReport) -> None:
    """Time each norm with its gradients, channels last, beside a copy of the same volume."""
    shape = (2, 4, 4, 8, 8) if setting.tiny else (2, 32, 16, 160, 160)
    for dtype in (torch.float32, torch.bfloat16):
        x = torch.randn(shape, device=setting.device, dtype=dtype).contiguous(memory_format=MEMORY_FORMAT)
        grad = torch.randn_like(x)
        copy_s = timed(lambda x=x: x.clone(), setting, repeats=20)
        for name in NORMS:
            with part.item(f"{name} {dtype}"):
                norm = make_norm(name, shape[1]).to(setting.device)

                def step(norm: nn.Module = norm, x: torch.Tensor = x, grad: torch.Tensor = grad) -> None:
                    leaf = x.detach().requires_grad_()
                    out = norm(leaf)
                    out.backward(grad.to(out.dtype))

                with torch.no_grad():
                    out = norm(x)
                part.row(
                    norm=name,
                    dtype=str(dtype).removeprefix("torch."),
                    out=str(out.dtype).removeprefix("torch."),
                    channels_last=out.is_contiguous(memory_format=MEMORY_FORMAT),
                    step_ms=timed(step, setting, repeats=20) * 1e3,
                    copies=timed(step, setting, repeats=20) / copy_s,
                    peak_MiB=peak_bytes(step, setting) / 2**20,
                    volume_MiB=x.numel() * x.element_size() / 2**20,
                )


def check_loop(setting: Setting, part: PartReport) -> None:
    """Compare a training epoch, augmentation included, with steps on one batch that is already on the device."""
    plan = setting.plan("loop")
    (job,) = jobs(setting, plan, 1, epochs=1000, steps_per_epoch=2 if setting.tiny else 60)
    training = job.training
    network = to_memory_format(build(job.architecture, plan.context)).to(setting.device)
    (phase,) = make_phases(network, patch=job.patch, training=training)
    phase.trained.train()
    optimiser = make_optimiser(phase.trained, training)
    prepared = load_prepared(setting.folder / "runs" / "cache" / job.task.prepared)
    source = PatchSource(
        prepared, cases=job.task.train, patch=phase.patch, training=training, seed=0, device=setting.device
    )
    images, labels = source.batch_at(0)
    images = images.contiguous(memory_format=MEMORY_FORMAT)
    ratios, watch = [], Watch()
    watch.start(training, ())
    for number in range(4):
        began = time.perf_counter()
        for _ in range(training.steps_per_epoch):
            training_step(phase, optimiser, images=images, labels=labels, training=training)
        setting.synchronise()
        middle = time.perf_counter()
        batches = source.batches(number * training.steps_per_epoch, (number + 1) * training.steps_per_epoch)
        train_epoch(phase, optimiser, batches, job=job, number=number, span=(0, training.epochs), watch=watch)
        setting.synchronise()
        bare, ours = (training.steps_per_epoch / each for each in (middle - began, time.perf_counter() - middle))
        if number:
            ratios.append(ours / bare)
            part.row(round=number, bare_steps_per_s=bare, ours_steps_per_s=ours, ratio=ours / bare)
    part.note(f"precision {precision_name(setting.device, training)}, patch {job.patch}, batch {training.batch}")
    if not setting.tiny:
        part.limit("share of the bare loop's steps", statistics.median(ratios), LOOP, at_least=True)


def check_compile(setting: Setting, part: PartReport) -> None:
    """Count steps per second of the papers' networks at their patches, as they are and compiled."""
    if setting.tiny:
        part.note("Compilation takes minutes on a CPU: left out.")
        return
    for compiled in (False, True):
        for name in COMPILED:
            with part.item(f"{name} {'compiled' if compiled else 'as it is'}"):
                preset = PRESETS[name]
                training = replace(Training(batch=1), patch=preset.context.patch)
                torch.manual_seed(0)
                network = to_memory_format(build(preset.architecture, preset.context)).to(setting.device).train()
                (phase,) = make_phases(network, patch=preset.context.patch, training=training)
                optimiser = make_optimiser(phase.trained, training)
                images = torch.randn(1, preset.context.in_channels, *phase.patch, device=setting.device)
                images = images.contiguous(memory_format=MEMORY_FORMAT)
                labels = torch.zeros(1, 1, *phase.patch, device=setting.device)
                if compiled:
                    network.compile()
                    network.supervised = torch.compile(network.supervised)

                def step(phase=phase, optimiser=optimiser, images=images, labels=labels, training=training) -> None:
                    training_step(phase, optimiser, images=images, labels=labels, training=training)

                began = time.perf_counter()
                step()
                setting.synchronise()
                first = time.perf_counter() - began
                seconds = timed(step, setting, repeats=8)
                held = peak_bytes(step, setting) / 2**20
                part.row(network=name, compiled=compiled, steps_per_s=1 / seconds, first_s=first, peak_MiB=held)
                del phase, optimiser, network, step
            setting.release()
