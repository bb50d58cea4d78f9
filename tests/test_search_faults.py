"""The short form of `make test-faults`: one study under kills, signals, full disks and locks."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("seed", [1])
def test_the_ledger_balances_after_every_fault(seed, tmp_path):
    command = [sys.executable, str(Path(__file__).with_name("faults.py")), "--studies", "1", "--trials", "6"]
    surroundings = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([*command, "--seed", str(seed)], capture_output=True, text=True, env=surroundings)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("1 studies of 6 trials each: every ledger balances")
