"""The executor that a study names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from search.runner.plan import Plan

if TYPE_CHECKING:
    from search.runner.driver import Executor


def make_executor(plan: Plan, *, timed: bool = True) -> Executor:
    """Return the executor that a study's file names; with `timed=False` local trials skip the latency."""
    named = plan.study.executor
    if named.kind == "ray":
        from search.runner.cluster.executor import RayExecutor

        return RayExecutor(plan, address=named.address)
    if (named.workers or 1) > 1:
        from search.runner.processes import ProcessExecutor

        return ProcessExecutor(plan, processes=named.workers or 1, timed=timed)
    from search.runner.local import LocalExecutor

    return LocalExecutor(plan, timed=timed)
