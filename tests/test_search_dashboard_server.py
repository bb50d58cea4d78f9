"""The dashboard's web server: slow and malformed clients, a proxy in front, and the environment."""

import http.client
import json
import re
import resource
import socket
import threading
import time
from contextlib import closing, contextmanager, suppress

import pytest
from synthetic_study import synthetic_records, write_synthetic_study

from search.config import UserError
from search.dashboard import server as serving
from search.dashboard.app import make_app
from search.dashboard.calls import is_call
from search.dashboard.library import Library
from search.dashboard.security import check_mount
from search.dashboard.server import BODY_BYTES, HEADER_BYTES, THREADS, allowed_files, make_server

TOKEN = "a-long-and-secret-token"
CALL = "/_dash-update-component"
TICK = {
    "output": "version.data",
    "outputs": {"id": "version", "property": "data"},
    "changedPropIds": ["tick.n_intervals"],
    "inputs": [{"id": "tick", "property": "n_intervals", "value": 1}],
    "state": [{"id": "url", "property": "pathname", "value": "/"}, {"id": "drawn", "property": "data", "value": None}],
}
PAGE = {
    "output": "..page.children...drawn.data..",
    "outputs": [{"id": "page", "property": "children"}, {"id": "drawn", "property": "data"}],
    "changedPropIds": ["url.pathname"],
    "inputs": [
        {"id": "url", "property": "pathname", "value": "/study/made/front"},
        {"id": "url", "property": "search", "value": ""},
        {"id": "version", "property": "data", "value": None},
    ],
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    write_synthetic_study(folder, "made", synthetic_records(20))
    return folder


@contextmanager
def served(runs, *, token=None, prefix="", proxy=None):
    """Serve the runs folder within the context; yield the server."""
    app = make_app(Library(None, runs), token=token, prefix=prefix)
    server = make_server(app.server, "127.0.0.1", 0, prefix=prefix, proxy=proxy)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield server
    finally:
        server.stop()
        thread.join(10)
        app.site.close()
        assert not thread.is_alive()


def get(server, path, method="GET", body=None, **headers):
    """Send a request; return the status, headers and body of the answer."""
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)) as connection:
        connection.request(method, path, body, {"Host": "localhost", **headers})
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read().decode(errors="replace")  # an icon is no text


def test_slow_connections_take_no_threads_and_are_closed(runs, monkeypatch):
    monkeypatch.setattr(serving, "REQUEST_S", 2)
    monkeypatch.setattr(serving, "CHECKED_EVERY_S", 0.2)
    with served(runs) as server:
        before = threading.active_count()
        slow = [socket.create_connection(("127.0.0.1", server.port), timeout=20) for _ in range(300)]
        for each in slow[::2]:
            each.sendall(b"POST / HTTP/1.1\r\nHost: localhost\r\nX-Sl")  # the others send nothing
        assert get(server, "/study/made/front")[0] == 200
        assert threading.active_count() == before <= THREADS + 5
        end = time.monotonic() + 20
        while len(server.active_channels) > 1 and time.monotonic() < end:
            for each in slow[::50]:
                try:
                    each.sendall(b"o")  # a byte now and then does not keep a connection open
                except OSError:
                    continue
            time.sleep(0.2)
        assert len(server.active_channels) <= 1
        assert get(server, "/")[0] == 200
        for each in slow:
            each.close()


def test_requests_are_answered_at_once_while_slow_connections_take_all_places(runs, monkeypatch):
    monkeypatch.setattr(serving, "CONNECTIONS", 40)
    with served(runs) as server:
        slow = [socket.create_connection(("127.0.0.1", server.port), timeout=20) for _ in range(120)]
        for each in slow[::2]:
            with suppress(OSError):  # closed already
                each.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Sl")
        began = time.monotonic()
        for _ in range(3):
            assert get(server, "/study/made/front")[0] == 200
        assert time.monotonic() - began < serving.REQUEST_S / 2
        assert len(server.active_channels) < 40
        for each in slow:
            each.close()


