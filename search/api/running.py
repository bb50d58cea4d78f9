"""The executor that a study names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from search.runner.plan import Plan

if TYPE_CHECKING:
    from search.runner.driver import Executor


def make_executor(plan: Plan) -> Executor:
    """Return the executor that a study's file names."""
    if plan.study.executor.kind == "ray":
        from search.runner.cluster.executor import RayExecutor

        return RayExecutor(plan, address=plan.study.executor.address)
    from search.runner.local import LocalExecutor

    return LocalExecutor(plan)
