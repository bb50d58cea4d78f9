"""The cluster's overhead: seconds per empty trial, a driver with 10,000 records, 64 busy workers, packing.

`make bench-ray` prints all figures with their limits; arguments (platform, driver, busy, packing) select some.
"""

from __future__ import annotations

import json
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from bench_figures import report
from cluster_trials import HERE, Noted, Sleeper, Watch
from conftest import write_study

TRIALS = 40
AT = "2026-01-01T00:00:00+00:00"  # when records were written
WIDE = """\
name: wide
data: {path: phantom, folds: 3}
space: {fix: {pretrained: false, attention@decoders: none, levels: 4, encoder: plain, stages: single}}
objectives: {dice: maximize, memory: minimize}
training: {patch: [8, 64, 64], batch: 1, epochs: 1, steps_per_epoch: 4, precision: float32}
search: {proposer: random, trials: 3}
executor: {device: cpu, threads: 1}
"""


def wide_plan(folder, *overrides, text=WIDE):
    from search.config import load_study
    from search.runner.plan import make_plan

    made = write_study(Path(folder), text)
    return make_plan(load_study(made.file, overrides=overrides), runs=made.runs)


class Nothing(Sleeper):
    """A trial without training; records when it ended."""

    epoch_s = 0.0


def free_executor(plan, cluster, trial, memory_bytes=10 * 2**20):
    """An executor with known prices, as of networks that were priced before."""
    from search.runner.cluster.executor import RayExecutor
    from search.runner.pricer import Pricer
    from search.trials.records import Costs, Latency

    class FreePricer(Pricer):
        def __call__(self, architecture):
            cost = memory_bytes + hash(architecture) % 2**20
            latency = Latency(0.01, 0.001, 20, True, "a device", 1, "float32")
            return self.known.setdefault(architecture, Costs(1000, 1000, cost, cost, latency))

        def known_before(self, architecture):
            return self(architecture)

        def keep(self, architecture, costs):
            self.known[architecture] = costs

        def close(self): ...

    class FreeExecutor(RayExecutor):
        def pricer(self, plan):
            return FreePricer(plan, "cpu", None)

    return FreeExecutor(plan, address=cluster.address, trial=trial, stopwatch=Watch)


def steady_s(stamps):
    """Return the seconds per trial from the first fifth (actors start) to the last trial."""
    first = len(stamps) // 5
    return (stamps[-1] - stamps[first]) / (len(stamps) - 1 - first)


class Stamps:
    """A view that records when trials ended."""

    def __init__(self):
        self.at, self.running, self.most = [], set(), 0

    def on_stage(self, stage, done=0, total=0): ...

    def on_resume(self, records): ...

    def on_trial_start(self, record, epochs):
        self.running.add(record.number)

    def on_activity(self, record, activity): ...

    def on_epoch(self, record, epoch): ...

    def on_trial_end(self, record, front, hypervolume):
        self.at.append(time.time())


def run(plan, executor, trials):
    from search.runner.run import run_study

    view = Stamps()
    run_study(plan, trials=trials, view=view, executor=executor)
    return view.at


def bench_platform(folder):
    from test_search_runner_cluster import start_cluster, stop_cluster

    cluster = start_cluster({"num_cpus": 1}, {"num_cpus": 1})
    plan = wide_plan(folder)
    ours = steady_s(run(plan, free_executor(plan, cluster, Nothing), TRIALS))
    from search.storage import read_records

    parameters = statistics.mean(len(record.decisions) for record in read_records(plan.url, "wide"))
    rows = [("voxnas: ask, place, tell, one-write SQLite", ours)]
    for title, searcher, reuse in (
        ("Tune, actors reused, no store", None, True),
        ("Tune, actors reused, Optuna ask(distributions) on SQLite", "ask", True),
        ("Tune's own OptunaSearch, actors reused", "own", True),
        ("Tune's own OptunaSearch as it comes", "own", False),
    ):
        rows.append((title, tune_alone(Path(folder), searcher, reuse)))
    print(f"platform: seconds per empty trial, 2 workers, {parameters:.0f} parameters per trial")
    for title, seconds in rows:
        report(f"seconds per empty trial, {title}", seconds, "s", limit=0.15 if seconds is ours else None)
    stop_cluster(cluster)


