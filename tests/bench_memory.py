"""Predicted training memory compared with measurements: each preset and 50 random networks; and the time to predict.

On a GPU the measurement is CUDA's peak of allocated memory, at the papers' patches if they fit; on a CPU the live bytes
of a real step, at patches reduced until a step needs less than 4 GiB.
"""

import argparse
import statistics
import time
from dataclasses import dataclass, replace
from random import Random

import torch
from bench_figures import report

from search.config.training_section import Training
from search.costs.memory import inference_memory_bytes, measure_training_memory, training_memory_bytes
from space.architecture import Architecture
from space.build import build
from space.canonical import Context
from space.feasible import why_not
from space.narrow import narrow
from space.presets import PRESETS

DEMO = Context((8, 48, 48), (8.0, 1.5, 1.5), 1, 3)
LIMITS = {"cpu": 0.01, "cuda": 0.05}
SECONDS, SYNAPSE_SECONDS = 0.3, 2.0
ON_CPU = 4 * 2**30


@dataclass(frozen=True)
class Row:
    """A network's predicted and measured bytes."""

    name: str
    predicted: int
    measured: int

    @property
    def error(self) -> float:
        """Relative error, signed."""
        return self.predicted / self.measured - 1


def fitted(architecture: Architecture, context: Context, most: int) -> Context | None:
    """Halve the plane until a step fits; None if no such patch can be built."""
    while training_memory_bytes(architecture, context, Training(patch=context.patch, batch=1)) > most:
        depth, height, width = context.patch
        context = replace(context, patch=(depth, height // 2, width // 2))
        if why_not(architecture, context):
            return None
    return context


def random_networks(count: int) -> list[Architecture]:
    """Sample buildable networks of the whole space at the demonstration's patch."""
    space = narrow(DEMO, placement="each", fix={}, choices={})
    rng, found = Random(0), []
    while len(found) < count:
        architecture = space.architecture(space.sample(rng))
        if why_not(architecture, DEMO) is None:
            found.append(architecture)
    return found


def main() -> None:
    """Print one line per network, then errors and times with their limits."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--random", type=int, default=50)
    parser.add_argument("--presets", action=argparse.BooleanOptionalAction, default=True)
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_num_threads(1)
    rows = []

    def measured(architecture: Architecture, context: Context, training: Training) -> int:
        return measure_training_memory(build(architecture, context), context, training, device=device).allocated_bytes

    for preset in PRESETS.values() if options.presets else ():
        most = ON_CPU if device.type == "cpu" else int(0.8 * torch.cuda.get_device_properties(device).total_memory)
        context = fitted(preset.architecture, preset.context, most)
        if context is None:
            print(f"{preset.name:18} no patch fits")
            continue
        training = Training(patch=context.patch, batch=1)
        predicted = training_memory_bytes(preset.architecture, context, training)
        rows.append(Row(preset.name, predicted, measured(preset.architecture, context, training)))
        show(rows[-1], "x".join(map(str, context.patch)))
    training, seconds = Training(patch=DEMO.patch, batch=2), []
    for number, architecture in enumerate(random_networks(options.random)):
        began = time.process_time()
        predicted = training_memory_bytes(architecture, DEMO, training)
        inference_memory_bytes(architecture, DEMO, training)
        seconds.append(time.process_time() - began)
        rows.append(Row(f"random {number}", predicted, measured(architecture, DEMO, training)))
        show(rows[-1], architecture.describe()[:70])
    worst = max(abs(row.error) for row in rows)
    limit = LIMITS[device.type]
    report(
        f"worst relative error of predicted training memory, {len(rows)} networks on {device.type}", worst, limit=limit
    )
    if seconds:
        report_seconds("predicting both memories of a random network at the demo's patch", seconds, SECONDS)
    synapse = PRESETS["unetrpp_synapse"]
    times = []
    for _ in range(4):
        began = time.process_time()
        training_memory_bytes(synapse.architecture, synapse.context, Training(patch=synapse.context.patch))
        times.append(time.process_time() - began)
    report_seconds("predicting the training memory of unetrpp_synapse at 64x128x128", times[1:], SYNAPSE_SECONDS)


def show(row: Row, note: str) -> None:
    """Print a network's line."""
    print(
        f"{row.name:18} {row.predicted / 2**20:9.1f} MiB predicted {row.measured / 2**20:9.1f} measured "
        f"{row.error:+.3%}  {note}",
        flush=True,
    )


def report_seconds(what: str, seconds: list[float], limit: float) -> None:
    """Report the median and the most of processor seconds; the limit holds for each."""
    report(f"{what}, median", statistics.median(seconds), "s of one core", limit=limit)
    report(f"{what}, most", max(seconds), "s of one core", limit=limit)


if __name__ == "__main__":
    main()
