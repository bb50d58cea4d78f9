"""Time of the read-only commands, as whole processes. Run: make bench-startup."""

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LIMITS = {"--help": 0.5, "check": 1.5, "front": 1.5}
REPEATS = 7


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        sys.path.insert(0, str(Path(__file__).parent))
        from bench_figures import report
        from conftest import quiet_view, write_study

        from search.config import load_study
        from search.runner.local import run_study
        from search.runner.plan import make_plan

        made = write_study(Path(folder))
        run_study(make_plan(load_study(made.file), runs=made.runs), trials=1, view=quiet_view())
        for verb, limit in LIMITS.items():
            rest = [] if verb.startswith("-") else [str(made.file), "--runs", str(made.runs)]
            times = []
            for _ in range(REPEATS):
                began = time.perf_counter()
                subprocess.run([sys.executable, "-m", "search.cli", verb, *rest], check=True, capture_output=True)
                times.append(time.perf_counter() - began)
            median = statistics.median(times)
            report(f"voxnas {verb}, whole process", median, "s", limit=limit)


if __name__ == "__main__":
    main()
