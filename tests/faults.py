"""Random faults, from a seed, while a study runs: signals, full disks, locks, and what its executor can lose.

Each study runs twice: undisturbed, and under faults until the same command has finished it. After each restart every
trial must be accounted for, and no process, connection or lock may outlive the driver; at the end both runs must have
the same records, and nothing else may be left. `make test-faults` runs 30 studies of 60 trials on each executor: in
this process with SQLite, with PostgreSQL, and on a Ray cluster.

This process opens no SQLite database: its forks would take over SQLite's record of the locks that it holds.
"""

from __future__ import annotations

import argparse
import fcntl
import gc
import importlib
import json
import os
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from fault_executors import EXECUTORS, NAME, Local, Ray, forked, wait_until

STUDY = """\
name: disturbed
data: {{path: phantom, folds: 3}}
space:
  fix:
    {{encoder: plain, levels: 3, width_cap: 16, attention: none, kernels: auto, norm: instance, activation: relu,
     dropout: 0.0, downsampling: strided, upsampling: linear, deep_supervision: false,
     stages: single, stem_stride: 1}}
  choices:
    {{width: [2, 3, 4, 5, 6], growth: [1.5, 2.0], repeats: [1, 2], attention@bottleneck: [none, isa],
     skip: [concat, add]}}
objectives: {{dice: maximize, memory: minimize, params: {{budget: 30000}}}}
training: {{patch: [4, 16, 16], batch: 1, epochs: 3, steps_per_epoch: 3, precision: float32}}
search: {{proposer: {proposer}, trials: {trials}, seed: {seed}, references: none, halving: {halving}}}
executor: {{device: cpu, threads: 1, workers: {workers}}}
"""
PRELOADED = (  # before the forks, since these take seconds; the last, a training's first step would import
    "search.cli.app",
    "search.cli.running",
    "search.runner.local",
    "search.runner.run",
    "optuna",
    "sqlalchemy.dialects.sqlite",
    "torch._dynamo",
)
LEFT = ("last.pt", "previous.pt", "finished.json")  # of an unfinished trial
PART = ".part-"  # of a file that is being written, and of Ray Tune's folder

Counts = Counter[tuple[str, str, str]]


@dataclass(frozen=True)
class Ended:
    """How a process of a study ended."""

    code: int
    errors: str


