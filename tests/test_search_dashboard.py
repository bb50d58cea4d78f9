"""The dashboard's server without a browser: access control, escaping, reading, the cost of a poll."""

import json
import os
import re
import sqlite3
import subprocess
import sys
import time
import urllib.request
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from synthetic_study import add_records, synthetic_records, synthetic_study, write_synthetic_study
from werkzeug.test import Client

from search.analysis.snapshot_reader import SnapshotReader
from search.config import UserError
from search.dashboard.app import make_app, read_path
from search.dashboard.library import Library
from search.dashboard.security import check_access, is_loopback
from search.dashboard.worker import Worker
from search.files.digests import sealed, unsealed_text
from search.storage import STUDY, open_storage
from search.trials.records import Measurement
from search.visualization.slow_tasks import importances
from space.architecture import Architecture

TOKEN = "a-long-and-secret-token"
VIEWS = ("front", "progress", "importance", "trial", "compare", "references", "ablations")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    write_synthetic_study(folder, "made", synthetic_records(60))
    write_synthetic_study(folder, "empty", [])
    write_synthetic_study(folder, "failed", synthetic_records(3, state="failed"))
    write_synthetic_study(folder, "one", synthetic_records(1, state="trained"))
    return folder


@pytest.fixture(scope="module")
def app(runs):
    made = make_app(Library(None, runs), token=None)
    yield made
    made.site.close()


def get(app, path, **headers):
    return app.server.test_client().get(path, headers={"Host": "localhost", **headers})


def page(app, path, search=""):
    """Return the response of Dash's callback for a URL."""
    body = {
        "output": "..page.children...drawn.data..",
        "outputs": [{"id": "page", "property": "children"}, {"id": "drawn", "property": "data"}],
        "changedPropIds": ["url.pathname"],
        "inputs": [
            {"id": "url", "property": "pathname", "value": path},
            {"id": "url", "property": "search", "value": search},
            {"id": "version", "property": "data", "value": None},
        ],
    }
    answer = app.server.test_client().post("/_dash-update-component", json=body, headers={"Host": "localhost"})
    assert answer.status_code == 200, answer.text
    return answer.text


@pytest.mark.parametrize("study", ["made", "empty", "failed", "one"])
@pytest.mark.parametrize("view", VIEWS)
def test_every_view_of_every_study_answers(app, study, view):
    assert get(app, f"/study/{study}/{view}").status_code == 200
    assert "main" in page(app, f"/study/{study}/{view}").lower()


def test_a_url_reopens_a_view_and_invalid_parameters_are_ignored(app):
    assert '"value": "latency"' in page(app, "/study/made/front", "?x=latency").replace('":"', '": "')
    html = page(app, "/study/made/front", "?x=nonsense&color=__class__&lasso=memory,dice:1,nan;2,3;4,5&z=../../etc")
    assert "nonsense" not in html and "__class__" not in html
    assert read_path("/study/a%2F..%2Fb/front") == ("a/../b", "front")


@pytest.mark.parametrize("name", ["..", "..%2F..", "made%2F..%2Fmade", "%2Fetc%2Fpasswd", "a b", "made%00"])
def test_a_study_name_cannot_leave_the_runs_folder(app, name):
    assert "There is no study" in page(app, f"/study/{name}/trial")
    answer = get(app, f"/voxnas/{name}")
    assert answer.status_code == 404 or answer.text.startswith("<!DOCTYPE html>")  # Dash's page for any other path


def test_every_response_has_headers_that_forbid_inline_and_external_scripts(app):
    for path in ("/", "/study/made/front", "/voxnas/figures.js", "/_dash-layout"):
        headers = get(app, path).headers
        policy = dict(each.strip().split(" ", 1) for each in headers["Content-Security-Policy"].split(";"))
        assert policy["script-src"] == "'self'" and policy["default-src"] == "'none'"
        assert headers["X-Content-Type-Options"] == "nosniff" and headers["X-Frame-Options"] == "DENY"
    html = get(app, "/study/made/front").text
    scripts = re.findall(r"<script\b([^>]*)>([^<]*)", html)
    assert all("src=" in attributes or "application/json" in attributes for attributes, _ in scripts)
    assert "https://" not in re.sub(r"data-figure=\"[^\"]*\"", "", html)  # no external resources


def test_without_a_token_only_requests_from_this_machine_are_accepted(app):
    assert get(app, "/", Host="localhost:8050").status_code == 200
    assert get(app, "/", Host="127.0.0.1").status_code == 200
    for host in ("evil.example", "evil.example:8050", "127.0.0.1.evil.example"):  # DNS rebinding
        refused = get(app, "/", Host=host)
        assert refused.status_code == 403 and refused.text == "this dashboard accepts requests from this machine only"


