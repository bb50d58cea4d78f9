"""The web server: waitress, with limits on what a client that isn't admitted yet can hold.

One thread reads all connections; a request takes one of a few other threads only when it is complete.
"""

from __future__ import annotations

import resource
import socket
import threading
from collections.abc import Callable, Iterable
from typing import Any

from waitress.adjustments import Adjustments
from waitress.server import TcpWSGIServer
from waitress.task import ThreadedTaskDispatcher

THREADS = 8
CONNECTIONS = 1000  # at a time; a further one takes the place of the oldest without a complete request
OTHER_FILES = 200  # of this process: databases, pipes
BODY_BYTES = 64 << 10  # a page sends less than a kilobyte
HEADER_BYTES = 16 << 10
REQUEST_S = 15  # from the first byte of a request to its last, and of silence on an idle connection
CHECKED_EVERY_S = 2
FORWARDED = {"x-forwarded-proto"}  # all that is taken from a trusted proxy
Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class Server(TcpWSGIServer):  # type: ignore[misc]
    """A waitress server that also closes connections whose request arrives too slowly."""

    def __init__(self, *positional: Any, **named: Any) -> None:
        super().__init__(*positional, **named)
        self.stopping = threading.Event()

    @property
    def port(self) -> int:
        """The port that the server listens on."""
        return int(self.effective_port)

    def maintenance(self, now: float) -> None:
        """Close idle connections, and those whose request has not arrived whole after `REQUEST_S`."""
        super().maintenance(now)
        for channel in list(self.active_channels.values()):
            if channel.request is None:
                channel.began = None
            elif getattr(channel, "began", None) is None:
                channel.began = now
            elif now - channel.began > REQUEST_S:
                channel.will_close = True

    def handle_accept(self) -> None:
        """Accept a connection; if it is the last allowed one, close the oldest that waits for a request."""
        super().handle_accept()
        if len(self._map) >= self.adj.connection_limit - 1:
            waiting = [each for each in self.active_channels.values() if not each.requests and not each.will_close]
            if waiting:
                min(waiting, key=lambda each: each.creation_time).will_close = True

    def run(self) -> None:
        """Serve until `stop`, or until interrupted; close all connections at the end."""
        try:
            while not self.stopping.is_set():
                self.asyncore.loop(timeout=CHECKED_EVERY_S, map=self._map, use_poll=True, count=1)
        finally:
            self.task_dispatcher.shutdown(timeout=1)
            for each in list(self._map.values()):
                each.close()

    def stop(self) -> None:
        """End `run`, from another thread."""
        self.stopping.set()
        self.pull_trigger()


def make_server(
    application: Application, host: str, port: int, *, prefix: str = "", proxy: str | None = None
) -> Server:
    """Return a server that listens; `run` serves until interrupted. Raises OSError if it can't listen.

    `prefix` is the path below which a proxy shows the dashboard. From the address `proxy` alone, the header
    X-Forwarded-Proto is believed.
    """
    most = allowed_files(CONNECTIONS + OTHER_FILES) - OTHER_FILES
    trusted = {"trusted_proxy": proxy, "trusted_proxy_headers": FORWARDED} if proxy else {}
    settings = Adjustments(
        host=host.strip("[]"),
        port=port,
        threads=THREADS,
        connection_limit=max(THREADS, min(CONNECTIONS, most)),
        max_request_body_size=BODY_BYTES,
        max_request_header_size=HEADER_BYTES,
        channel_timeout=REQUEST_S,
        cleanup_interval=CHECKED_EVERY_S,
        clear_untrusted_proxy_headers=True,
        asyncore_use_poll=True,
        ident=None,
        **trusted,
    )
    dispatcher = ThreadedTaskDispatcher()
    dispatcher.set_thread_count(THREADS)
    place = next((each for each in settings.listen if each[0] == socket.AF_INET), settings.listen[0])
    return Server(below(prefix, application), {}, dispatcher=dispatcher, adj=settings, sockinfo=place)


def allowed_files(wanted: int) -> int:
    """Return how many files this process may open, after raising its own limit to `wanted` if it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return wanted
    if soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return soft


def below(prefix: str, application: Application) -> Application:
    """Return the application below a path; the proxy may send the path with the prefix or without it."""
    if not prefix:
        return application

    def mounted(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path == prefix or path.startswith(f"{prefix}/"):
            path = path[len(prefix) :] or "/"
        return application({**environ, "SCRIPT_NAME": prefix, "PATH_INFO": path}, start_response)

    return mounted