class Disturbed:
    """Runs one study in a folder, in processes forked from this one, which has imported everything already."""

    def __init__(self, folder: Path, executor: Local, *, seed: int, trials: int) -> None:
        from search.data.phantom import write_phantom

        self.folder, self.executor, self.seed, self.number = folder, executor, seed, 0
        self.draw, self.counts = random.Random(f"{executor.name} {seed}"), Counts()
        write_phantom(folder / "phantom", cases=6, shape=(20, 18, 6), classes=2)
        self.file = folder / f"{NAME}.yaml"
        self.file.write_text(STUDY.format(trials=trials, seed=seed, **executor.settings(self.draw)))

    def start(self, runs: Path, *, limit: int | None = None) -> int:
        """Fork a process that runs the command; return its number. `limit` is a size that no file may exceed."""
        options = self.executor.options(runs)
        self.number = number = os.fork()
        if number:
            return number
        try:
            os.setpgid(0, 0)
            for each in (signal.SIGINT, signal.SIGTERM):
                signal.signal(each, signal.default_int_handler if each == signal.SIGINT else signal.SIG_DFL)
            if limit is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
            said = os.open(self.folder / "said.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(said, 1)
            os.dup2(said, 2)
            os.chdir(self.folder)
            sys.argv = ["voxnas", "run", str(self.file), "--runs", str(runs), "--quiet", *options]
            from search.cli import main

            main()
        except KeyboardInterrupt:  # before or after the command itself
            code = 130
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else int(bool(ended.code))
        except BaseException:
            traceback.print_exc()
            code = 99
        else:
            code = 0
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)

    def wait(self, number: int, runs: Path) -> Ended:
        """Wait for a process to end, and for everything that it started, as long as it begins trials."""
        seen, until = -1, 0.0
        while (now := begun(runs)) != seen or time.monotonic() < until:
            if now != seen:
                seen, until = now, time.monotonic() + self.executor.patience_s
            found, status = os.waitpid(number, os.WNOHANG)
            if found:
                self.number = 0
                wait_until(lambda: is_empty(group=number), "processes that the driver started are left")
                self.executor.check_settled(runs)
                forked(lambda: check_locks(runs, Path(os.environ["XDG_RUNTIME_DIR"])))
                return Ended(os.waitstatus_to_exitcode(status), (self.folder / "said.txt").read_text())
            time.sleep(0.005)
        self.end()
        said = (self.folder / "said.txt").read_text()
        raise AssertionError(
            f"the process neither ended nor began a trial for {self.executor.patience_s:.0f} s\n{said[-3000:]}"
        )

    def end(self) -> None:
        """Kill the process that still runs, if one does."""
        if self.number:
            os.kill(self.number, signal.SIGKILL)
            os.waitpid(self.number, 0)
            self.number = 0

    def run(self, runs: Path) -> Ended:
        """Run the study without a fault."""
        return self.wait(self.start(runs), runs)

    def disturb(self, runs: Path) -> Ended:
        """Start the study, let one fault happen to it, and wait for its end."""
        executor = self.executor
        fault = self.draw.choice(executor.faults)
        after = self.draw.uniform(0.0, executor.longest_s)
        limit = self.draw.choice(executor.sizes) if fault == "full disk" else None
        with executor.limited(limit):
            number = self.start(runs, limit=limit)
            if limit is None:
                time.sleep(after)
                executor.inject(fault, runs, number, self.draw)
            ended = self.wait(number, runs)
        self.counts[executor.name, fault, _how(ended)] += 1
        print(f"{executor.name}, seed {self.seed}: {fault}, {_how(ended)}", file=sys.stderr, flush=True)
        self.check_end(fault, ended)
        return ended

    def check_end(self, fault: str, ended: Ended) -> None:
        """Raise AssertionError for an end that the fault does not explain, or one without its sentence."""
        allowed = {
            "kill": {0, -signal.SIGKILL},
            "suspend and kill": {0, -signal.SIGKILL},
            "terminate": {0, 130, -signal.SIGTERM},  # by the signal itself before the run has begun
            "interrupt": {0, 1, 130},  # 1 before the run has begun
            "interrupt twice": {0, 1, 130},
            "full disk": {0, 1},
        }.get(fault, {0})
        assert ended.code in allowed, f"{fault}: exit code {ended.code}\n{ended.errors[-3000:]}"
        if ended.code == 1 and fault == "full disk":
            lines = [line for line in ended.errors.splitlines() if line.startswith("voxnas: ")]
            assert lines and "rerun the same command to resume" in lines[-1], ended.errors[-3000:]
        orderly = ended.code in (130, -signal.SIGTERM) or fault == "interrupt twice"
        assert orderly or "Traceback" not in ended.errors, ended.errors[-3000:]


def begun(runs: Path) -> int:
    """Return the number of trials of the study in a runs folder that have files."""
    folder = runs / NAME / "trials"
    return len(os.listdir(folder)) if folder.is_dir() else 0


def is_empty(*, group: int) -> bool:
    """Return whether a group of processes has none left."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


def check_locks(*folders: Path) -> None:
    """Raise AssertionError if a lock file is still locked."""
    for path in (path for folder in folders for path in folder.rglob("*.lock")):
        with path.open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise AssertionError(f"{path} is still locked") from None


def _how(ended: Ended) -> str:
    words = {0: "finished", 1: "stopped with a message", 130: "stopped in order"}
    return words.get(ended.code, "ended at once")


def ledger(executor: Local, runs: Path) -> list[dict]:
    """Return the study's records as plain values; raise AssertionError if a trial is not accounted for."""
    from search.config import UserError
    from search.storage import read_records

    try:
        records = read_records(executor.url(runs), NAME)
    except UserError as error:
        assert "nothing has run yet" in str(error) or "of another program" in str(error), error  # before its tables
        records = []
    states = Counter(record.state for record in records)
    assert [record.number for record in records] == list(range(len(records)))
    assert len({record.identity for record in records}) == len(records), "a training is repeated"
    assert states["running"] <= executor.most_running, states
    assert not states["failed"], [record.measurement.reason for record in records]
    for record in records:
        assert record.state in ("trained", "running") or record.measurement.reason, record
    rows = executor.count_trials(runs)
    assert rows == len(records), f"{rows} trials, but {len(records)} records"
    return [record.to_values() for record in records]


def compared(values: dict) -> dict:
    """Return the part of a record that does not depend on the clock or on interruptions."""
    measurement = values["measurement"]
    epochs = {name: measurement["epochs"][name] for name in ("number", "loss", "dice")}
    kept = {name: measurement[name] for name in ("state", "reason", "dice", "cases", "weights_sha256")}
    return {**{name: values[name] for name in ("number", "architecture", "seed", "fold")}, **kept, "epochs": epochs}


