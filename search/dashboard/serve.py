"""Serves the dashboard: to this machine only, or to anyone with the token."""

from __future__ import annotations

import logging
from pathlib import Path

from werkzeug.serving import make_server

from search.config import UserError
from search.dashboard.app import make_app
from search.dashboard.library import Library
from search.dashboard.security import TLS, check_access, is_loopback
from search.storage.admin import find_databases


def serve(database: str | None, *, runs: Path, host: str, port: int, token: str | None) -> None:
    """Print the URL and serve until interrupted. Raises UserError for a missing token or a port in use."""
    check_access(host, token)
    if database is not None:
        find_databases(database, runs)
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    app = make_app(Library(database, runs), token=token)
    try:
        server = make_server(host, port, app.server, threaded=True)
    except (OSError, SystemExit):
        raise UserError(
            [f"dashboard: can't listen on {host}:{port}; if another dashboard uses it, choose another --port"]
        ) from None
    named = "localhost" if is_loopback(host) else host
    print(
        f"http://{named}:{server.port}/ (Ctrl-C to stop)" + ("; add ?token=… on the first visit" if token else ""),
        flush=True,
    )
    if not is_loopback(host):
        print(TLS.format(host=host, port=server.port), flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass
    finally:
        app.site.close()
