"""The digest that stored values end with, so that digits which a disk or an editor changed are found in reading."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from pydantic_core import from_json

DIGEST = "digest"
LENGTH = 16
ENDING = len(f', "{DIGEST}": "{"0" * LENGTH}"}}')  # characters of the digest in JSON
PLAIN = "value"  # the key of a list or a text, which has no keys


class DigestError(ValueError):
    """Raised for values that differ from their digest."""

    def __init__(self) -> None:
        super().__init__("the content differs from its digest")


def sealed(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values for JSON with their digest as the last one."""
    return {**values, DIGEST: _digest(json.dumps(values))}


def sealed_value(value: Any) -> dict[str, Any]:
    """Return a value of any kind for JSON, with its digest."""
    return sealed(value if isinstance(value, Mapping) else {PLAIN: value})


def unsealed(value: Any) -> Any:
    """Return a sealed value; what earlier versions wrote has no digest. Raises DigestError if the two differ."""
    digest, kept = _split(value)
    if digest is not None and not _is_digest(digest, json.dumps(kept)):
        raise DigestError
    return _plain(value, kept)


def unsealed_text(text: str) -> Any:
    """Return a sealed value from its JSON text. Raises ValueError if that is no JSON, and DigestError, a ValueError.

    Ten thousand records are 200 MB: the text itself is compared, unless a program has formatted it again.
    """
    value = from_json(text)
    digest, kept = _split(value)
    if digest is not None and not _is_digest(digest, f"{text[:-ENDING]}}}"):
        return unsealed(value)
    return _plain(value, kept)


def _split(value: Any) -> tuple[Any, Any]:
    if not isinstance(value, dict) or DIGEST not in value:
        return None, value
    return value[DIGEST], {key: each for key, each in value.items() if key != DIGEST}


def _plain(value: Any, kept: Any) -> Any:
    return kept[PLAIN] if isinstance(value, dict) and set(value) == {PLAIN, DIGEST} else kept


def _is_digest(digest: Any, text: str) -> bool:
    """Return whether a digest is that of a text; earlier versions wrote longer ones."""
    whole = hashlib.sha256(text.encode()).hexdigest()
    return isinstance(digest, str) and len(digest) >= LENGTH and whole.startswith(digest)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:LENGTH]