def test_with_a_token_every_request_without_it_is_refused(runs):
    app = make_app(Library(None, runs), token=TOKEN)
    for path in ("/", "/study/made/front", "/_dash-layout", "/_dash-dependencies", "/voxnas/plotly.js"):
        assert get(app, path, Host="study.example").status_code == 401
    refused = get(app, "/?token=wrong")
    assert refused.status_code == 401 and refused.text == "a token is required: open this URL with ?token=…"
    assert get(app, "/", Authorization=f"Bearer {TOKEN}").status_code == 200
    client = app.server.test_client()
    moved = client.get(f"/study/made/front?x=latency&token={TOKEN}")
    assert moved.status_code == 302 and moved.headers["Location"].endswith("/study/made/front?x=latency")
    cookie = moved.headers["Set-Cookie"]
    assert "HttpOnly" in cookie and "SameSite=Strict" in cookie
    assert client.get("/study/made/front").status_code == 200


def test_a_token_is_compared_in_constant_time(runs, monkeypatch):
    compared = []
    import hmac

    real = hmac.compare_digest
    monkeypatch.setattr(
        "search.dashboard.security.hmac.compare_digest", lambda a, b: compared.append((a, b)) or real(a, b)
    )
    get(make_app(Library(None, runs), token=TOKEN), "/?token=guess")
    assert (b"guess", TOKEN.encode()) in compared


def test_a_host_other_than_loopback_needs_a_long_token():
    assert is_loopback("127.0.0.1") and is_loopback("::1") and not is_loopback("0.0.0.0")
    check_access("127.0.0.1", None)
    check_access("0.0.0.0", TOKEN)
    with pytest.raises(UserError, match="--host 0.0.0.0 accepts connections from .*set a token with --token or VOXNAS"):
        check_access("0.0.0.0", None)
    with pytest.raises(UserError, match="the token has 3 characters and could be guessed; use at least 16"):
        check_access("0.0.0.0", "abc")


def test_the_command_serves_explains_tls_and_is_not_in_debug_mode(runs):
    command = [sys.executable, "-m", "search.cli", "dashboard", "--runs", str(runs), "--port", "0", "--host", "0.0.0.0"]
    refused = subprocess.run(command, capture_output=True, text=True)
    assert refused.returncode == 2 and "set a token" in refused.stderr and "Traceback" not in refused.stderr
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "VOXNAS_TOKEN": TOKEN}
    ) as server:
        try:
            lines = [server.stdout.readline() for _ in range(6)]
            text, port = "".join(lines), re.search(r":(\d+)/", lines[0])[1]
            assert "add ?token=… on the first visit" in lines[0]
            assert "caddy reverse-proxy" in text and "ssh -L" in text and TOKEN not in text
            request = urllib.request.Request(
                f"http://127.0.0.1:{port}/_dash-layout", headers={"Authorization": f"Bearer {TOKEN}"}
            )
            with urllib.request.urlopen(request) as answer:
                assert "_dash_debug" not in answer.read().decode() and answer.status == 200
        finally:
            server.terminate()


def test_names_from_a_study_are_escaped(tmp_path):
    mark = "<img src=x onerror=alert(1)>"
    records = synthetic_records(12, state="trained")
    worst = replace(
        records[0],
        measurement=Measurement("failed", f"</script>{mark}"),
        architecture=Architecture.of({**dict(records[0].architecture.entries), "encoder": mark}),
        decisions=(*records[0].decisions, ("axis" + mark, mark)),
    )
    records[1] = replace(records[1], decisions=(*records[1].decisions, ("axis" + mark, "plain")))
    write_synthetic_study(tmp_path, "made", [worst, *records[1:]])
    app = make_app(Library(None, tmp_path), token=None)
    for view in VIEWS:
        html = get(app, f"/study/made/{view}?color=axis{mark}&trial=0&rows=all").text
        assert mark not in html
    figure = re.search(r'data-figure="([^"]*)"', get(app, f"/study/made/front?color=axis{mark}").text)[1]
    assert "<img" not in figure


