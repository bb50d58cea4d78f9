"""Calls of the page's callbacks: Dash takes any JSON and fails inside, so malformed calls are refused before."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from dash.exceptions import DependencyException
from flask import Flask, Response, request

CALLBACKS = "/_dash-update-component"
NUMBERS = ("n_intervals",)  # properties whose values are numbers; all others are texts


def refuse_malformed(server: Flask, callbacks: Mapping[str, Mapping[str, Any]]) -> None:
    """Answer a malformed call of a callback with 400, and an unknown package of Dash's scripts with 404."""

    @server.before_request
    def _check() -> Response | None:
        if request.path != CALLBACKS or request.method != "POST":
            return None
        try:
            body = json.loads(request.get_data())
        except (ValueError, RecursionError):
            body = None
        return None if is_call(body, callbacks) else Response("malformed call of a callback", 400)

    @server.errorhandler(DependencyException)
    def _unknown_package(_: DependencyException) -> Response:
        return Response("not found", 404)


def is_call(body: Any, callbacks: Mapping[str, Mapping[str, Any]]) -> bool:
    """Return whether a request's JSON calls one of the callbacks with the right properties and kinds of values."""
    if not isinstance(body, dict) or not isinstance(body.get("output"), str) or body["output"] not in callbacks:
        return False
    known = callbacks[body["output"]]
    outputs, changed = body.get("outputs"), body.get("changedPropIds", [])
    return (
        _are_values(body.get("inputs"), known["inputs"])
        and _are_values(body.get("state", []), known["state"])
        and _are_names(outputs if isinstance(outputs, list) else [outputs], body["output"])
        and isinstance(changed, list)
        and all(_is_text(each) for each in changed)
    )


def _are_values(given: Any, expected: Sequence[Mapping[str, Any]]) -> bool:
    if not isinstance(given, list) or len(given) != len(expected):
        return False
    return all(
        isinstance(each, dict)
        and (each.get("id"), each.get("property")) == (wanted["id"], wanted["property"])
        and _is_value(each.get("value"), number=wanted["property"] in NUMBERS)
        for each, wanted in zip(given, expected, strict=True)
    )


def _are_names(given: Sequence[Any], output: str) -> bool:
    """Return whether these are the properties that a callback's name lists: ..ID.PROPERTY...ID.PROPERTY.. or one."""
    expected = output.strip(".").split("...")
    return len(given) == len(expected) and all(
        isinstance(each, dict) and f"{each.get('id')}.{each.get('property')}" == name
        for each, name in zip(given, expected, strict=True)
    )


def _is_value(value: Any, *, number: bool) -> bool:
    if value is None:
        return True
    return isinstance(value, int) if number else _is_text(value)


def _is_text(value: Any) -> bool:
    """Return whether a value is a text that can be encoded: JSON may hold halves of characters."""
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
