"""Do the papers' networks learn on real thick slices? Twenty steps of each on a patch of Task27_ACDC, full or narrow.

VOXNAS_DATA (or --data) is a folder that contains Task27_ACDC.
"""

import argparse
import os
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch

from search.config import load_study
from search.config.training_section import Training
from search.runner.evaluate import seed_everything
from search.runner.plan import make_plan, prepared_data
from search.training.patches import PatchSource
from search.training.schemes import make_phases, training_step
from search.training.step import MEMORY_FORMAT, make_optimiser, to_memory_format
from space.architecture import Architecture
from space.build import build
from space.encoders import dense_channels
from space.presets import PRESETS

STEPS = 20
PATCHES = {  # the least that 32 or 64 projected tokens allow, else a thin slab
    "unetrpp_synapse": (32, 128, 128),
    "unetrpp_acdc": (16, 128, 128),
    "unetrpp_lung": (16, 128, 128),
    "unetrpp_tumor": (64, 128, 128),
    "meunet": (16, 64, 64),
    "meunet_cascade": (16, 64, 64),
}
SLAB = (6, 96, 96)
SMALL = {"unetrpp": (16, 64, 64), "meunet": (16, 32, 32)}  # for the narrow ones
SMALL_SLAB = (6, 64, 64)
ONE_PER_PAPER = ("nnunet", "csam_unet", "joint_denseunet", "sau_net", "meunet", "unetrpp_tumor")  # the fastest
STUDY = """\
name: presets
data: {path: Task27_ACDC, group: patient\\d+}
space: {base: %s, open: [upsampling]}
objectives: {dice: maximize}
"""


def narrowed(architecture: Architecture) -> Architecture:
    """Return the same network with few channels and projected tokens, for fast tests."""
    values = dict(architecture.entries)
    if architecture["encoder"] == "densenet":
        layers = (1, 2, 1, 1)
        channels = dense_channels(stem=16, layers=layers, growth=8)
        values |= {"dense_layers": layers, "dense_growth": 8, "channels": channels, "decoder_channels": (8, 8, 16, 16)}
    else:
        values["channels"] = tuple(min(max(16, channels // 8), 32) for channels in values["channels"])
        if "decoder_channels" in values:
            values["decoder_channels"] = (16,) * len(values["decoder_channels"])
    values |= {name: 4 for name in values if name.startswith("epa.projection@")}
    return Architecture.of(values)


def narrow_patch(name: str) -> tuple[int, int, int]:
    """Return the patch of a paper's narrowed network."""
    return SMALL.get(name.partition("_")[0], SMALL_SLAB)


def losses(name: str, data_root: Path, folder: Path, *, narrow: bool, steps: int = STEPS) -> list[list[float]]:
    """Train a paper's network for some steps per phase on one labelled patch; return the losses per phase."""
    file = folder / f"{name}.yaml"
    file.write_text(STUDY % name)
    plan = make_plan(load_study(file, data_root=data_root), runs=folder / "runs")
    patch = narrow_patch(name) if narrow else PATCHES.get(name, SLAB)
    architecture = PRESETS[name].architecture
    context = replace(plan.context, patch=patch)
    training = Training(patch=patch, batch=1, learning_rate=1e-3, precision="float32", foreground=1.0)
    seed_everything(0)
    network = to_memory_format(build(narrowed(architecture) if narrow else architecture, context)).train()
    prepared, found = prepared_data(plan), []
    for phase in make_phases(network, patch=patch, training=training):
        optimiser = make_optimiser(phase.trained, training)
        source = PatchSource(prepared, cases=plan.fold.train, patch=phase.patch, training=training, seed=0)
        found.append([])
        images, labels = source.batch_at(0)
        images = images.contiguous(memory_format=MEMORY_FORMAT)
        for _ in range(steps):
            loss = training_step(phase, optimiser, images=images, labels=labels, training=training)
            found[-1].append(float(loss))
    return found


def falls(values: list[float]) -> bool:
    """Return whether the mean loss of the last quarter is below that of the first."""
    first, last = ends(values)
    return last < first


def ends(values: list[float]) -> tuple[float, float]:
    """Return the means of the first and of the last quarter."""
    quarter = len(values) // 4
    return statistics.mean(values[:quarter]), statistics.mean(values[-quarter:])


def main() -> None:
    """Print each preset's first and last losses."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("VOXNAS_DATA", ".")))
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    with tempfile.TemporaryDirectory() as folder:
        for name in PRESETS:
            if options.only in name:
                began = time.perf_counter()
                for number, values in enumerate(losses(name, options.data, Path(folder), narrow=False)):
                    first, last = ends(values)
                    trend = "falls" if falls(values) else "DOES NOT FALL"
                    took = time.perf_counter() - began
                    print(
                        f"{name:16} phase {number}: first losses {first:.3f}, last {last:.3f}: {trend} ({took:.0f} s)",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
