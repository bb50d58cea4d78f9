"""The connection of this process to a Ray cluster."""

from __future__ import annotations

import os
import socket

import ray
from ray._private.services import canonicalize_bootstrap_address

from search.config.errors import RunError

HEAD_S = 10.0  # of waiting for the head's answer
START = "start one with `ray start --head`, or give its address with --address"
TOKEN = "if it asks for a token, set RAY_AUTH_MODE=token and put its token in ~/.ray/auth_token"


def connect(address: str) -> None:
    """Connect this process to one cluster. Raises RunError if there is none at the address."""
    if ray.is_initialized():
        if address in ("auto", ray.get_runtime_context().gcs_address):
            return
        ray.shutdown()
    answers = require_head(address)
    try:
        ray.init(address=address, namespace="voxnas", log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, ValueError, RuntimeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        advice = TOKEN if answers and not os.environ.get("RAY_AUTH_MODE") else START
        raise RunError([f"no Ray cluster at {address!r}: {reason}; {advice}"]) from None


def require_head(address: str) -> bool:
    """Return whether something answers at a cluster's address; False if it names no host, and `ray.init` says why.

    "auto" is the address in RAY_ADDRESS, or that of the last cluster started on this machine. Raises RunError if
    nothing answers; Ray itself would try again for minutes.
    """
    try:
        found = canonicalize_bootstrap_address(address.removeprefix("ray://")) or ""
    except (ConnectionError, OSError, ValueError):
        return False
    host, _, port = found.rpartition(":")
    if not host or not port.isdigit():
        return False
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=HEAD_S).close()
    except (OSError, OverflowError) as error:
        named = os.environ.get("RAY_ADDRESS") or found if address == "auto" else address
        reason = getattr(error, "strerror", None) or str(error)
        raise RunError([f"no Ray cluster at {named}: {reason}; {START}"]) from None
    return True
