"""Who may look: this machine alone, or whoever has the token; and what a browser is allowed to do with the pages."""

from __future__ import annotations

import hmac
import ipaddress
from urllib.parse import urlencode

from flask import Flask, Response, redirect, request
from werkzeug.wrappers import Response as AnyResponse

from search.config import UserError

COOKIE = "voxnas_token"
SHORTEST = 16  # letters of a token
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
        "connect-src 'self'; font-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}
TLS = """\
{host} is open to others: put TLS before it, or the token and the pages travel readably. For example
  caddy reverse-proxy --from NAME.EXAMPLE --to 127.0.0.1:{port}     (with --host 127.0.0.1 here, and --token)
or leave it on this machine and look from another with
  ssh -L {port}:127.0.0.1:{port} THIS-MACHINE"""


def is_loopback(host: str) -> bool:
    """Tell whether a host's name is this machine, reached from this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check_access(host: str, token: str | None) -> None:
    """Raise UserError where others could look without a token, or the token is too short."""
    if not is_loopback(host) and not token:
        raise UserError([f"dashboard: --host {host} lets others look; give --token, or VOXNAS_TOKEN, for that"])
    if token and len(token) < SHORTEST:
        raise UserError([f"dashboard: a token of {len(token)} letters can be guessed; use {SHORTEST} or more"])


def secure(server: Flask, token: str | None) -> None:
    """Ask every request for the token (or, without one, that it names this machine), and set every answer's headers."""

    @server.before_request
    def _admit() -> AnyResponse | None:
        if token is None:
            named = request.host.rsplit(":", 1)[0] if not request.host.endswith("]") else request.host
            return None if is_loopback(named) else Response("this dashboard answers this machine alone", 403)
        if _is_token(request.cookies.get(COOKIE, ""), token) or _is_token(_bearer(), token):
            return None
        if _is_token(request.args.get("token", ""), token):
            return _remember(token)
        return Response("a token is needed: open the address with ?token=…", 401, {"WWW-Authenticate": "Bearer"})

    @server.after_request
    def _harden(response: Response) -> Response:
        response.headers.update(HEADERS)
        if not request.path.startswith(("/_dash-component", "/assets")):
            response.headers["Cache-Control"] = "no-store"
        return response


def _is_token(given: str, token: str) -> bool:
    return hmac.compare_digest(given.encode(), token.encode())


def _bearer() -> str:
    return request.headers.get("Authorization", "").removeprefix("Bearer ")


def _remember(token: str) -> AnyResponse:
    """Take the token out of the address, where a history or a screenshot would keep it, into a cookie."""
    rest = urlencode([(key, value) for key, value in request.args.items(multi=True) if key != "token"])
    answer = redirect(request.path + (f"?{rest}" if rest else ""))
    answer.set_cookie(COOKIE, token, httponly=True, samesite="Strict", secure=request.is_secure)
    return answer
