"""Connections to Ray clusters: heads that are gone, and heads that ask for a token."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from search.config.errors import RunError
from search.runner.cluster.connection import connect


@pytest.mark.parametrize("named", ["127.0.0.1:9", "ray://127.0.0.1:9", "auto"])
def test_a_dead_head_is_reported_at_once(named, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    began = time.monotonic()
    with pytest.raises(RunError, match=r"no Ray cluster at (ray://)?127.0.0.1:9: Connection refused; start one with"):
        connect(named)
    assert time.monotonic() - began < 15


CONNECT = """\
from search.runner.cluster.connection import connect
connect("127.0.0.1:{port}")
import ray
print("connected to", ray.cluster_resources()["CPU"])
"""


@pytest.mark.long
def test_a_head_that_asks_for_a_token_is_named_where_none_was_set(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with_token, without = ({**os.environ, "HOME": str(tmp_path / name)} for name in ("with", "without"))
    (tmp_path / "with/.ray").mkdir(parents=True)
    (tmp_path / "with/.ray/auth_token").write_text("a" * 64)
    ray = Path(sys.executable).with_name("ray")
    started = ["--port", str(port), "--num-cpus", "1", "--include-dashboard", "false", "--disable-usage-stats"]
    head = subprocess.Popen([ray, "start", "--head", "--block", *started], env=with_token, stdout=subprocess.PIPE)
    try:
        assert any(b"Ray runtime started" in line for line in head.stdout)
        script = [sys.executable, "-c", CONNECT.format(port=port)]
        said = subprocess.run(script, env={**with_token, "RAY_AUTH_MODE": "token"}, capture_output=True, text=True)
        assert said.stdout == "connected to 1.0\n"
        refused = subprocess.run(script, env=without, capture_output=True, text=True)
        assert (
            "no Ray cluster at" in refused.stderr and "set RAY_AUTH_MODE=token and put its token in" in refused.stderr
        )
    finally:
        head.terminate()
        head.communicate(timeout=60)
