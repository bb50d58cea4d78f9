"""Trials without training, for tests and benchmarks of the cluster: workers import this file, but not torch."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from search.runner.cluster.latency_probe import Stopwatch
from search.runner.cluster.trainable import Trial
from search.trials.activity import Activity
from search.trials.epochs import Epoch
from search.trials.records import Latency, MeasuredMemory, Measurement

HERE = Path(__file__).parent
HELD, RELEASED = "held", "released"  # files of a study of `Held` trials


class Quick(Stopwatch):
    """Measures latency in an instant."""

    def time(self, architecture):
        from search.costs import latency

        latency.MAX_SECONDS["cpu"] = 0.05
        return super().time(architecture)


class Watch(Stopwatch):
    """Times nothing."""

    def name(self):
        return "a device"

    def time(self, architecture):
        return Latency(0.01, 0.001, 20, True, "a device", self.threads, "float32")


class Sleeper(Trial):
    """Sleeps `epoch_s` per epoch, and stores its progress in its folder as a training does."""

    epoch_s = 0.05

    def progress(self, job):
        file = Path(job.folder) / "epochs.jsonl"
        file.parent.mkdir(parents=True, exist_ok=True)
        last = int(file.read_text() or 0) if file.exists() else 0
        epochs = tuple(Epoch(number + 1, 1.0, 0.5, 0.05) for number in range(last))
        while len(epochs) < job.training.epochs:
            self.before(job, len(epochs) + 1)
            time.sleep(self.epoch_s)
            epochs = (*epochs, Epoch(len(epochs) + 1, 1.0, 0.5, self.epoch_s))
            file.write_text(str(len(epochs)))
            if len(epochs) < job.training.epochs:
                yield Measurement("running", costs=job.costs, epochs=epochs)
        yield self.done(job)

    def done(self, job):
        epochs = tuple(Epoch(number + 1, 1.0, 0.5, self.epoch_s) for number in range(job.training.epochs))
        dice = 0.5 + int(Path(job.folder).name) % 50 / 100
        imported = ",".join(sorted({"torch", "monai"} & set(sys.modules)))
        return Measurement("trained", costs=job.costs, epochs=epochs, dice=dice, versions=(("imported", imported),))

    def before(self, job, epoch):
        """Hook for a fault before an epoch."""

    def first_time(self, job, what):
        """Return True once per study."""
        mark = Path(job.folder).parent / what
        fresh = not mark.exists()
        mark.touch()
        return fresh


class Held(Sleeper):
    """Waits before its third epoch until the study is released; `held` counts the trials that waited."""

    def before(self, job, epoch):
        study = Path(job.folder).parents[1]
        if epoch != 3 or (study / RELEASED).exists():
            return
        with (study / HELD).open("a") as file:
            file.write(f"{job.folder}\n")
        while not (study / RELEASED).exists():
            time.sleep(0.05)


def held(folder):
    """Return how many trials of a study have waited for its release."""
    file = folder / HELD
    return len(file.read_text().splitlines()) if file.exists() else 0


def release(folder):
    """Let the held trials of a study continue, and those that start later."""
    (folder / RELEASED).touch()


class Troubled(Sleeper):
    """All trials report their steps, and all but the last one have trouble, each its own.

    Trial 0 runs out of memory unless it is alone, trial 1 loses its process in its second epoch, trial 2 always runs
    out of memory, trial 3 hangs in its second epoch, trial 4 loses its process at every attempt, trial 5 raises an
    error. Trials 0 and 6 take long enough for their steps to be seen.
    """

    def progress(self, job):
        alone = self.config["resources"].get("GPU") == 1.0 or self.config["resources"]["memory"] >= 3 * 2**30
        number = int(Path(job.folder).name)
        if number == 2 or (number == 0 and not alone):
            held = MeasuredMemory(5 * 2**30, 6 * 2**30)
            yield Measurement("failed", "out of memory: no more", measured_memory=held, fault="memory")
        else:
            yield from super().progress(job)

    def before(self, job, epoch):
        self.post(Activity("training", epoch=epoch, epochs=job.training.epochs, done=1, total=4))
        match int(Path(job.folder).name):
            case 0 | 6:
                time.sleep(1.5)
            case 1 if epoch == 2 and self.first_time(job, "killed"):
                os.kill(os.getpid(), signal.SIGKILL)
            case 3 if epoch == 2:
                time.sleep(10_000)
            case 4:
                os.kill(os.getpid(), signal.SIGKILL)
            case 5:
                raise ZeroDivisionError("one over nothing")  # no training raises it


class Noted(Sleeper):
    """Records when it ran on which GPU; stays longer than a process takes to start, so that all workers get trials."""

    epoch_s = 0.0

    def before(self, job, epoch):
        import ray

        context = ray.get_runtime_context()
        cards = ",".join(context.get_accelerator_ids().get("GPU", []))
        share = self.config["resources"].get("GPU", 0.0)
        begun, folder = time.time(), Path(job.folder)
        (folder.parent / f"started-{folder.name}").touch()
        self.stay(folder.parent)
        with (folder.parent / "notes").open("a") as file:
            row = (f"{context.get_node_id()[:6]}:{cards}", share, begun, time.time(), job.costs.memory_bytes)
            file.write(" ".join(map(str, row)) + "\n")

    def stay(self, folder):
        """Stay on the GPU."""
        time.sleep(20.0)


class NotedTogether(Noted):
    """Stays until four trials have started, and a second more, in which a fifth would start."""

    together = 4

    def stay(self, folder):
        end = time.monotonic() + 120.0
        while len(list(folder.glob("started-*"))) < self.together and time.monotonic() < end:
            time.sleep(0.05)
        time.sleep(1.0)


class NotedInPairs(NotedTogether):
    """Stays until two trials have started."""

    together = 2