def tune_alone(folder, searcher, reuse):
    """Return the seconds per trial of Tune without voxnas; with a searcher, 40 parameters."""
    from ray import tune

    class Done(tune.Trainable):
        def setup(self, config): ...

        def reset_config(self, new_config):
            return True

        def step(self):
            return {"loss": 0.5, "done": True}

        def save_checkpoint(self, checkpoint_dir):
            return {}

        def load_checkpoint(self, checkpoint): ...

    class Follow(tune.Callback):
        def __init__(self):
            self.at = []

        def on_trial_complete(self, iteration, trials, trial, **info):
            self.at.append(time.time())

    trials = TRIALS if reuse else 10
    stamps = Follow()
    tune.Tuner(
        Done,
        param_space={},
        tune_config=tune.TuneConfig(
            search_alg=searcher and make_searcher(folder, searcher),
            num_samples=trials,
            reuse_actors=reuse,
            max_concurrent_trials=None if searcher else 2,
        ),
        run_config=tune.RunConfig(
            name=f"{searcher}-{reuse}",
            storage_path=str(folder.resolve()),
            verbose=0,
            callbacks=[stamps],
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
        ),
    ).fit()
    return steady_s(stamps.at)


def make_searcher(folder, kind):
    import optuna
    from ray import tune
    from ray.tune.search import ConcurrencyLimiter, Searcher
    from ray.tune.search.optuna import OptunaSearch

    if kind == "own":
        space = {f"axis{number}": tune.choice(list(range(8))) for number in range(40)}
        return ConcurrencyLimiter(OptunaSearch(space, metric="loss", mode="min"), max_concurrent=2)

    class AskTell(Searcher):
        def __init__(self):
            super().__init__(metric="loss", mode="min")
            optuna.logging.set_verbosity(optuna.logging.WARNING)
            url = f"sqlite:///{folder / 'ask.db'}"
            self.study = optuna.create_study(storage=url, sampler=optuna.samplers.RandomSampler(seed=0))
            one = optuna.distributions.CategoricalDistribution(list(range(8)))
            self.axes, self.trials = {f"axis{number}": one for number in range(40)}, {}

        def suggest(self, trial_id):
            self.trials[trial_id] = self.study.ask(self.axes)
            return dict(self.trials[trial_id].params)

        def on_trial_complete(self, trial_id, result=None, error=False):
            self.study.tell(self.trials.pop(trial_id), result["loss"])

    return ConcurrencyLimiter(AskTell(), max_concurrent=2)


def fill(plan, records, *, epochs=1):
    """Write trained records of so many epochs to a study's database by SQL: asking for them would take an hour."""
    from random import Random

    from search.files.digests import sealed
    from search.storage import RECORD, Store
    from search.trials.epochs import Epoch
    from search.trials.records import Costs, Latency, Measurement, Record

    store = Store.open(plan.url, plan.study.name, directions=plan.directions, values=plan.identity())
    store.write_reference({"dice": 0.0, "memory": 1e9})
    store.engine.dispose()
    rng, trials, params, attributes, values = Random(1), [], [], [], []
    latency = Latency(0.01, 0.001, 20, True, "a device", 1, "float32")
    for number in range(records):
        decisions = plan.space.sample(rng)
        dice, memory = rng.random(), rng.randrange(10**6, 10**9)
        curve = [Epoch(each, rng.random(), dice * rng.random(), 30 * rng.random(), 1.0) for each in range(1, epochs)]
        curve.append(Epoch(epochs, 0.5, dice, 1.0, 1.0))
        done = Measurement("trained", costs=Costs(1, 1, memory, 1, latency), dice=dice, epochs=curve, seconds=1.0)
        network = plan.space.architecture(decisions)
        record = Record(number, network, tuple(decisions.items()), 0, 0, done, AT, AT)
        trials.append((number + 1, number, 1, "COMPLETE", "2026-01-01 00:00:00", "2026-01-01 00:00:01"))
        attributes.append((number + 1, RECORD, json.dumps(sealed(record.to_values()))))
        values += [(number + 1, 0, dice, "FINITE"), (number + 1, 1, float(memory), "FINITE")]
        for name in decisions:
            axis = plan.space.by_name[name]
            choices = [json.dumps(each) if isinstance(each, tuple) else each for each in axis.choices]
            text = json.dumps({"name": "CategoricalDistribution", "attributes": {"choices": choices}})
            params.append((number + 1, name, 0.0, text))
    with sqlite3.connect(plan.folder / "study.db") as database:
        for table, columns, rows in (
            ("trials", "trial_id, number, study_id, state, datetime_start, datetime_complete", trials),
            ("trial_user_attributes", "trial_id, key, value_json", attributes),
            ("trial_values", "trial_id, objective, value, value_type", values),
            ("trial_params", "trial_id, param_name, param_value, distribution_json", params),
        ):
            marks = ", ".join("?" * len(columns.split(",")))
            database.executemany(f"INSERT INTO {table} ({columns}) VALUES ({marks})", rows)
    return len(params) / records


