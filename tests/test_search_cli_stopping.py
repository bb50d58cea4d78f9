"""Ctrl-C and SIGTERM: a verb stops in order, or without waiting for what takes too long."""

import os
import signal
import subprocess
import sys
import time

import pytest

BUSY = """
import hashlib, signal, sys, time
from search.api.terminal import open_console
from search.cli import stopping
stopping.GRACE_S, sys.argv = 0.3, ["voxnas", "run", "my study.yaml"]
{before}
with stopping.stoppable(open_console()):
    print("ready", flush=True)
    {work}
"""
LONG_STEP = "hashlib.pbkdf2_hmac('sha256', b'', b'', 2**31 - 1)"  # no instruction of Python meanwhile, like in torch
SLOW_END = "try: time.sleep(60)\n    finally: time.sleep(60)"
RESUME = "To resume, run: voxnas run 'my study.yaml'\n"


def stopped(work, how, *, before=""):
    """Run this work, send it a signal; return its exit code and its output."""
    with subprocess.Popen(
        [sys.executable, "-c", BUSY.format(work=work, before=before)], stdout=-1, stderr=-2, text=True, env=os.environ
    ) as process:
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.05)
        process.send_signal(how)
        try:
            return process.wait(30), process.stdout.read()
        finally:
            process.kill()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("work", [LONG_STEP, SLOW_END], ids=["long step", "slow end"])
def test_a_stop_does_not_wait_for_a_long_step_or_a_slow_end(work, how):
    assert stopped(work, how) == (130, f"Stopped without waiting for the step under way. {RESUME}")


def test_a_stop_in_order_ends_at_once():
    assert stopped("time.sleep(60)", signal.SIGTERM) == (130, f"Stopped. {RESUME}")


def test_a_cluster_that_handles_the_signal_has_the_time_that_it_needs():
    work = "signal.signal(signal.SIGTERM, lambda *_: print('handled', flush=True)); time.sleep(1); time.sleep(0.4)"
    assert stopped(work, signal.SIGTERM) == (0, "handled\n")


def test_a_signal_that_is_ignored_stays_ignored():
    ignoring = "signal.signal(signal.SIGINT, signal.SIG_IGN)"
    assert stopped("time.sleep(1)", signal.SIGINT, before=ignoring) == (0, "")
