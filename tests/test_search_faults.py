"""The short form of `make test-faults`: a study on each local database under kills, signals, full disks and locks."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("faults.py")


@pytest.mark.parametrize("seed", [1])
def test_the_ledger_balances_after_every_fault(seed):
    studies = ["--executor", "local", "postgresql", "--studies", "1", "--trials", "3", "--seed", str(seed)]
    surroundings = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, str(SCRIPT), *studies], capture_output=True, text=True, env=surroundings)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("local: 1 studies") and "postgresql: 1 studies" in done.stdout
    assert done.stdout.endswith("every ledger balances\n")