MEASURE = """
import sys, time, resource, json, statistics
sys.path.insert(0, sys.argv[3])
import numpy as np
from pathlib import Path
from dataclasses import replace
from bench_ray import Stamps, free_executor
import optuna, search.runner.local, search.runner.cluster.executor
from search.runner import driver as driving
from search.runner.run import search_ask
from search.runner.plan import make_plan
from search.runner.pricer import Pricer
from search.trials.epochs import Epoch
from search.trials.records import Costs, Latency, Measurement, Record
from search.config import load_study
plan = make_plan(load_study(Path(sys.argv[1])), runs=Path(sys.argv[2]))
driving.prepared_data(plan)
def rss():
    return next(int(l.split()[1]) for l in open("/proc/self/status") if l.startswith("VmRSS")) * 1024
class Local(search.runner.local.LocalExecutor):
    def pricer(self, plan):
        latency = Latency(0.01, 0.001, 20, True, "a device", 1, "float32")
        class Free(Pricer):
            def __call__(self, architecture):
                return self.known.setdefault(architecture, Costs(1, 1, 10**6 + hash(architecture) % 10**8, 1, latency))
            known_before = __call__
        return Free(plan, "cpu", None)
before = rss()
begun = time.perf_counter()
driver = driving.open_driver(plan, Stamps(), Local(plan))
ask = search_ask(driver, 10**6)
driver.store.orphaned_trial()
ready = time.perf_counter() - begun
asks, tells = [], []
for number in range(60):
    begun = time.perf_counter()
    answer = driver.next(ask)
    asks.append(time.perf_counter() - begun)
    record = answer.record
    done = Measurement("trained", costs=record.measurement.costs, dice=0.5, epochs=(Epoch(1, 0.5, 0.5, 1.0),))
    begun = time.perf_counter()
    driver.finish(record, driver.on_progress(record, done))
    tells.append(time.perf_counter() - begun)
p95 = lambda values: float(np.percentile(values, 95))
print(json.dumps({"ready": ready, "ask": p95(asks), "tell": p95(tells), "rss": rss() - before}))
"""


def driver_limits(folder, records):
    """Measure a driver on `count` records in its own process: seconds to start, per ask and per write; bytes."""
    plan = wide_plan(folder, text=WIDE)
    parameters = fill(plan, records)
    command = [sys.executable, "-c", MEASURE, str(plan.loaded.file), str(plan.runs), str(HERE)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE.parent), str(HERE)])}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return parameters, json.loads(done.stdout.splitlines()[-1])


def bench_driver(folder):
    parameters, found = driver_limits(folder, 10_000)
    print(f"driver: 10,000 records x {parameters:.0f} parameters in SQLite, proposer random")
    report("driver of 10,000 records: ready", found["ready"], "s", limit=3.0)
    report("driver of 10,000 records: ask, 95th percentile", found["ask"], "s", limit=0.1)
    report("driver of 10,000 records: tell, 95th percentile", found["tell"], "s", limit=0.05)
    report("driver of 10,000 records: memory over its imports", found["rss"] / 2**20, "MiB", limit=500.0)


class Night(Sleeper):
    """Sleeps 30 to 180 s, and records when, and whether torch or monai were imported."""

    def progress(self, job):
        begun = time.time()
        time.sleep(30 + int(Path(job.folder).name) * 37 % 151)
        with open("/proc/self/status") as file:
            rss = next(int(line.split()[1]) for line in file if line.startswith("VmRSS")) * 1024
        imported = sorted({"torch", "monai"} & set(sys.modules))
        row = {"begun": begun, "ended": time.time(), "pid": os.getpid(), "imported": imported, "rss": rss}
        file = Path(job.folder).parent / "nights.jsonl"
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a") as lines:
            lines.write(json.dumps(row) + "\n")
        yield self.done(job)


