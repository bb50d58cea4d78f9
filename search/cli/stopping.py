"""Stop a verb on Ctrl-C or SIGTERM: in order, or after GRACE_S without waiting for what is under way."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

SIGNALS = (signal.SIGINT, signal.SIGTERM)
GRACE_S = 8.0  # for a step, a volume or a tracker that is under way
STOPPED = 130  # exit code
STDERR = 2  # its file descriptor
SHOW_CURSOR = "\x1b[?25h\n"  # which a live table hides


@contextmanager
def stoppable(console: Console) -> Iterator[None]:
    """Within the context, stop on Ctrl-C and SIGTERM and print the command that resumes the work.

    Python runs a signal's handler only between two of its own instructions, so a backward pass or a large volume delays
    the stop. After GRACE_S the process ends like after `kill -9`: the same command resumes from the last whole epoch.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    command = shlex.join(["voxnas", *sys.argv[1:]])

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    hook_before = sys.unraisablehook

    def stop_again(found: sys.UnraisableHookArgs) -> None:
        """Repeat a stop that arrived in a `__del__`, where Python drops every exception."""
        if isinstance(found.exc_value, KeyboardInterrupt):
            threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGTERM)).start()
        else:
            hook_before(found)

    def end_late() -> None:
        """Wait for a signal that `stop` handles; end the process unless the context ends within GRACE_S."""
        while number := os.read(arrived, 1):
            if number[0] in SIGNALS and signal.getsignal(number[0]) is stop:  # not one that a cluster handles
                break
        else:
            return
        if not has_ended.wait(GRACE_S):
            text = f"Stopped without waiting for the step under way. To resume, run: {command}\n"
            os.write(STDERR, f"{SHOW_CURSOR if console.is_terminal else ''}{text}".encode())
            os._exit(STOPPED)

    has_ended = threading.Event()
    arrived, notify = os.pipe()
    os.set_blocking(notify, False)
    before = {each: signal.signal(each, stop) for each in SIGNALS if signal.getsignal(each) != signal.SIG_IGN}
    fd_before = signal.set_wakeup_fd(notify, warn_on_full_buffer=False)
    sys.unraisablehook = stop_again
    watching = threading.Thread(target=end_late, daemon=True, name="stopping")
    watching.start()
    try:
        yield
    except KeyboardInterrupt:
        console.print(f"Stopped. To resume, run: {command}", soft_wrap=True)
        raise SystemExit(STOPPED) from None
    finally:
        has_ended.set()
        sys.unraisablehook = hook_before
        signal.set_wakeup_fd(fd_before)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(notify)
        watching.join()
        os.close(arrived)
