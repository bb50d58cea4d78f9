"""Process many volumes in a few threads; reading and resampling release the GIL."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

MAX_THREADS = 4  # each holds a whole volume in memory

Progress = Callable[[int, int], None]
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def for_each(
    work: Callable[[_Item], _Result], items: Sequence[_Item], *, progress: Progress | None = None
) -> list[_Result]:
    """Return `work(item)` for all items, in order; `progress(done, total)` is called after each.

    The first error is raised once the running items finish; pending items are cancelled.
    """
    results: list[_Result] = []
    pool = ThreadPoolExecutor(max_workers=min(MAX_THREADS, os.cpu_count() or 1))
    try:
        for result in pool.map(work, items):
            results.append(result)
            if progress is not None:
                progress(len(results), len(items))
    finally:
        pool.shutdown(cancel_futures=True)
    return results