def test_a_low_limit_of_open_files_is_raised():
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (before[1] - 10, before[1]))
        assert allowed_files(before[1] - 5) == before[1] - 5 == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        assert allowed_files(before[1] + 5) == before[1]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_large_bodies_and_headers_are_refused_before_the_token_is_looked_at(runs):
    with served(runs, token=TOKEN) as server:
        assert get(server, CALL, "POST", b" " * (BODY_BYTES + 1))[0] == 413
        assert get(server, "/", Cookie="a" * (HEADER_BYTES + 1))[0] == 431
        assert get(server, CALL, "POST", b"{}")[0] == 401
        status, headers, _ = get(server, "/", Authorization=f"Bearer {TOKEN}")
        assert status == 200 and "Server" not in headers


def changed(call, **values):
    return json.dumps({**call, **values})


MALFORMED = [
    b"",
    b"{",
    b"\xff\xfe",
    b"null",
    b"[]",
    b"3",
    b'"text"',
    b"{}",
    b"[" * 3000,
    b'{"output": 3}',
    changed(TICK, output="nothing.data"),
    changed(TICK, output=["version.data"]),
    changed(TICK, output="..version.data.."),
    changed(TICK, inputs=None),
    changed(TICK, inputs=[]),
    changed(TICK, inputs={"id": "tick"}),
    changed(TICK, inputs=[[TICK["inputs"][0]]]),
    changed(TICK, inputs=[{"id": "other", "property": "n_intervals", "value": 1}]),
    changed(TICK, inputs=[{"id": {"type": "tick"}, "property": "n_intervals", "value": 1}]),
    changed(TICK, inputs=[{"id": "tick", "property": "n_intervals", "value": "many"}]),
    changed(TICK, inputs=[*TICK["inputs"], *TICK["inputs"]]),
    changed(TICK, state=[]),
    changed(TICK, state=3),
    changed(TICK, state=[{"id": "url", "property": "pathname", "value": 3}, TICK["state"][1]]),
    changed(TICK, state=[TICK["state"][0], {"id": "drawn", "property": "data", "value": {"a": 1}}]),
    changed(TICK, outputs=[]),
    changed(TICK, outputs=3),
    changed(TICK, outputs={"id": "page", "property": "children"}),
    changed(TICK, changedPropIds=3),
    changed(TICK, changedPropIds=[{}]),
    changed(PAGE, outputs=PAGE["outputs"][:1]),
    changed(PAGE, inputs=[{**each, "value": ["a"]} for each in PAGE["inputs"]]),
    changed(PAGE, inputs=[{**each, "value": "\ud800"} for each in PAGE["inputs"]]),
]


def test_malformed_calls_of_callbacks_are_refused_without_a_traceback(runs, caplog, capsys):
    app = make_app(Library(None, runs), token=None)
    client = app.server.test_client()
    for kind in ("application/json", "text/plain"):
        for body in MALFORMED:
            answer = client.post(CALL, data=body, headers={"Host": "localhost", "Content-Type": kind})
            assert answer.status_code == 400, body
    for path in ("/_dash-component-suites/nothing/x.js", "/_dash-component-suites/dash/../../etc"):
        assert client.get(path, headers={"Host": "localhost"}).status_code in (404, 200)
    assert not caplog.records and "Traceback" not in capsys.readouterr().err
    for call in (TICK, PAGE):
        assert is_call(call, app.callback_map)
        assert client.post(CALL, json=call, headers={"Host": "localhost"}).status_code == 200
    app.site.close()


