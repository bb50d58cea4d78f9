"""Processor time to predict the costs of random networks of studies/whole_space.yaml, through its table of prices.

Run: make bench-prices, with VOXNAS_DATA. With `--runs FOLDER`, prices stay there and a second run finds them.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path
from random import Random

import torch
from bench_figures import report

from search.config.load import load_study
from search.runner.plan import make_plan
from search.runner.pricer import Pricer, price_table
from search.runner.sampling import sample_buildable

STUDY = Path(__file__).parent.parent / "studies" / "whole_space.yaml"
THOUSAND_SECONDS = 300.0
EVERY = 50


def main() -> None:
    """Price the networks on one thread, with a line every EVERY networks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", type=int, default=1000)
    parser.add_argument("--runs", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        loaded = load_study(STUDY, data_root=Path(os.environ["VOXNAS_DATA"]))
        plan = make_plan(loaded, runs=options.runs or Path(folder))
        plan.folder.mkdir(parents=True, exist_ok=True)
        rng = Random(plan.study.search.seed)
        networks = [plan.space.architecture(sample_buildable(plan.space, rng)) for _ in range(options.networks)]
        pricer = Pricer(plan, "cpu", price_table(plan, device="cpu", threads=1))
        known, slowest, began = 0, 0.0, time.process_time()
        for number, architecture in enumerate(networks, start=1):
            before = time.process_time()
            known += pricer.known_before(architecture) is not None
            pricer(architecture)
            slowest = max(slowest, time.process_time() - before)
            if number % EVERY == 0:
                print(f"{number:5} networks {time.process_time() - began:7.1f} s", flush=True)
        seconds = time.process_time() - began
        pricer.close()
    print(f"{known} of {len(networks)} networks were in the table; the slowest took {slowest:.2f} s")
    new = max(1, len(networks) - known)
    report("pricing 1,000 networks of the whole space", seconds / new * 1000, "s of one core", limit=THOUSAND_SECONDS)


if __name__ == "__main__":
    main()