def busy_share(rows, workers, ramp_s):
    """Return the share of busy workers, from the end of the ramp-up until no trials were left to start."""
    first = min(row["begun"] for row in rows)
    begin, end = first + ramp_s, max(row["begun"] for row in rows)
    slept = sum(max(0.0, min(row["ended"], end) - max(row["begun"], begin)) for row in rows)
    return slept / (workers * (end - begin)) if end > begin else 0.0


def bench_busy(folder, workers=64, trials=320):
    from test_search_runner_cluster import start_cluster, stop_cluster

    cluster = start_cluster({"num_cpus": 0}, *[{"num_cpus": workers // 2, "memory": workers * 2**31}] * 2)
    plan = wide_plan(folder)
    run(plan, free_executor(plan, cluster, Night), trials)
    rows = [json.loads(line) for line in (plan.folder / "trials" / "nights.jsonl").read_text().splitlines()]
    last_first = sorted(row["begun"] for row in rows)[workers - 1]
    ramp_s = last_first - min(row["begun"] for row in rows)
    processes = Counter(row["pid"] for row in rows)
    print(f"busy: {workers} simulated workers, {trials} trials of 30 to 180 s")
    print(f"  ramp-up          {ramp_s:7.1f} s")
    share = busy_share(rows, workers, ramp_s)
    report(f"busy share of {workers} simulated workers after the ramp-up", share, limit=0.9, at_least=True)
    print(f"  processes        {len(processes):7d}    (restarted {len(processes) - workers})")
    print(
        f"  memory a worker  {statistics.mean(row['rss'] for row in rows) / 2**20:7.0f} MiB,"
        f" imports torch or monai: {sorted({name for row in rows for name in row['imported']}) or 'neither'}"
    )
    stop_cluster(cluster)


def most_at_once(notes):
    """Return the maximum of simultaneous trials and of their predicted bytes per GPU, from the lines of `Noted`."""
    cards, found = {}, {}
    for line in notes:
        card, share, begun, ended, memory = line.split()
        cards.setdefault(card, []).append((float(begun), float(ended), float(share), int(memory)))
    for card, rows in cards.items():
        at_once = [[other for other in rows if other[0] <= row[0] < other[1]] for row in rows]
        found[card] = (
            max(len(each) for each in at_once),
            max(sum(other[3] for other in each) for each in at_once),
            max(sum(other[2] for other in each) for each in at_once),
        )
    return found


def pack(plan, cluster, trial, *, trials, memory_bytes):
    """Run trials of one predicted memory; return what `most_at_once` finds in their notes."""
    run(plan, free_executor(plan, cluster, trial, memory_bytes=memory_bytes), trials)
    return most_at_once((plan.folder / "trials" / "notes").read_text().splitlines())


def bench_packing(folder, trials=40):
    from test_search_runner_cluster import start_cluster, stop_cluster

    card = {"num_cpus": 8, "num_gpus": 1, "memory": 2**35, "resources": {"gpu_memory": 16 * 2**30}}
    cluster = start_cluster({"num_cpus": 0}, card, card)
    plan = wide_plan(folder, "executor.device=auto")
    found = pack(plan, cluster, Noted, trials=trials, memory_bytes=2 * 2**30)
    print(f"packing: {trials} trials predicted at 2 GiB on 2 simulated GPUs of 16 GiB")
    for card, (most, predicted, share) in sorted(found.items()):
        print(f"  GPU {card}: {predicted / 2**30:.1f} GiB predicted, shares {share:g}")
        report(f"trials of 2 GiB at a time on simulated GPU {card} of 16 GiB", most, limit=3)
    stop_cluster(cluster)
    return found


if __name__ == "__main__":
    chosen = sys.argv[1:] or ["platform", "driver", "busy", "packing"]
    for name in chosen:
        with tempfile.TemporaryDirectory() as folder:
            globals()[f"bench_{name}"](Path(folder))
