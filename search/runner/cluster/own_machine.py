"""A Ray cluster of this machine alone, started for a study that names its GPUs, and ended with it."""

from __future__ import annotations

import os
from collections.abc import Sequence

import ray

from search.config.errors import RunError
from search.runner.gpus import VISIBLE

_gpus: list[tuple[str, ...]] = []  # of the cluster that this process started


def start_own_cluster(gpus: Sequence[str]) -> None:
    """Start a cluster with these GPUs, unless this process has started it. Raises RunError if Ray can't start."""
    if ray.is_initialized():
        if _gpus == [tuple(gpus)]:
            return
        stop_own_cluster()
        ray.shutdown()  # the connection to another cluster
    before = os.environ.get(VISIBLE)
    os.environ[VISIBLE] = ",".join(gpus)  # Ray gives its workers the GPUs that it sees when it starts
    try:
        ray.init(
            address="local",
            num_gpus=len(gpus),
            include_dashboard=False,
            namespace="voxnas",
            log_to_driver=False,
            logging_level="ERROR",
        )
    except (ConnectionError, ValueError, RuntimeError, OSError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise RunError([f"executor.gpus: Ray can't start on this machine: {reason}"]) from None
    finally:
        if before is None:
            del os.environ[VISIBLE]
        else:
            os.environ[VISIBLE] = before
    _gpus[:] = [tuple(gpus)]


def stop_own_cluster() -> None:
    """End the cluster that this process started, if any."""
    if _gpus:
        _gpus.clear()
        ray.shutdown()
