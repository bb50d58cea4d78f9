"""Errands run in a process of their own, which may load torch; a page shows their results when they are there."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

MOST_KEPT = 64  # results


@dataclass
class Worker:
    """Runs errands one after another and keeps what came of the last ones; `done` counts what ended."""

    pool: ProcessPoolExecutor | None = None
    results: dict[Hashable, Future[Any]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)
    done: int = 0

    def work(self, errand: Callable[..., Any], *arguments: Any) -> Any:
        """Return what an errand gave, None while it runs. An errand's own error is raised here."""
        key = (errand.__name__, sha256(pickle.dumps(arguments)).digest())
        with self.lock:
            if key not in self.results:
                self._start(key, errand, arguments)
            future = self.results[key]
        if not future.done():
            return None
        if isinstance(future.exception(), BrokenProcessPool):
            with self.lock:
                self.results.clear()
                self.pool = None
            return None
        return future.result()

    def _start(self, key: Hashable, errand: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        if self.pool is None:
            context = multiprocessing.get_context("spawn")
            self.pool = ProcessPoolExecutor(1, mp_context=context, initializer=_end_with_parent)
        while len(self.results) >= MOST_KEPT:
            self.results.pop(next(iter(self.results))).cancel()
        self.results[key] = self.pool.submit(errand, *arguments)
        self.results[key].add_done_callback(self._ended)

    def _ended(self, _: Future[Any]) -> None:
        self.done += 1

    def close(self) -> None:
        """End the process."""
        if self.pool is not None:
            self.pool.shutdown(wait=False, cancel_futures=True)


def _end_with_parent() -> None:
    """Let this process end when the one that started it ends, however it does."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_exit_after, args=(parent,), daemon=True).start()


def _exit_after(parent: multiprocessing.process.BaseProcess) -> None:
    parent.join()
    os._exit(0)
