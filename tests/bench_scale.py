"""A study of 10,000 trials on 1,024 GPUs, simulated: what it costs the driver and the database, and where it breaks.

The real driver and store run with 1,000 and with 10,000 records; each operation's CPU time is measured. A queue in
virtual time then serves 1,024 simulated GPUs by one driver with these times. Ray's own work is not included.
`make bench-scale` prints the tables of studies/docs/scale.md.
"""

from __future__ import annotations

import argparse
import heapq
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

from bench_figures import report
from bench_ray import HERE, WIDE, Stamps, fill, wide_plan

RECORDS = (1_000, 10_000)
RECORDED_EPOCHS = 100
SAMPLED = 40  # operations of each kind that are timed
ASKS = 100  # several choices of the known-cost proposer, each of several networks
MINUTES = (5, 15, 60, 240, 720)  # lengths of a trial
REPORTED = {  # what is printed of each time, and its limit
    "ready": ("ready", 3.0),
    "choose": ("choose, mean of 100", None),
    "choose_p95": ("choose, 95th percentile", 1.0),
    "choose_most": ("choose, longest", None),
    "start": ("start", None),
    "epoch": ("epoch", None),
    "tell": ("tell", 0.05),
}


@dataclass(frozen=True)
class Times:
    """A driver's CPU seconds: to get ready, to choose and start a trial, for an epoch's message, to finish a trial.

    The first choice fits the surrogate's scales, which later ones keep until a tenth more trainings have ended.
    """

    records: int
    ready: float
    choose: float
    choose_p95: float
    choose_most: float
    start: float
    epoch: float
    tell: float
    rss_bytes: float
    database_bytes: float

    def between(self, other: Times, records: float) -> tuple[float, float, float]:
        """Return the seconds to start a trial, for an epoch and to finish, interpolated to a number of records."""
        share = (records - self.records) / (other.records - self.records)
        pairs = (
            (self.choose + self.start, other.choose + other.start),
            (self.epoch, other.epoch),
            (self.tell, other.tell),
        )
        start, epoch, tell = (max(0.0, one + share * (more - one)) for one, more in pairs)
        return start, epoch, tell


@dataclass(frozen=True)
class Load:
    """What a simulated study asks of its driver: shares of the driver's and the GPUs' time, and rates per second."""

    hours: float
    driver: float
    gpus: float
    writes: float


def simulate(first: Times, last: Times, *, gpus: int, trials: int, trial_s: float, epochs: int) -> Load:
    """Serve GPUs from one queue in virtual time; trials take half to one and a half of `trial_s`.

    A GPU waits only for its next trial. Messages of epochs are queued, and delay the trials after them.
    """
    rng = Random(0)
    free_at = busy_s = trained_s = 0.0  # of the driver, and of all GPUs
    started = ended = messages = 0
    queue: list[tuple[float, int, str]] = [(0.0, gpu, "ask") for gpu in range(gpus)]
    while queue:
        at, gpu, kind = heapq.heappop(queue)
        start, epoch, tell = first.between(last, max(first.records, ended))
        if kind == "ask" and started == trials:
            continue
        seconds = {"ask": start, "epoch": epoch, "tell": tell}[kind]
        free_at = max(free_at, at) + seconds
        busy_s += seconds
        messages += 1
        if kind == "ask":
            started += 1
            length = trial_s * rng.uniform(0.5, 1.5)
            trained_s += length
            for number in range(1, epochs):
                heapq.heappush(queue, (free_at + length * number / epochs, gpu, "epoch"))
            heapq.heappush(queue, (free_at + length, gpu, "tell"))
        elif kind == "tell":
            ended += 1
            heapq.heappush(queue, (free_at, gpu, "ask"))
    return Load(free_at / 3600, busy_s / free_at, trained_s / (gpus * free_at), messages / free_at)


def measured(folder: Path, records: int, *, running: int, proposer: str) -> Times:
    """Measure a driver in a process of its own."""
    plan = wide_plan(folder, text=WIDE.replace("epochs: 1,", f"epochs: {RECORDED_EPOCHS},").replace("random", proposer))
    fill(plan, records, epochs=RECORDED_EPOCHS)
    database = (plan.folder / "study.db").stat().st_size
    command = [sys.executable, __file__, "--measure", plan.loaded.file, plan.runs, "--running", str(running)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE.parent), str(HERE)])}
    done = subprocess.run([str(each) for each in command], capture_output=True, text=True, env=environment)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return Times(records=records, database_bytes=database, **json.loads(done.stdout.splitlines()[-1]))


