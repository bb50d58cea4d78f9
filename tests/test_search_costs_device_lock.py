"""Device locks between real processes: who waits for whom and how long, and protection from other users."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from search.config.errors import UserError
from search.costs import device_lock
from search.costs.device_lock import lock_folder, measuring, sharing, working_clock

CPU = torch.device("cpu")
HOLD = """
import sys, time
from types import SimpleNamespace
from search.costs.device_lock import measuring, sharing
with {how}(SimpleNamespace(type="cpu", index=None)) as shared:  # as torch's device, but torch takes seconds to import
    print("held", flush=True)
    end = time.monotonic() + {seconds}
    while time.monotonic() < end:
        {step}
        time.sleep(0.01)
print("released", flush=True)
"""


@pytest.fixture(autouse=True)
def private(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))


@pytest.fixture
def holder():
    """Start processes that hold the device; none of them outlives its test."""
    started = []

    def start(how, seconds, *, pausing=False):
        code = HOLD.format(how=how, seconds=seconds, step="shared.pause()" if pausing else "pass")
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        end(process)


def end(process):
    process.kill()
    process.wait()
    process.stdout.close()


def test_two_trainings_share_a_device(holder):
    holder("sharing", 60)
    began = time.monotonic()
    with sharing(CPU):
        assert time.monotonic() - began < 5


def test_a_measurement_goes_between_two_steps_of_a_training_and_the_training_goes_on(holder):
    training = holder("sharing", 600, pausing=True)
    with measuring(CPU):
        assert training.poll() is None
    with sharing(CPU) as shared:  # beside the training, which has taken the device again or will
        shared.pause()


def test_a_training_waits_for_a_measurement_and_its_clock_stands_still_meanwhile(holder):
    measurement = holder("measuring", 1.5)
    began, worked = time.perf_counter(), working_clock()
    with sharing(CPU):
        waited, worked = time.perf_counter() - began, working_clock() - worked
        assert measurement.wait() == 0
    assert waited > 0.5 and worked < waited / 2


def test_a_waiting_process_names_the_process_it_waits_for(holder, caplog, monkeypatch):
    monkeypatch.setattr(device_lock, "REPORT_S", 0.2)
    measurement = holder("measuring", 2)
    with sharing(CPU):
        pass
    (line,) = caplog.messages
    assert line == f"waiting for cpu, in use by process {measurement.pid}"


def test_a_suspended_measurement_does_not_block_others_forever(holder, caplog, monkeypatch):
    monkeypatch.setattr(device_lock, "SUSPENDED_S", 0.3)
    measurement = holder("measuring", 600)
    os.kill(measurement.pid, signal.SIGSTOP)
    with sharing(CPU):
        pass
    assert f"using cpu without its lock: process {measurement.pid} is suspended" in caplog.text


def test_waiting_has_a_limit(holder, caplog, monkeypatch):
    monkeypatch.setattr(device_lock, "MAX_WAIT_S", 0.3)
    holder("sharing", 600)
    with measuring(CPU):
        pass
    assert "using cpu without its lock after waiting 300.0 ms for process" in caplog.text


@pytest.mark.parametrize(("limit", "suspended"), [("SUSPENDED_S", True), ("MAX_WAIT_S", False)])
def test_a_holder_that_was_passed_does_not_delay_each_step(holder, caplog, monkeypatch, limit, suspended):
    monkeypatch.setattr(device_lock, limit, 0.3)
    measurement = holder("measuring", 600)
    if suspended:
        os.kill(measurement.pid, signal.SIGSTOP)
    with sharing(CPU) as shared:
        began = time.monotonic()
        for _ in range(100):
            shared.pause()
        assert time.monotonic() - began < 2
        assert len([line for line in caplog.messages if "without its lock" in line]) == 2  # `turn` and `use`
        end(measurement)
        holder("measuring", 0.5)
        waited = working_clock() - time.perf_counter()
        shared.pause()  # waits again, for another process
        assert working_clock() - time.perf_counter() < waited


def test_a_passed_holder_that_continues_is_waited_for(holder, monkeypatch):
    monkeypatch.setattr(device_lock, "SUSPENDED_S", 0.3)
    measurement = holder("measuring", 2)
    os.kill(measurement.pid, signal.SIGSTOP)
    with sharing(CPU) as shared:
        os.kill(measurement.pid, signal.SIGCONT)
        time.sleep(0.1)
        shared.pause()
        assert measurement.wait(timeout=5) == 0


def test_a_killed_owner_frees_the_device(holder):
    measurement = holder("measuring", 600)
    end(measurement)
    began = time.monotonic()
    with measuring(CPU):
        assert time.monotonic() - began < 5


def test_the_folder_is_private_and_its_mode_is_restored(tmp_path):
    folder = lock_folder()
    assert folder == tmp_path / "voxnas" and folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o777)
    assert lock_folder().stat().st_mode & 0o777 == 0o700


def test_without_a_session_the_lock_folder_is_in_the_temporary_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "gone"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert lock_folder() == tmp_path / f"voxnas-{os.getuid()}"


def test_without_free_space_the_lock_folder_is_not_in_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", "relative")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr("tempfile._get_default_tempdir", lambda *_: pytest.fail("writes a file"))
    assert lock_folder() == tmp_path / f"voxnas-{os.getuid()}"


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give files away")
def test_nothing_of_another_user_is_used(tmp_path, monkeypatch):
    (lock_folder() / "cpu.use").touch()
    os.chown(lock_folder() / "cpu.use", 65534, 65534)
    with pytest.raises(UserError, match="cpu.use is not a file of this user and can't be trusted"), sharing(CPU):
        pass
    os.chown(lock_folder(), 65534, 65534)
    with pytest.raises(UserError, match="voxnas can't be used: it is not a folder of this user"):
        lock_folder()
    (tmp_path / "sudo").mkdir()
    os.chown(tmp_path / "sudo", 65534, 65534)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "sudo"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert lock_folder() == tmp_path / "voxnas-0"


@pytest.mark.parametrize(
    ("create", "message"),
    [
        (os.mkfifo, "cpu.use is not a file of this user"),
        (os.mkdir, "cpu.use can't be opened: Is a directory"),
    ],
)
def test_what_is_no_file_is_no_lock(create, message):
    create(lock_folder() / "cpu.use")
    with pytest.raises(UserError, match=message), measuring(CPU):
        pass


def test_a_link_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "voxnas").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="voxnas can't be used: it is not a folder of this user and can't be trusted"):
        lock_folder()


def test_a_link_in_place_of_a_lock_is_refused_and_its_target_left_alone(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (lock_folder() / "cpu.use").symlink_to(victim)
    with pytest.raises(UserError, match="cpu.use can't be opened: Too many levels of symbolic links"), sharing(CPU):
        pass
    assert Path(victim).read_text() == "precious"
