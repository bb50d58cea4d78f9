"""The command `voxnas` in processes of its own, which fork from one that has imported what a training needs.

A process of its own can be killed; that it also imports torch for seconds would check nothing.
"""

import gc
import multiprocessing
import multiprocessing.context
import os
import signal
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from conftest import LATENCY_S

from search.runner import processes

FORK = multiprocessing.get_context("forkserver")
PRELOADED = [
    *processes.PRELOADED,
    "optuna",
    "search.cli.app",
    "search.proposers.known_cost",
    "search.runner.confirm",
    "search.runner.tabulate",
    "search.ablation.run",
    "sqlalchemy.dialects.sqlite",
]


class Command:
    """A running or ended call of a function in a process of its own, as subprocess.Popen shows it."""

    def __init__(self, function, *arguments, environment):
        self.folder = Path(tempfile.mkdtemp())
        FORK.set_forkserver_preload(PRELOADED)
        call = (function, [str(each) for each in arguments], os.getcwd(), environment, self.folder)
        self.process = FORK.Process(target=_call, args=call)
        self.process.start()
        self.pid = self.process.pid

    def poll(self):
        return self.process.exitcode

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)

    def wait(self, timeout=None):
        self.process.join(timeout)
        if self.process.exitcode is None:
            raise TimeoutError
        return self.process.exitcode

    returncode = property(poll)
    stdout = property(lambda self: (self.folder / "stdout").read_text())
    stderr = property(lambda self: (self.folder / "stderr").read_text())


@contextmanager
def started(*arguments, **environment):
    """Start a command, with a changed environment; a command that still runs at the end is killed."""
    command = Command(_command, *arguments, environment={**os.environ, **environment})
    try:
        yield command
    finally:
        command.send_signal(signal.SIGKILL)
        command.process.join()


def call_forked(*arguments, **environment):
    """Run a command to its end."""
    with started(*arguments, **environment) as command:
        command.wait()
    return command


def fresh_process():
    """Return an executor of one process, which has nothing loaded but voxnas."""
    FORK.set_forkserver_preload(PRELOADED)
    return ProcessPoolExecutor(1, mp_context=FORK)


def wait_for(done, command, *, seconds=180.0):
    """Wait until `done()` is true while a command runs."""
    until = time.monotonic() + seconds
    while not done():
        assert command.poll() is None, command.stdout + command.stderr
        assert time.monotonic() < until, "it took too long"
        time.sleep(0.02)


def kill_when(done, command, *, how=signal.SIGKILL):
    """Send a signal to a command as soon as `done()` is true, and wait for its end."""
    wait_for(done, command)
    command.send_signal(how)
    assert command.wait(60) != 0, "it ended before the signal"


def _call(function, arguments, folder, environment, out):
    gc.freeze()  # what the server imported is no garbage
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(out / name, os.O_WRONLY | os.O_CREAT), descriptor)
    function(*arguments)


def _command(*arguments):
    from search.cli import main
    from search.costs import latency

    latency.MAX_SECONDS["cpu"] = LATENCY_S
    sys.argv = ["voxnas", *arguments]
    main()
