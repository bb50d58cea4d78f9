"""One thread for the surrogates' many small matrices, on which the threads of BLAS wait for each other."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from threadpoolctl import threadpool_limits

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def single_threaded(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Return a function that computes with one thread, and leaves the process's number of threads as it was.

    On two busy cores, two threads took 27 s of CPU for the proposals of 60 trainings, one thread 4 s. The results
    are also the same on machines with different numbers of cores.
    """

    @wraps(function)
    def limited(*arguments: Arguments.args, **options: Arguments.kwargs) -> Result:
        with threadpool_limits(limits=1):  # finds the libraries that are loaded by now: 3 ms
            return function(*arguments, **options)

    return limited
