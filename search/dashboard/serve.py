"""Serves the dashboard: to this machine only, or to anyone with the token."""

from __future__ import annotations

import logging
from pathlib import Path

from search.config import UserError
from search.dashboard.app import make_app
from search.dashboard.library import Library
from search.dashboard.security import TLS, check_access, check_mount, is_loopback
from search.dashboard.server import make_server
from search.storage import read_study_names
from search.storage.admin import find_databases


def serve(
    database: str | None,
    *,
    runs: Path,
    host: str,
    port: int,
    token: str | None,
    prefix: str = "",
    proxy: str | None = None,
) -> None:
    """Print the URL and serve until interrupted. Raises UserError for a missing token or a port in use."""
    check_access(host, token)
    check_mount(prefix, proxy)
    if database is not None:
        for url in find_databases(database, runs):
            read_study_names(url)
    logging.getLogger("waitress").setLevel(logging.ERROR)  # not its warnings about slow pages
    app = make_app(Library(database, runs), token=token, prefix=prefix)
    try:
        server = make_server(app.server, host, port, prefix=prefix, proxy=proxy)
    except (OSError, ValueError):
        raise UserError(
            [f"dashboard: can't listen on {host}:{port}; if another dashboard uses it, choose another --port"]
        ) from None
    named = "localhost" if is_loopback(host) else host
    print(
        f"http://{named}:{server.port}{prefix}/ (Ctrl-C to stop)"
        + ("; add ?token=… on the first visit" if token else ""),
        flush=True,
    )
    if not is_loopback(host):
        print(TLS.format(host=host, port=server.port), flush=True)
    try:
        server.run()
    except KeyboardInterrupt:
        pass
    finally:
        app.site.close()