def measure(file: Path, runs: Path, *, running: int) -> dict[str, float]:
    """Open a driver on a filled database, start trials without training them, and time its operations."""
    from search.config import load_study
    from search.runner import local
    from search.runner.opening import open_driver
    from search.runner.plan import make_plan, prepared_data
    from search.runner.pricer import Pricer
    from search.runner.run import search_ask
    from search.runner.sampling import sample_buildable
    from search.trials.epochs import Epoch
    from search.trials.records import Costs, Latency, Measurement, TrainingRequest

    class FreePricer(Pricer):
        def __call__(self, architecture):
            latency = Latency(0.01, 0.001, 20, True, "a device", 1, "float32")
            cost = 10**6 + hash(architecture) % 10**8
            return self.known.setdefault(architecture, Costs(1, 1, cost, 1, latency))

        known_before = __call__

    class FreeExecutor(local.LocalExecutor):
        def pricer(self, plan):
            return FreePricer(plan, "cpu", None)

    plan = make_plan(load_study(file), runs=runs)
    prepared_data(plan)
    import search.proposers.known_cost  # noqa: F401, so that its import counts neither as memory nor as time

    before = resident_bytes()
    with timed() as ready:
        driver = open_driver(plan, Stamps(), FreeExecutor(plan))
        driver.store.orphaned_trial()
    ask, rng, started = search_ask(driver, 10**6), Random(2), []
    starts = []
    while len(started) < running:
        decisions = sample_buildable(plan.space, rng)
        request = TrainingRequest(plan.space.architecture(decisions), 0, 0, tuple(decisions.items()))
        with timed() as start:
            started.append(driver.start(request))
        starts.append(start.seconds)
    asks = []
    for _ in range(ASKS):
        with timed() as asked:
            started.append(driver.next(ask).record)
        asks.append(max(0.0, asked.seconds - statistics.mean(starts[-SAMPLED:])))
    epochs = tuple(Epoch(number, 0.5, 0.5, 30.0, 30.0) for number in range(1, RECORDED_EPOCHS + 1))
    half, messages, tells = RECORDED_EPOCHS // 2, [], []
    for record in started[:SAMPLED]:
        so_far = Measurement("running", costs=record.measurement.costs, epochs=epochs[:half])
        driver.on_progress(record, so_far)
        with timed() as message:  # one epoch more, as a worker sends it
            driver.on_progress(record, replace(so_far, epochs=epochs[: half + 1]))
        messages.append(message.seconds)
    for record in started[:SAMPLED]:
        so_far = Measurement("running", costs=record.measurement.costs, epochs=epochs[:-1])
        driver.on_progress(record, so_far)
        trained = replace(so_far, state="trained", epochs=epochs, dice=0.5)
        with timed() as tell:
            driver.finish(record, driver.on_progress(record, trained))
        tells.append(tell.seconds)
    start_s = statistics.mean(starts[-SAMPLED:])
    return {
        "ready": ready.seconds,
        "choose": statistics.mean(asks),
        "choose_p95": statistics.quantiles(asks, n=20)[-1],
        "choose_most": max(asks),
        "start": start_s,
        "epoch": statistics.mean(messages),
        "tell": statistics.mean(tells),
        "rss_bytes": resident_bytes() - before,
    }


class timed:  # noqa: N801, a context
    """Measures the CPU seconds of its block."""

    def __enter__(self):
        self.began = time.process_time()
        return self

    def __exit__(self, *error):
        self.seconds = time.process_time() - self.began


def resident_bytes() -> int:
    """Return the bytes of this process in memory."""
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) * 1024


def main() -> None:
    """Measure, simulate and print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--measure", nargs=2, type=Path)
    parser.add_argument("--running", type=int, default=1024)
    parser.add_argument("--proposer", default="known-cost")
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(*options.measure, running=options.running)))
        return
    found = []
    for records in RECORDS:
        with tempfile.TemporaryDirectory() as folder:
            found.append(measured(Path(folder), records, running=options.running, proposer=options.proposer))
        print(json.dumps(found[-1].__dict__), flush=True)
    first, last = found
    for name, (what, limit) in REPORTED.items():
        what = f"driver of 10,000 records of {RECORDED_EPOCHS} epochs: {what}"
        report(what, getattr(last, name), "s of one core", limit=limit)
    report("memory of this driver over its imports", last.rss_bytes / 2**20, "MiB", limit=500.0)
    report("its database", last.database_bytes / 2**20, "MiB")
    print("| a trial takes | epochs | hours | driver busy | GPUs busy | writes per second |")
    print("|---|---|---|---|---|---|")
    for epochs in (RECORDED_EPOCHS, 20):
        for minutes in MINUTES:
            load = simulate(first, last, gpus=options.running, trials=10_000, trial_s=60 * minutes, epochs=epochs)
            print(
                f"| {minutes} min | {epochs} | {load.hours:.1f} | {load.driver:.0%} | {load.gpus:.0%} |"
                f" {load.writes:.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
