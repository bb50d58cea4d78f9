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
from search.trials.records import Epoch, Latency, MeasuredMemory, Measurement

HERE = Path(__file__).parent


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


class Slow(Sleeper):
    """A trial that takes a while."""

    epoch_s = 0.5


class Talkative(Sleeper):
    """A trial that reports its steps, and takes long enough that they are seen."""

    epoch_s = 3.0

    def before(self, job, epoch):
        self.post(Activity("training", epoch=epoch, epochs=job.training.epochs, done=1, total=4))


class Killed(Sleeper):
    """Trial 1 loses its process in its second epoch."""

    def before(self, job, epoch):
        if job.folder.endswith("000001") and epoch == 2 and self.first_time(job, "killed"):
            os.kill(os.getpid(), signal.SIGKILL)


class AlwaysKilled(Sleeper):
    """Trial 1 loses its process at every attempt."""

    def before(self, job, epoch):
        if job.folder.endswith("000001"):
            os.kill(os.getpid(), signal.SIGKILL)


class Hanging(Sleeper):
    """Trial 1 hangs for ever in its second epoch."""

    def before(self, job, epoch):
        if job.folder.endswith("000001") and epoch == 2:
            time.sleep(10_000)


class Hungry(Sleeper):
    """Trial 0 runs out of memory unless it is alone, trial 1 always; records its resources."""

    def progress(self, job):
        alone = self.config["resources"].get("GPU") == 1.0 or self.config["resources"]["memory"] >= 3 * 2**30
        number = int(Path(job.folder).name)
        if number == 1 or (number == 0 and not alone):
            held = MeasuredMemory(5 * 2**30, 6 * 2**30)
            yield Measurement("failed", "out of memory: no more", measured_memory=held, fault="memory")
        else:
            yield from super().progress(job)


class Wrong(Sleeper):
    """Trial 1 raises an error that no training raises."""

    def before(self, job, epoch):
        if job.folder.endswith("000001"):
            raise ZeroDivisionError("one over nothing")


class Noted(Sleeper):
    """Records when it ran on which GPU; runs longer than a process takes to start, so that all workers get trials."""

    epoch_s = 20.0

    def before(self, job, epoch):
        import ray

        context = ray.get_runtime_context()
        cards = ",".join(context.get_accelerator_ids().get("GPU", []))
        share = self.config["resources"].get("GPU", 0.0)
        with (Path(job.folder).parent / "notes").open("a") as file:
            file.write(f"{context.get_node_id()[:6]}:{cards} {share} {time.time()} {job.costs.memory_bytes}\n")
