"""Record a new user's first hour, from `git clone` to an exported network, as studies/examples/first_hour.md.

Run: python tests/record_session.py DATA [--environment VENV] [--out FILE]

DATA contains Task27_ACDC in Medical Segmentation Decathlon layout. The commands run one after another in a temporary
folder. Without --environment the session installs everything; with it, only voxnas itself is installed there again.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import re
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).parents[1]
TASK = "Task27_ACDC"
CASE = f"data/{TASK}/imagesTr/patient001_frame01.nii.gz"
SHORT = "--set training.epochs=4 --set training.steps_per_epoch=75 --set training.overlap=0 --set data.folds=10"
SMALL = "--set training.patch=[6,80,80] --set space.choices.width=[8] --set search.references=[]"
FIRST_STEP = re.compile(r"epoch 1/\d+, step [1-9]")
WIDEST = 110
MOST_LINES = 34
COMMANDS = (
    "voxnas doctor",
    f"voxnas init data/{TASK} --hours 1",
    "voxnas check acdc.yaml",
    f"voxnas run acdc.yaml --trials 2 {SHORT} {SMALL}",
    "voxnas status acdc",
    "voxnas front acdc",
    f"voxnas export acdc.yaml {SHORT} {SMALL} --pick best --out model",
    f"model/predict.py {CASE} --out mask.nii.gz",
)


@dataclass(frozen=True)
class Ended:
    """A command that ended: its lines, and its seconds in all, of CPU, until the first line and the first step."""

    command: str
    lines: tuple[str, ...]
    wall_s: float
    cpu_s: float
    first_line_s: float | None
    first_step_s: float | None
    interrupted: bool


def main() -> None:
    options = parse()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder).resolve()
        (home / "data").symlink_to(options.data.resolve(), target_is_directory=True)
        ended = list(session(home, options.environment))
        text = page(ended, home=home, installed=options.environment is None)
    options.out.write_text(text, encoding="utf-8")
    print(f"Wrote {options.out}.")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0], allow_abbrev=False)
    parser.add_argument("data", type=Path, help=f"folder that contains {TASK}")
    parser.add_argument("--environment", type=Path, help="virtual environment that holds the dependencies already")
    parser.add_argument("--out", type=Path, default=ROOT / "studies" / "examples" / "first_hour.md")
    return parser.parse_args()


def session(home: Path, environment: Path | None) -> Iterator[Ended]:
    """Run the session's commands; stop with an error at the first one that fails."""
    clone = f"git clone --quiet {ROOT} voxnas"
    yield run(clone, home, shown="git clone --quiet URL voxnas")
    if environment is None:
        venv = home / ".venv"
        yield run("python3 -m venv .venv", home)
        yield run(".venv/bin/pip install --quiet ./voxnas", home)
    else:
        venv = environment.resolve()
        yield run(f"{venv}/bin/pip install --quiet --no-deps ./voxnas", home, shown="pip install --quiet ./voxnas")
    path = f"{venv / 'bin'}{os.pathsep}{os.environ['PATH']}"
    yield run("voxnas run voxnas/studies/acdc.yaml --data data --runs first", home, path=path, interrupt=True)
    for command in COMMANDS:
        yield run(command, home, path=path)


def run(command: str, home: Path, *, path: str = "", shown: str = "", interrupt: bool = False) -> Ended:
    """Run a command in a shell; with `interrupt`, as Ctrl-C does at its first training step."""
    print(f"$ {shown or command}", flush=True)
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VOXNAS_DATA")}
    environment.update({"PATH": path or os.environ["PATH"], "HOME": str(home), "COLUMNS": str(WIDEST)})
    began = time.perf_counter()
    process = subprocess.Popen(
        command,
        shell=True,
        cwd=home,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=hear_interrupts,
    )
    lines, first_line_s, first_step_s = [], None, None
    with process.stdout:
        for line in process.stdout:
            after_s = time.perf_counter() - began
            print("  ", line, end="", flush=True)
            lines.append(line.rstrip("\n"))
            first_line_s = after_s if first_line_s is None else first_line_s
            if first_step_s is None and FIRST_STEP.search(line):
                first_step_s = after_s
                if interrupt:
                    end(process)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    wall_s, cpu_s = time.perf_counter() - began, usage.ru_utime + usage.ru_stime
    if process.returncode and not interrupt:
        raise SystemExit(f"{command}: exit code {process.returncode}")
    return Ended(
        shown or command,
        tuple(lines),
        wall_s,
        cpu_s,
        first_line_s,
        first_step_s,
        interrupted=interrupt,
    )


def hear_interrupts() -> None:
    """Let Ctrl-C end this process, also below a shell that started its commands in the background."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def end(process: subprocess.Popen[str]) -> None:
    """Interrupt a command and all it started as Ctrl-C does; kill them if one has not ended after a minute."""
    os.killpg(process.pid, signal.SIGINT)
    timer = threading.Timer(60, kill_group, [process.pid])
    timer.daemon = True
    timer.start()


def kill_group(leader: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)


def page(ended: list[Ended], *, home: Path, installed: bool) -> str:
    """Return the recorded session as Markdown; the interrupted command only shows when training starts."""
    (start,) = (each for each in ended if each.interrupted)
    shown = [each for each in ended if not each.interrupted]
    machine = f"{len(os.sched_getaffinity(0))} CPU cores (load {os.getloadavg()[0]:.1f} at the end), without a GPU"
    before = " The dependencies were installed before; `pip install` then takes minutes more." if not installed else ""
    rows = "".join(
        f"| `{' '.join(each.command.split()[:2])}` | {each.wall_s:.1f} s | {each.cpu_s:.1f} s "
        f"| {seconds(each.first_line_s)} |\n"
        for each in shown
    )
    return (
        "# The first hour, recorded\n\n"
        f"`python tests/record_session.py DATA` ran these commands on {datetime.now(UTC):%Y-%m-%d}, on {machine}, with "
        f"Python {platform.python_version()}. `data` contains {TASK}: 60 volumes of 30 patients. The study is short on "
        f"purpose: it shows the way, not a good network.{before}\n\n"
        f"| command | time | CPU time | first line after |\n| --- | ---: | ---: | ---: |\n{rows}\n"
        f"`{start.command}`, a study of full length: first line after {seconds(start.first_line_s)}, first training "
        f"step after {seconds(start.first_step_s)}; {start.cpu_s:.1f} s of CPU time until it was interrupted there.\n\n"
        + "\n\n".join(block(each, home) for each in shown)
        + "\n"
    )


def seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.1f} s"


def block(each: Ended, home: Path) -> str:
    """Return a command with its output and its time."""
    lines = [clean(line, home) for line in each.lines]
    if len(lines) > MOST_LINES:
        left = len(lines) - MOST_LINES
        lines = [*lines[: MOST_LINES // 2], f"[... {left} more lines ...]", *lines[-(MOST_LINES // 2) :]]
    output = "".join(f"{line}\n" for line in lines)
    return f"```console\n$ {each.command}\n{output}```\n\n{each.wall_s:.1f} s"


def clean(line: str, home: Path) -> str:
    """Return a line without this machine's name and folders."""
    line = re.sub(rf"\b{re.escape(socket.gethostname())}\b", "workstation", line.replace(str(home), "~"))
    line = re.sub(r"(?<![\w.~/])/(?:[\w.+-]+/)+([\w.+-]+)", r"/.../\1", line)
    return line.rstrip()


if __name__ == "__main__":
    main()
