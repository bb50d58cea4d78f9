"""Passwords in text that may be shown: in URLs of databases, well-formed or not."""

from __future__ import annotations

import re
from collections.abc import Sequence

HIDDEN = "***"


def without_secret(text: str) -> str:
    """Replace what may be a password: all between a scheme and the last @, between a colon and an @, and in queries."""
    text = re.sub(r"(?i)(pass\w*|pwd)=[^&\s'\"]*", rf"\1={HIDDEN}", text)
    text = re.sub(r"(?s)(://).*@", rf"\1{HIDDEN}@", text)
    return re.sub(r":(?![\s/])[^\s:]*@", f":{HIDDEN}@", text)


def without_arguments_secrets(text: str, arguments: Sequence[str]) -> str:
    """Replace the passwords of a command's arguments, wherever a message repeats them."""
    for argument in arguments:
        address = re.sub(r"^(?:[\w.@-]+=)?\s*(?:[\w+.-]+:/+)?", "", argument)
        found = re.match(r"(?s)[^:@]*:(.+)@", address)
        if found:
            text = text.replace(f":{found[1]}@", f":{HIDDEN}@")
        for _, value in re.findall(r"(?i)(pass\w*|pwd)=([^&\s'\"]+)", argument):
            text = text.replace(f"={value}", f"={HIDDEN}")
    return text
