"""The training loop in turns in one run: bare PyTorch, ours light, ours with nnU-Net's recipe, ours without changes.

Run: make bench-training. The bare loop holds its batches in memory and does nothing but steps; ours cuts and augments
patches, schedules the learning rate, clips gradients and sums the loss. Limits: the light recipe at 0.95 of the bare
loop's steps, nnU-Net's at 0.85 of ours without augmentation, also per CPU second, which with one thread hardly depends
on what else runs. Then batches a second of each augmentation on its own, and on CUDA the share of time that the device
is busy (limit 0.9) with a 32-channel network at 128^3, batch 2.
"""

import argparse
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
from augment_candidates import batchgenerators, ours, with_monai
from bench_figures import report
from pydantic import TypeAdapter

from search.config.augment import Augment, Noise
from search.config.training_section import Training, TrainingField
from search.data.check import check_folder
from search.data.phantom import write_phantom
from search.data.prepare import prepare
from search.data.prepared import Prepared
from search.runner.evaluate import context_of
from search.runner.train import train_epoch
from search.runner.watch import Watch
from search.training.patches import PatchSource
from search.training.schemes import make_phases
from search.training.step import MEMORY_FORMAT, make_loss, make_optimiser, to_memory_format
from search.trials.job import Job, Task
from space.build import build
from space.canonical import Context
from space.narrow import narrow

LIGHT_LIMIT, FULL_LIMIT, BUSY_LIMIT = 0.95, 0.85, 0.9
PATCH = (32, 48, 32)
PLAIN = {
    "encoder": "plain",
    "levels": 4,
    "width": 8,
    "growth": 2,
    "width_cap": 64,
    "repeats": 2,
    "kernels": "3d",
    "norm": "instance",
    "activation": "leakyrelu",
    "dropout": 0.0,
    "downsampling": "strided",
    "upsampling": "transposed",
    "skip": "concat",
    "deep_supervision": False,
    "attention": "none",
}
UNCHANGED = Augment(scale_intensity=0.0, shift_intensity=0.0, noise=Noise(p=0.0))


class Loop:
    """One recipe's training of one network, an epoch at a time."""

    def __init__(self, prepared: Prepared, training: Training, *, device: torch.device, threads: int, **axes) -> None:
        cases = tuple(case.name for case in prepared.cases)
        spacing = (1.0, 1.0, 1.0)
        context = Context(training.patch, spacing, 1, len(prepared.labels))
        space = narrow(context, placement="each", fix={**PLAIN, **axes}, choices={})
        task = Task(prepared.folder, 1, prepared.labels, spacing, cases, ())
        architecture = space.architecture(space.complete({}))
        self.job = Job(architecture, task, training, (), 0, 0, str(device), threads, "unused")
        self.network = to_memory_format(build(architecture, context_of(self.job))).to(device).train()
        (self.phase,) = make_phases(self.network, patch=training.patch, training=training)
        self.optimiser = make_optimiser(self.network, training)
        self.watch = Watch()
        self.watch.start(training, ())
        self.source = PatchSource(prepared, cases=cases, patch=training.patch, training=training, seed=0, device=device)

    def epoch(self, number: int) -> None:
        span = (0, self.job.training.epochs)
        steps = self.job.training.steps_per_epoch
        batches = self.source.batches(number * steps, (number + 1) * steps)
        train_epoch(self.phase, self.optimiser, batches, job=self.job, number=number, span=span, watch=self.watch)


class BareLoop(Loop):
    """Return a plain training step: forward, loss, backward, optimiser step."""

    def epoch(self, number: int) -> None:
        training = self.job.training
        if not number:
            batches = [self.source.batch_at(place) for place in range(training.steps_per_epoch)]
            self.batches = [(images.contiguous(memory_format=MEMORY_FORMAT), labels) for images, labels in batches]
        loss = make_loss(training)
        for images, labels in self.batches:
            self.optimiser.zero_grad(set_to_none=True)
            loss(self.network.supervised(images), labels).backward()
            self.optimiser.step()


def training_of(recipe: str, *, steps: int, patch=PATCH) -> Training:
    values = {"recipe": recipe, "patch": list(patch), "batch": 2, "epochs": 1000, "steps_per_epoch": steps}
    return TypeAdapter(TrainingField).validate_python(values)


def make_data(folder: Path, *, shape: tuple[int, int, int]) -> Prepared:
    write_phantom(folder / "phantom", cases=8, shape=shape, spacing=(1.0, 1.0, 1.0))
    dataset, facts = check_folder(folder / "phantom", group=None)
    return prepare(dataset, facts, spacing="median", normalisation="auto", cache_dir=folder / "cache")


