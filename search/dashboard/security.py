"""Access control (this machine only, or a token) and the security headers of every response."""

from __future__ import annotations

import hmac
import ipaddress
import re
from urllib.parse import urlencode

from flask import Flask, Response, redirect, request
from werkzeug.wrappers import Response as AnyResponse

from search.config import UserError

COOKIE = "voxnas_token"
MIN_TOKEN_LENGTH = 16  # characters
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
{host} accepts connections from other machines, and the token and the pages are sent unencrypted.
Put TLS in front of it (then use --host 127.0.0.1, --token and --trusted-proxy 127.0.0.1 here):
  caddy reverse-proxy --from NAME.EXAMPLE --to 127.0.0.1:{port}
or keep the default --host and forward the port from the other machine:
  ssh -L {port}:127.0.0.1:{port} THIS-MACHINE"""


def is_loopback(host: str) -> bool:
    """Return whether a host name is a loopback address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check_access(host: str, token: str | None) -> None:
    """Raise UserError if other machines could connect without a token, or if the token is too short."""
    if not is_loopback(host) and not token:
        raise UserError(
            [
                f"dashboard: --host {host} accepts connections from other machines; "
                "set a token with --token or VOXNAS_TOKEN"
            ]
        )
    if token and len(token) < MIN_TOKEN_LENGTH:
        raise UserError(
            [f"dashboard: the token has {len(token)} characters and could be guessed; use at least {MIN_TOKEN_LENGTH}"]
        )


def check_mount(prefix: str, proxy: str | None) -> None:
    """Raise UserError if the prefix is no path, or the proxy no address."""
    mistakes = []
    if prefix and not re.fullmatch(r"(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+", prefix):
        mistakes.append(f"dashboard: --prefix {prefix!r} is not a path such as /voxnas")
    if proxy is not None:
        try:
            ipaddress.ip_address(proxy)
        except ValueError:
            mistakes.append(f"dashboard: --trusted-proxy {proxy!r} is not an IP address such as 127.0.0.1")
    if mistakes:
        raise UserError(mistakes)


def secure(server: Flask, token: str | None) -> None:
    """Require the token (without one: a loopback host name) in every request, and set the headers of every response."""

    @server.before_request
    def _admit() -> AnyResponse | None:
        if token is None:
            named = request.host.rsplit(":", 1)[0] if not request.host.endswith("]") else request.host
            return (
                None if is_loopback(named) else Response("this dashboard accepts requests from this machine only", 403)
            )
        if _is_token(request.cookies.get(COOKIE, ""), token) or _is_token(_bearer(), token):
            return None
        if _is_token(request.args.get("token", ""), token):
            return _remember(token)
        return Response("a token is required: open this URL with ?token=…", 401, {"WWW-Authenticate": "Bearer"})

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
    """Move the token from the URL, which histories and screenshots keep, into a cookie."""
    rest = urlencode([(key, value) for key, value in request.args.items(multi=True) if key != "token"])
    answer = redirect(request.script_root + request.path + (f"?{rest}" if rest else ""))
    place = request.script_root or "/"
    answer.set_cookie(COOKIE, token, path=place, httponly=True, samesite="Strict", secure=request.is_secure)
    return answer
