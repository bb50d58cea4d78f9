"""Check everything that only a GPU can show, in a few minutes: python tests/gpu/check.py [PART...] --out FOLDER.

Without a GPU it runs on the CPU with tiny sizes: this tests the script, not the figures. Results are written after
each part, as JSON and Markdown. Parts have limits of seconds; what a part does not reach is left out of its table.
"""

from __future__ import annotations

import argparse
import faulthandler
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

import torch  # noqa: E402
from check_faults import check_faults, check_packing  # noqa: E402
from check_latency import check_latency  # noqa: E402
from check_memory import check_memory  # noqa: E402
from check_parity import check_parity  # noqa: E402
from check_speed import check_blocks, check_compile, check_loop, check_norms  # noqa: E402
from check_study import check_study  # noqa: E402
from report import OutOfTime, PartReport, Report  # noqa: E402
from setting import Setting, environment  # noqa: E402

GRACE_S = 60.0  # seconds by which the last item may exceed the limit


@dataclass(frozen=True)
class Part:
    """A part of the check and the most seconds that it should take on a GPU."""

    run: Callable[[Setting, PartReport], None]
    seconds: float


PARTS = {  # the most telling first
    "memory": Part(check_memory, 110),
    "faults": Part(check_faults, 40),
    "study": Part(check_study, 45),
    "latency": Part(check_latency, 45),
    "parity": Part(check_parity, 40),
    "packing": Part(check_packing, 60),
    "norms": Part(check_norms, 15),
    "blocks": Part(check_blocks, 20),
    "loop": Part(check_loop, 30),
    "compile": Part(check_compile, 150),
}


def run_part(name: str, setting: Setting, report: Report, *, last_end: float) -> None:
    """Run one part, record what it raises, and write the report."""
    began = time.monotonic()
    part = PartReport(name, min(began + PARTS[name].seconds, last_end))
    report.parts.append(part)
    try:
        PARTS[name].run(setting, part)
        setting.synchronise()
    except OutOfTime:
        part.note("Cut off by its limit of seconds.")
    except Exception as error:
        part.fail(name, error)
    part.seconds = time.monotonic() - began
    report.write()
    said = ", ".join(f"{each.what} {each.value:.4g}{'' if each.met else ' MISSED'}" for each in part.limits)
    print(f"{name}: {part.verdict} in {part.seconds:.1f} s. {said}", flush=True)
    setting.release()


def main() -> int:
    """Run the named parts, or all; exit with 1 where a limit is missed or a part failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)} [all]")
    parser.add_argument("--out", type=Path, default=Path("build/gpu-check"))
    parser.add_argument("--seconds", type=float, default=600.0, help="no item starts later than this [600]")
    parser.add_argument("--cpu", action="store_true", help="on the CPU, with tiny sizes, though there is a GPU")
    parser.add_argument("--trace", action="store_true", help="note every operator's memory in operators.json.gz: slow")
    options = parser.parse_args()
    unknown = [name for name in options.parts if name not in PARTS]
    if unknown:
        parser.error(f"no such part: {', '.join(unknown)}; choose from {', '.join(PARTS)}")
    began = time.monotonic()
    faulthandler.dump_traceback_later(options.seconds + GRACE_S, exit=True)  # a kernel that hangs
    with Setting.open(options.out, cpu=options.cpu, trace=options.trace) as setting:
        report = Report(options.out, environment(setting))
        print(", ".join(f"{name} {value}" for name, value in report.environment.items()), flush=True)
        for name in options.parts or PARTS:
            run_part(name, setting, report, last_end=began + options.seconds)
    report.environment["seconds"] = f"{time.monotonic() - began:.0f}"
    report.write()
    return int(any(part.verdict != "met" for part in report.parts))


if __name__ == "__main__":
    torch.set_num_threads(min(8, len(os.sched_getaffinity(0))))
    code = main()
    sys.stdout.flush()
    sys.exit(code)