def compare_loops(prepared: Prepared, options: argparse.Namespace) -> None:
    full = training_of("nnunet-2.8", steps=options.steps)
    light = training_of("light", steps=options.steps)
    device = {"device": torch.device("cpu"), "threads": options.threads}
    loops = {
        "bare": BareLoop(prepared, light, **device),
        "light": Loop(prepared, light, **device),
        "unchanged": Loop(prepared, replace(full, augment=UNCHANGED), **device),
        "full": Loop(prepared, full, **device),
    }
    speeds: dict[str, list[float]] = {name: [] for name in loops}
    frugality: dict[str, list[float]] = {name: [] for name in loops}  # steps per CPU second, of all threads
    for number in range(options.rounds + 1):
        for name, loop in loops.items():
            began, cpu_began = time.perf_counter(), time.process_time()
            loop.epoch(number)
            if number:  # the first round warms up
                speeds[name].append(options.steps / (time.perf_counter() - began))
                frugality[name].append(options.steps / (time.process_time() - cpu_began))
    print(", ".join(f"{name} {statistics.median(each):.2f} steps/s" for name, each in speeds.items()))
    light_share, full_share = ratio(speeds["light"], speeds["bare"]), ratio(speeds["full"], speeds["unchanged"])
    report("steps per second, light recipe over a bare loop", light_share, limit=LIGHT_LIMIT, at_least=True)
    report("steps per second, nnunet-2.8 over the same loop unchanged", full_share, limit=FULL_LIMIT, at_least=True)
    per_cpu = ratio(frugality["full"], frugality["unchanged"])
    report("steps per CPU second, nnunet-2.8 over the same loop unchanged", per_cpu, limit=FULL_LIMIT, at_least=True)


def compare_augmentations(prepared: Prepared, options: argparse.Namespace) -> None:
    """Print batches a second of each implementation, drawn as fast as they come."""
    source = Loop(prepared, training_of("nnunet-2.8", steps=1), device=torch.device("cpu"), threads=1).source
    workers = options.threads
    streams = {
        "ours, in a thread": ours(source),
        f"batchgeneratorsv2, {workers} workers": batchgenerators(source, workers=workers),
        f"MONAI, {workers} workers": with_monai(source, workers=workers),
    }
    for name, stream in streams.items():
        for _ in range(8):
            next(stream)
        began, count = time.perf_counter(), 0
        while time.perf_counter() - began < options.seconds:
            next(stream)
            count += 1
        report(f"augmentation alone: {name}", count / (time.perf_counter() - began), "batches/s")
        if hasattr(stream, "close"):
            stream.close()


def busy_share(*, device: torch.device, patch=(128, 128, 128), width: int = 32, steps: int = 20) -> dict[str, float]:
    """Train with nnU-Net's recipe on CUDA; return the device's busy share, steps a second, and those unchanged."""
    with tempfile.TemporaryDirectory() as folder:
        prepared = make_data(Path(folder), shape=(160, 160, 144))
        full = training_of("nnunet-2.8", steps=steps, patch=patch)
        axes = {"width": width, "width_cap": 320, "levels": 5, "deep_supervision": True}
        loops = [
            Loop(prepared, each, device=device, threads=torch.get_num_threads(), **axes)
            for each in (full, replace(full, augment=UNCHANGED))
        ]
        speeds = []
        for loop in loops:
            loop.epoch(0)  # warms up
            torch.cuda.synchronize(device)
            began = time.perf_counter()
            loop.epoch(1)
            torch.cuda.synchronize(device)
            speeds.append(steps / (time.perf_counter() - began))
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
            began = time.perf_counter()
            loops[0].epoch(2)
            torch.cuda.synchronize(device)
            wall_us = 1e6 * (time.perf_counter() - began)
    spans = [(each.time_range.start, each.time_range.end) for each in profile.events()]
    return {"busy": covered(spans) / wall_us, "steps_per_s": speeds[0], "steps_per_s_unchanged": speeds[1]}


def covered(spans: list[tuple[float, float]]) -> float:
    """Return the length of a union of intervals."""
    total, end = 0.0, float("-inf")
    for first, last in sorted(spans):
        total += max(0.0, last - max(first, end))
        end = max(end, last)
    return total


def ratio(mine: list[float], its: list[float]) -> float:
    return statistics.median(one / other for one, other in zip(mine, its, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=10.0)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        prepared = make_data(Path(folder), shape=(56, 56, 40))
        compare_loops(prepared, options)
        compare_augmentations(prepared, options)
    if torch.cuda.is_available():
        found = busy_share(device=torch.device("cuda"))
        print(", ".join(f"{name} {value:.2f}" for name, value in found.items()))
        report("busy share of the device", found["busy"], limit=BUSY_LIMIT, at_least=True)


if __name__ == "__main__":
    main()
