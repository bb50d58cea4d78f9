"""The script that records a session: times, an interrupted command, and a page without this machine's names."""

import signal
import socket
import sys

import pytest
from record_session import clean, page, run


@pytest.fixture(params=["foreground", "background"])
def interrupts(request):
    """What a shell leaves to its commands: it lets those in the background ignore Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN if request.param == "background" else signal.SIG_DFL)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_recorded_command_has_its_lines_its_times_and_no_name_of_this_machine(tmp_path, interrupts):
    training = 'import time; print("epoch 1/2, step 1/9", flush=True); time.sleep(600)'
    began = run(f"exec {sys.executable} -c '{training}' {tmp_path}", tmp_path, interrupt=True)
    assert began.interrupted and began.lines[0] == "epoch 1/2, step 1/9"
    assert 0 < began.first_line_s <= began.first_step_s < began.wall_s < 60
    lines = f"for each in $(seq 99); do echo {tmp_path}/$each; done; echo /opt/a/file on {socket.gethostname()}"
    ended = run(lines, tmp_path, shown="count")
    text = page([ended, began], home=tmp_path, installed=False)
    assert "$ count\n~/1\n" in text and "[... 66 more lines ...]" in text
    assert "/.../file on workstation\n" in text
    assert str(tmp_path) not in text.replace(began.command, "")


def test_paths_and_hosts_are_shortened_but_words_that_contain_them_stay(tmp_path, monkeypatch):
    monkeypatch.setattr(socket, "gethostname", lambda: "vm")
    assert clean(f"{tmp_path}/runs on vm, nvme and patch 8/9", tmp_path) == "~/runs on workstation, nvme and patch 8/9"
