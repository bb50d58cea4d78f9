"""Slow tasks, run in a separate process that may import torch; a page shows each result once it is ready."""

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

MAX_RESULTS = 64


@dataclass
class Worker:
    """Runs tasks one at a time and keeps the latest results; `done` counts the finished tasks."""

    pool: ProcessPoolExecutor | None = None
    results: dict[Hashable, Future[Any]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)
    done: int = 0

    def work(self, task: Callable[..., Any], *arguments: Any) -> Any:
        """Return a task's result, or None while it runs. Raises the task's own error."""
        key = (task.__name__, sha256(pickle.dumps(arguments)).digest())
        with self.lock:
            if key not in self.results:
                self._start(key, task, arguments)
            future = self.results[key]
        if not future.done():
            return None
        if isinstance(future.exception(), BrokenProcessPool):
            with self.lock:
                self.results.clear()
                self.pool = None
            return None
        return future.result()

    def _start(self, key: Hashable, task: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        if self.pool is None:
            context = multiprocessing.get_context("spawn")
            self.pool = ProcessPoolExecutor(1, mp_context=context, initializer=_exit_with_parent)
        while len(self.results) >= MAX_RESULTS:
            self.results.pop(next(iter(self.results))).cancel()
        self.results[key] = self.pool.submit(task, *arguments)
        self.results[key].add_done_callback(self._count)

    def _count(self, _: Future[Any]) -> None:
        self.done += 1

    def close(self) -> None:
        """Stop the process."""
        if self.pool is not None:
            self.pool.shutdown(wait=False, cancel_futures=True)


def _exit_with_parent() -> None:
    """Make this process exit when its parent does, even if the parent is killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_exit_after, args=(parent,), daemon=True).start()


def _exit_after(parent: multiprocessing.process.BaseProcess) -> None:
    parent.join()
    os._exit(0)