@pytest.mark.parametrize("kept", [True, False], ids=["the proxy keeps the prefix", "the proxy removes the prefix"])
def test_every_address_of_a_page_answers_below_a_prefix(runs, kept):
    with served(runs, prefix="/lab/voxnas") as server:
        sent = "/lab/voxnas" if kept else ""
        status, _, html = get(server, f"{sent}/study/made/front")
        assert status == 200
        addresses = [each.split('"')[0] for part in ('src="', 'href="') for each in html.split(part)[1:]]
        addresses = [each for each in addresses if not each.startswith("data:")]
        assert len(addresses) > 15 and all(each.startswith("/lab/voxnas/") for each in addresses)
        for each in {*addresses, "/lab/voxnas/_dash-layout", "/lab/voxnas/_dash-dependencies"}:
            assert get(server, each if kept else each.removeprefix("/lab/voxnas"))[0] == 200, each
        call = changed(
            PAGE, inputs=[{**PAGE["inputs"][0], "value": "/lab/voxnas/study/made/front"}, *PAGE["inputs"][1:]]
        )
        status, _, answer = get(server, f"{sent}{CALL}", "POST", call, **{"Content-Type": "application/json"})
        assert status == 200 and "/lab/voxnas/study/made/trial" in json.dumps(json.loads(answer))


@pytest.mark.parametrize(("proxy", "scheme", "secure"), [("127.0.0.1", "https", True), ("127.0.0.1", "http", False)])
def test_the_cookie_is_secure_behind_a_trusted_proxy_with_tls(runs, proxy, scheme, secure):
    with served(runs, token=TOKEN, proxy=proxy, prefix="/voxnas") as server:
        status, headers, _ = get(server, f"/?token={TOKEN}", **{"X-Forwarded-Proto": scheme})
    cookie = headers["Set-Cookie"]
    assert status == 302 and headers["Location"] == "/voxnas/" and ("; Secure" in cookie) == secure
    assert "; HttpOnly" in cookie and "; Path=/voxnas" in cookie and "; SameSite=Strict" in cookie


@pytest.mark.parametrize("proxy", [None, "192.0.2.7"])
def test_headers_of_an_untrusted_proxy_are_ignored(runs, proxy):
    with served(runs, token=TOKEN, proxy=proxy) as server:
        _, headers, _ = get(server, f"/?token={TOKEN}", **{"X-Forwarded-Proto": "https", "X-Forwarded-Host": "evil"})
    assert "; Secure" not in headers["Set-Cookie"] and headers["Location"] == "/"


@pytest.mark.parametrize("prefix", ["voxnas", "/voxnas/", "//evil.example", "/a/../b", "/a b", '/"><script>', "/"])
def test_a_prefix_that_is_no_path_is_refused(prefix):
    with pytest.raises(UserError, match=r"--prefix .* is not a path such as /voxnas"):
        check_mount(prefix, None)


def test_a_proxy_that_is_no_address_is_refused():
    with pytest.raises(UserError, match=r"--trusted-proxy '\*' is not an IP address such as 127.0.0.1"):
        check_mount("/lab/voxnas", "*")


def test_the_environment_does_not_configure_dash(runs, monkeypatch):
    plain = make_app(Library(None, runs), token=None)
    for name, value in {
        "DASH_DEBUG": "true",
        "DASH_HOT_RELOAD": "true",
        "DASH_UI": "true",
        "DASH_REQUESTS_PATHNAME_PREFIX": "/evil/",
        "DASH_ROUTES_PATHNAME_PREFIX": "/evil/",
        "DASH_ASSETS_EXTERNAL_PATH": "https://evil.example/",
        "DASH_COMPRESS": "true",
        "DASH_MCP_ENABLED": "true",
        "dash_serve_dev_bundles": "true",
    }.items():
        monkeypatch.setenv(name, value)
    pinned = make_app(Library(None, runs), token=None)
    texts = [app.server.test_client().get("/", headers={"Host": "localhost"}).text for app in (plain, pinned)]
    pages = [re.sub(r'"end_id":"[^"]*"', "", text) for text in texts]  # random in each application
    assert pages[0] == pages[1] and "evil" not in pages[1]
    assert pinned._dev_tools == plain._dev_tools and not pinned._dev_tools.ui and not pinned._dev_tools.hot_reload
    for app in (plain, pinned):
        app.site.close()
