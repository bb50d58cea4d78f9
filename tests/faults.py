"""Random faults, from a seed, while a study runs in one process: kills, signals, a full disk, a locked database.

Each study runs twice: undisturbed, and under faults until the same command has finished it. After each restart every
trial must be accounted for; at the end both runs must have the same records, and nothing else may be left.
`make test-faults` runs 30 studies of 60 trials.

This process opens no database: its forks would take over SQLite's record of the locks that it holds.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import signal
import sqlite3
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
objectives: {{dice: maximize, memory: minimize}}
training: {{patch: [4, 16, 16], batch: 1, epochs: 3, steps_per_epoch: 3, precision: float32}}
search: {{proposer: {proposer}, trials: {trials}, seed: {seed}, references: none, halving: {halving}}}
executor: {{device: cpu, threads: 1}}
"""
FAULTS = ("kill", "terminate", "interrupt", "interrupt twice", "suspend and kill", "full disk", "locked database")
NAME = "disturbed"
LOCKED_S = 0.5
LONGEST_S = 1.5  # from a start to its fault
PATIENCE_S = 120.0  # for a process to end


@dataclass(frozen=True)
class Ended:
    """How a process of a study ended."""

    code: int
    errors: str


class Disturbed:
    """Runs one study in a folder, in processes forked from this one, which has imported everything already."""

    def __init__(self, folder: Path, *, seed: int, trials: int) -> None:
        from search.data.phantom import write_phantom

        self.folder, self.draw, self.counts = folder, random.Random(seed), Counter[tuple[str, str]]()
        write_phantom(folder / "phantom", cases=6, shape=(20, 18, 6), classes=2)
        proposer = self.draw.choice(["random", "local", "tpe"])
        halving = self.draw.choice(["off", "{min_epochs: 1, reduction: 2.0}"])
        self.file = folder / f"{NAME}.yaml"
        self.file.write_text(STUDY.format(trials=trials, seed=seed, proposer=proposer, halving=halving))

    def start(self, runs: Path, *, limit: int | None = None) -> int:
        """Fork a process that runs the command; return its number. `limit` is a size that no file may exceed."""
        number = os.fork()
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
            sys.argv = ["voxnas", "run", str(self.file), "--runs", str(runs), "--quiet"]
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

    def wait(self, number: int) -> Ended:
        """Wait for a process to end."""
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            found, status = os.waitpid(number, os.WNOHANG)
            if found:
                return Ended(os.waitstatus_to_exitcode(status), (self.folder / "said.txt").read_text())
            time.sleep(0.005)
        os.kill(number, signal.SIGKILL)
        os.waitpid(number, 0)
        raise AssertionError(f"the process has not ended after {PATIENCE_S:.0f} s")

    def disturb(self, runs: Path) -> Ended:
        """Start the study, let one fault happen to it, and wait for its end."""
        fault = self.draw.choice(FAULTS)
        after = self.draw.uniform(0.0, LONGEST_S)
        sizes = [2_000, 20_000, 60_000, 100_000, 150_000]
        number = self.start(runs, limit=self.draw.choice(sizes) if fault == "full disk" else None)
        time.sleep(after if fault != "full disk" else 0.0)
        if fault == "locked database" and database(runs).exists():
            forked(lambda: lock_for_a_while(database(runs)))
        for each in {
            "kill": [signal.SIGKILL],
            "terminate": [signal.SIGTERM],
            "interrupt": [signal.SIGINT],
            "interrupt twice": [signal.SIGINT, signal.SIGINT],
            "suspend and kill": [signal.SIGSTOP, signal.SIGKILL],
        }.get(fault, []):
            try:
                os.kill(number, each)
            except ProcessLookupError:
                break
            time.sleep(0.02)
        ended = self.wait(number)
        self.counts[fault, _how(ended)] += 1
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
            "locked database": {0},
        }[fault]
        assert ended.code in allowed, f"{fault}: exit code {ended.code}\n{ended.errors[-3000:]}"
        if ended.code == 1 and fault == "full disk":
            lines = [line for line in ended.errors.splitlines() if line.startswith("voxnas: ")]
            assert lines and "rerun the same command to resume" in lines[-1], ended.errors[-3000:]
        orderly = ended.code in (130, -signal.SIGTERM) or fault == "interrupt twice"
        assert orderly or "Traceback" not in ended.errors, ended.errors[-3000:]


def database(runs: Path) -> Path:
    """Return the study's database."""
    return runs / NAME / "study.db"


def forked(work: Callable[[], Any]) -> Any:
    """Return what `work` returns in a fork of this process, as JSON holds it; raise AssertionError with its reason."""
    reading, writing = os.pipe()
    number = os.fork()
    if not number:
        os.close(reading)
        try:
            said, code = json.dumps(work()), 0
        except AssertionError as error:
            said, code = str(error), 1
        except BaseException:
            said, code = traceback.format_exc(), 1
        with os.fdopen(writing, "w") as pipe:
            pipe.write(said)
        os._exit(code)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        said = pipe.read()
    _, status = os.waitpid(number, 0)
    assert os.waitstatus_to_exitcode(status) == 0, said
    return json.loads(said)


