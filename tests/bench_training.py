"""The training loop beside a bare PyTorch loop: the same network, loss, batch and threads, in turns in one run.

Run: make bench-training. The bare loop holds its batches in memory and does nothing but steps; ours crops, augments
and prefetches patches, schedules the learning rate, clips gradients and sums the loss. Limit: 0.95 of its steps.
"""

import argparse
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch

from search.config.schema import Training
from search.data.check import check_folder
from search.data.phantom import write_phantom
from search.data.prepare import prepare
from search.runner.evaluate import _train_epoch, context_of
from search.training.patches import PatchSource
from search.training.schemes import make_phases
from search.training.step import LAYOUT, SupervisedLoss, lay_out, make_optimiser
from search.trials.records import Job, Task
from space.build import build
from space.canonical import Context
from space.narrow import narrow

LIMIT = 0.95
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


def bare_loop(network, optimiser, batches) -> None:
    """What a researcher writes first: forward, loss, backward, step."""
    loss = SupervisedLoss()
    for images, labels in batches:
        optimiser.zero_grad(set_to_none=True)
        loss(network.supervised(images), labels).backward()
        optimiser.step()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_phantom(root / "phantom", cases=8, shape=(56, 56, 40), spacing=(1.0, 1.0, 1.0))
        dataset, facts = check_folder(root / "phantom", group=None)
        prepared = prepare(dataset, facts, spacing="median", normalisation="auto", cache_dir=root / "cache")
        compare(prepared, tuple(case.name for case in prepared.cases), options)


def compare(prepared, cases, options) -> None:
    training = replace(Training(patch=(32, 48, 32)), epochs=1000, steps_per_epoch=options.steps)
    context = Context(training.patch, (1.0, 1.0, 1.0), 1, len(prepared.labels))
    space = narrow(context, placement="each", fix=PLAIN, choices={})
    task = Task(prepared.folder, 1, prepared.labels, (1.0, 1.0, 1.0), cases, ())
    job = Job(space.architecture(space.complete({})), task, training, (), 0, 0, "cpu", options.threads, "unused")
    source = PatchSource(prepared, cases=cases, patch=training.patch, training=training, seed=0)
    networks = [lay_out(build(job.architecture, context_of(job))).train() for _ in range(2)]
    (phase,) = make_phases(networks[1], patch=training.patch, training=training)
    optimisers = [make_optimiser(network, training) for network in networks]
    batches = [source.batch_at(number) for number in range(options.steps)]
    batches = [(images.contiguous(memory_format=LAYOUT), labels) for images, labels in batches]
    ours, bare = [], []
    for number in range(options.rounds + 1):
        began = time.perf_counter()
        bare_loop(networks[0], optimisers[0], batches)
        middle = time.perf_counter()
        _train_epoch(phase, optimisers[1], source, job=job, number=number, span=(0, training.epochs))
        if number:  # the first round warms up
            bare.append(options.steps / (middle - began))
            ours.append(options.steps / (time.perf_counter() - middle))
    ratio = statistics.median(mine / its for mine, its in zip(ours, bare, strict=True))
    print(f"bare loop {statistics.median(bare):.2f} steps/s, ours {statistics.median(ours):.2f} steps/s")
    print(
        f"ratio {ratio:.3f} (median of {options.rounds} pairs; limit {LIMIT}): {'met' if ratio >= LIMIT else 'MISSED'}"
    )


if __name__ == "__main__":
    main()