def check_left(runs: Path, records: list[dict], *, trials: int) -> None:
    """Raise AssertionError if a finished study has too few results, or left files of its work behind."""
    states = Counter(each["measurement"]["state"] for each in records)
    assert states["trained"] + states["stopped"] == trials and not states["running"], states
    names = [path.name for path in runs.rglob("*")]
    left = [name for name in names if name.startswith(PART) or name in LEFT]
    assert not left, left
    assert not states["trained"] or "best.safetensors" in names


def run_study(folder: Path, executor: Local, *, seed: int, trials: int) -> Counts:
    """Run one study undisturbed and under faults; return the faults and their ends."""
    study = Disturbed(folder, executor, seed=seed, trials=trials)
    try:
        compare_runs(study, trials=trials)
    finally:
        study.end()
    return study.counts


def compare_runs(study: Disturbed, *, trials: int) -> None:
    """Raise AssertionError if the faults change what the study finds."""
    folder, executor = study.folder, study.executor
    undisturbed, disturbed = folder / "undisturbed", folder / "disturbed"
    ended = study.run(undisturbed)
    assert ended.code == 0, ended.errors
    expected = forked(lambda: ledger(executor, undisturbed))
    check_left(undisturbed, expected, trials=trials)
    before: list[dict] = []
    faults, most = 0, 3 + trials // 2
    while True:
        ended = study.disturb(disturbed) if faults < most else study.run(disturbed)
        faults += 1
        records = forked(lambda: ledger(executor, disturbed))
        assert len(records) >= len(before), "records are lost"
        for one, other in zip(before, records, strict=False):
            if one["measurement"]["state"] != "running":
                assert one == other, "a finished record has changed"
        before = records
        if ended.code == 0 or faults > most:
            assert ended.code == 0, ended.errors
            break
    for one, other in zip(expected, records, strict=True):
        assert json.dumps(compared(one)) == json.dumps(compared(other))
    check_left(disturbed, records, trials=trials)


def show(counts: Counts, studies: Counter[str]) -> None:
    """Print the faults by kind and executor, with how the command ended."""
    width = max(len(fault) for each in EXECUTORS for fault in each.faults)
    for each in EXECUTORS:
        if not studies[each.name]:
            continue
        print(f"{each.name}: {studies[each.name]} studies")
        for fault in each.faults:
            ends = {how: number for (name, kind, how), number in counts.items() if (name, kind) == (each.name, fault)}
            words = ", ".join(f"{number} {how}" for how, number in sorted(ends.items()))
            print(f"  {fault:{width}}  {sum(ends.values()):4}  {words}".rstrip())


def main() -> None:
    """Run the studies and print a table of the faults; an interrupt prints those of the finished studies."""
    parser = argparse.ArgumentParser(description=__doc__)
    names = [each.name for each in EXECUTORS]
    parser.add_argument("--executor", nargs="+", choices=names, default=names)
    parser.add_argument("--studies", type=int, default=30, help="for each executor")
    parser.add_argument("--trials", type=int, default=60, help="of each study")
    parser.add_argument("--seed", type=int, default=0, help="of the first study")
    given = parser.parse_args()
    chosen = [each for each in EXECUTORS if each.name in given.executor]
    os.environ["OMP_NUM_THREADS"] = "1"
    for name in (*PRELOADED, *(["search.runner.cluster.executor"] if Ray in chosen else [])):
        importlib.import_module(name)
    gc.freeze()  # a collection in a fork would copy what was imported
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    counts, studies, problems = Counts(), Counter[str](), []
    with ExitStack() as opened, suppress(KeyboardInterrupt):
        os.environ["XDG_RUNTIME_DIR"] = opened.enter_context(tempfile.TemporaryDirectory(prefix="run"))
        executors = [opened.enter_context(each()) for each in chosen]
        for seed in range(given.seed, given.seed + given.studies):
            for executor in executors:
                with tempfile.TemporaryDirectory() as folder:
                    try:
                        counts += run_study(Path(folder), executor, seed=seed, trials=given.trials)
                    except AssertionError as error:
                        problems.append(f"{executor.name}, seed {seed}: {error}")
                        print(problems[-1], file=sys.stderr, flush=True)
                studies[executor.name] += 1
    show(counts, studies)
    if problems:
        raise SystemExit(f"{len(problems)} of {studies.total()} studies have a fault")
    print("every ledger balances")


if __name__ == "__main__":
    main()
