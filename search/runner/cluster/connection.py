"""The connection of this process to a Ray cluster."""

from __future__ import annotations

import logging
import os
import socket

import ray
from ray._private.authentication import authentication_token_setup as tokens
from ray._private.services import canonicalize_bootstrap_address

from search.config.errors import RunError

HEAD_S = 10.0  # of waiting for the head's answer
START = "start one with `ray start --head`, or give its address with --address"
logging.getLogger(tokens.__name__).setLevel(logging.ERROR)  # that tokens are used is no warning
TOKEN = "if it asks for a token, set RAY_AUTH_MODE=token and put its token in ~/.ray/auth_token"


def connect(address: str) -> None:
    """Connect this process to one cluster. Raises RunError if there is none at the address."""
    if ray.is_initialized():
        if address in ("auto", ray.get_runtime_context().gcs_address):
            return
        ray.shutdown()
    host = answering_host(address)
    if host and is_this_machine(host):
        tokens.maybe_enable_token_auth_if_token_available(warn_if_disabled=False)
    try:
        ray.init(address=address, namespace="voxnas", log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, ValueError, RuntimeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        advice = TOKEN if host and not os.environ.get("RAY_AUTH_MODE") else START
        raise RunError([f"no Ray cluster at {address!r}: {reason}; {advice}"]) from None


def answering_host(address: str) -> str:
    """Return the host that answers at a cluster's address; empty if the address names none, and `ray.init` says why.

    "auto" is the address in RAY_ADDRESS, or that of the last cluster started on this machine. Raises RunError if
    nothing answers; Ray itself would try again for minutes.
    """
    try:
        found = canonicalize_bootstrap_address(address.removeprefix("ray://")) or ""
    except (ConnectionError, OSError, ValueError):
        return ""
    host, _, port = found.rpartition(":")
    if not host or not port.isdigit():
        return ""
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=HEAD_S).close()
    except (OSError, OverflowError) as error:
        named = os.environ.get("RAY_ADDRESS") or found if address == "auto" else address
        reason = getattr(error, "strerror", None) or str(error)
        raise RunError([f"no Ray cluster at {named}: {reason}; {START}"]) from None
    return host.strip("[]")


def is_this_machine(host: str) -> bool:
    """Return whether a host is this machine.

    A cluster here may be asked with the token of this user, as Ray does for "auto"; elsewhere only on request.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        socket.create_server((host, 0), family=family).close()  # only an own address can be bound
    except OSError:
        return False
    return True