@pytest.mark.parametrize("kept", [1, [], {}, {"a": 1}, {"data": 1, "objectives": 2}, {"data": {}, "objectives": {}}])
def test_a_study_of_another_program_in_the_same_database_is_listed_but_not_opened(tmp_path, kept):
    file = write_synthetic_study(tmp_path, "made", synthetic_records(12))
    with open_storage(f"sqlite:///{file}") as storage:
        optuna.create_study(study_name="other", storage=storage).set_user_attr(STUDY, kept)
    app = make_app(Library(f"sqlite:///{file}", tmp_path), token=None)
    assert "other" in page(app, "/")
    assert "There is no study" in page(app, "/study/other/front")
    for view in VIEWS:
        assert "made" in page(app, f"/study/made/{view}")
    app.site.close()


def test_the_dashboard_cannot_write_to_the_database(runs):
    file = runs / "made" / "study.db"
    reader = SnapshotReader(synthetic_study("made"), file.parent, f"sqlite:///{file}")
    import sqlalchemy as sql

    with reader.engine.connect() as connection, pytest.raises(sql.exc.OperationalError, match="readonly database"):
        connection.execute(sql.text("DELETE FROM trials"))


def test_a_poll_reads_only_new_and_running_trials(tmp_path):
    running = synthetic_records(1, first=20, state="running")
    file = write_synthetic_study(tmp_path, "made", [*synthetic_records(20), *running])
    reader = SnapshotReader(synthetic_study("made"), file.parent, f"sqlite:///{file}")
    first, asked = reader.read(), []
    rows = reader._rows
    reader._rows = lambda **which: asked.append(list(rows(**which))) or asked[-1]
    assert reader.read() is first and [row.number for row in asked.pop()] == [20]
    add_records(file, synthetic_records(1, first=21, state="trained"), list(first.study.directions))
    later = reader.read()
    assert [row.number for row in asked.pop()] == [20, 21]
    assert len(later.trials) == 22 and later.trials[0] is first.trials[0]
    with sqlite3.connect(file) as connection:
        (text,) = connection.execute("SELECT value_json FROM trial_user_attributes WHERE trial_id = 21").fetchone()
        values = unsealed_text(text)
        fourth = {"number": 4, "loss": 0.5, "dice": 0.6, "seconds": 30.0, "cpu_s": None, "member": 0}
        for name, value in fourth.items():
            values["measurement"]["epochs"][name].append(value)
        connection.execute(
            "UPDATE trial_user_attributes SET value_json = ? WHERE trial_id = 21", (json.dumps(sealed(values)),)
        )
    assert len(reader.read().trials[20].epochs.curve) == 4


def test_a_running_writer_is_not_disturbed_and_its_trials_appear(tmp_path):
    file = write_synthetic_study(tmp_path, "made", synthetic_records(5))
    reader = SnapshotReader(synthetic_study("made"), file.parent, f"sqlite:///{file}")
    with sqlite3.connect(file) as writer:
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("UPDATE trials SET state = 'FAIL' WHERE trial_id = 1")
        assert len(reader.read().trials) == 5
        writer.commit()


def test_a_task_runs_in_its_own_process_and_its_result_is_kept():
    worker = Worker()
    arguments = (
        [{"a": str(each % 2), "b": str(each % 3)} for each in range(60)],
        {"dice": [each % 2 + each / 600 for each in range(60)]},
        ["dice"],
    )
    try:
        assert worker.work(importances, *arguments) is None
        end = time.monotonic() + 120
        while (found := worker.work(importances, *arguments)) is None and time.monotonic() < end:
            time.sleep(0.2)
        assert found["dice"]["a"] > 0.9 and worker.done == 1
        assert worker.work(importances, *arguments) is found
    finally:
        worker.close()


def test_optuna_dashboard_opens_the_same_study(runs):
    from optuna.storages import RDBStorage
    from optuna_dashboard import wsgi

    client = Client(wsgi(RDBStorage(f"sqlite:///{runs / 'made' / 'study.db'}")))
    (study,) = client.get("/api/studies").json["study_summaries"]
    assert study["study_name"] == "made"
    found = client.get(f"/api/studies/{study['study_id']}?after=0").json
    assert len(found["trials"]) == 60 and found["directions"] == ["maximize", "minimize", "minimize"]


OWNER = """
from search.dashboard.worker import Worker
from os import getpid
import time
if __name__ == "__main__":
    worker = Worker()
    while not (pid := worker.work(getpid)):
        time.sleep(0.05)
    print(pid, flush=True)
    time.sleep(600)
"""


def test_the_worker_process_exits_when_the_dashboard_is_killed(tmp_path):
    script = tmp_path / "owner.py"
    script.write_text(OWNER)
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True) as owner:
        pid = int(owner.stdout.readline())
        assert Path(f"/proc/{pid}").exists()
        owner.kill()
    end = time.monotonic() + 20
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < end, "the worker process outlived its parent"
        time.sleep(0.1)
