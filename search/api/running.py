"""The executor that a study names."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from search.runner.driver import Executor
    from search.runner.plan import Plan


def make_executor(plan: Plan, *, timed: bool = True) -> Executor:
    """Return the executor that a study's file names; with `timed=False` local trials skip the latency.

    For several GPUs of this machine it starts Ray here; `own_cluster` ends it.
    """
    named = plan.study.executor
    if named.gpus is not None:
        from search.runner.gpus import choose_gpus, visible_gpus

        gpus = choose_gpus(named.gpus, visible_gpus())
        from search.runner.cluster.executor import RayExecutor
        from search.runner.cluster.own_machine import start_own_cluster

        start_own_cluster(gpus)
        return RayExecutor(plan, address="auto")
    if named.kind == "ray":
        from search.runner.cluster.executor import RayExecutor

        return RayExecutor(plan, address=named.address)
    if (named.workers or 1) > 1:
        from search.runner.processes import ProcessExecutor

        return ProcessExecutor(plan, processes=named.workers or 1, timed=timed)
    from search.runner.local import LocalExecutor

    return LocalExecutor(plan, timed=timed)


@contextmanager
def own_cluster() -> Iterator[None]:
    """End the Ray cluster of this machine that `make_executor` started within the context; also a decorator."""
    try:
        yield
    finally:
        if "search.runner.cluster.own_machine" in sys.modules:
            from search.runner.cluster.own_machine import stop_own_cluster

            stop_own_cluster()