def lock_for_a_while(file: Path) -> None:
    """Hold the lock of a writer."""
    connection = sqlite3.connect(file, isolation_level=None)
    connection.execute("PRAGMA busy_timeout=5000")
    connection.execute("BEGIN IMMEDIATE")
    time.sleep(LOCKED_S)
    connection.execute("ROLLBACK")
    connection.close()


def _how(ended: Ended) -> str:
    words = {0: "finished", 1: "stopped with a message", 130: "stopped in order"}
    return words.get(ended.code, "ended at once")


def ledger(runs: Path) -> list[dict]:
    """Return the study's records as plain values; raise AssertionError if a trial is not accounted for."""
    from search.config import UserError
    from search.storage import read_records
    from search.storage.address import sqlite_url

    file = database(runs)
    try:
        records = read_records(sqlite_url(file), NAME) if file.exists() else []
    except UserError as error:
        assert "nothing has run yet" in str(error) or "of another program" in str(error), error  # before its tables
        records = []
    states = Counter(record.state for record in records)
    assert [record.number for record in records] == list(range(len(records)))
    assert len({record.identity for record in records}) == len(records), "a training is repeated"
    assert states["running"] <= 1, states
    assert not states["failed"], [record.measurement.reason for record in records]
    for record in records:
        assert record.state in ("trained", "running") or record.measurement.reason, record
    if file.exists():
        with sqlite3.connect(f"file:{file}?mode=ro", uri=True) as connection:
            found = connection.execute("SELECT name FROM sqlite_master WHERE name = 'trials'").fetchall()
            rows = connection.execute("SELECT COUNT(*) FROM trials").fetchone() if found else (0,)
        assert rows[0] == len(records), f"{rows[0]} trials, but {len(records)} records"
    return [record.to_values() for record in records]


def compared(values: dict) -> dict:
    """Return the part of a record that does not depend on the clock or on interruptions."""
    measurement = values["measurement"]
    epochs = [(each["number"], each["loss"], each["dice"]) for each in measurement["epochs"]]
    kept = {name: measurement[name] for name in ("state", "reason", "dice", "cases", "weights_sha256")}
    return {**{name: values[name] for name in ("number", "architecture", "seed", "fold")}, **kept, "epochs": epochs}


def check_left(runs: Path, records: list[dict]) -> None:
    """Raise AssertionError if a finished study left files of its work behind, or lost its results."""
    names = [path.name for path in runs.rglob("*")]
    left = [name for name in names if name.startswith(".part-") or name in ("last.pt", "previous.pt", "finished.json")]
    assert not left, left
    if any(each["measurement"]["state"] == "trained" for each in records):
        assert "best.safetensors" in names


def run_study(folder: Path, *, seed: int, trials: int) -> Counter[tuple[str, str]]:
    """Run one study undisturbed and under faults; return the faults and their ends."""
    study = Disturbed(folder, seed=seed, trials=trials)
    undisturbed, disturbed = folder / "undisturbed", folder / "disturbed"
    ended = study.wait(study.start(undisturbed))
    assert ended.code == 0, ended.errors
    expected = forked(lambda: ledger(undisturbed))
    check_left(undisturbed, expected)
    before: list[dict] = []
    faults, most = 0, 3 + trials // 2
    while True:
        ended = study.disturb(disturbed) if faults < most else study.wait(study.start(disturbed))
        faults += 1
        records = forked(lambda: ledger(disturbed))
        assert len(records) >= len(before), "records are lost"
        for one, other in zip(before, records, strict=False):
            if one["measurement"]["state"] != "running":
                assert one == other, "a finished record has changed"
        before = records
        if ended.code == 0 or faults > most:
            assert ended.code == 0, ended.errors
            break
    assert [json.dumps(compared(each)) for each in records] == [json.dumps(compared(each)) for each in expected]
    check_left(disturbed, records)
    return study.counts


def main() -> None:
    """Run the studies and print a table of the faults."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=30)
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    import search.cli.running
    import search.runner.local  # noqa: F401 (before the fork: imports take seconds)
    import search.runner.run  # noqa: F401

    counts = Counter[tuple[str, str]]()
    for seed in range(given.seed, given.seed + given.studies):
        with tempfile.TemporaryDirectory() as folder:
            try:
                counts += run_study(Path(folder), seed=seed, trials=given.trials)
            except AssertionError as error:
                raise SystemExit(f"seed {seed}: {error}") from error
    width = max(map(len, FAULTS))
    print(f"{given.studies} studies of {given.trials} trials each: every ledger balances")
    for fault in FAULTS:
        ends = {how: number for (name, how), number in counts.items() if name == fault}
        print(f"{fault:{width}}  {sum(ends.values()):4}  " + ", ".join(f"{n} {how}" for how, n in sorted(ends.items())))


if __name__ == "__main__":
    main()
