"""Do two latency measurements rank networks equally? 30 networks, twice, with a pause: Spearman's rho."""

import argparse
import time

import torch
from bench_figures import report
from bench_memory import DEMO, random_networks
from scipy.stats import spearmanr

from search.config.training_section import Training
from search.config.units import show_seconds
from search.costs.latency import measure_latency
from space.build import build

LIMIT = 0.98


def measure_all(networks, device) -> list:
    """Measure the networks in order."""
    training = Training(patch=DEMO.patch)
    return [measure_latency(build(each, DEMO), DEMO, training, device=device) for each in networks]


def main() -> None:
    """Print each network's two readings and the rank correlation."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", type=int, default=30)
    parser.add_argument("--pause", type=float, default=3600.0, help="seconds between the two")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    networks = random_networks(options.networks)
    first = measure_all(networks, device)
    time.sleep(options.pause)
    second = measure_all(networks, device)
    for network, one, other in zip(networks, first, second, strict=True):
        marks = "" if one.settled and other.settled else "  spread too wide"
        print(f"{show_seconds(one.median_s):>10} {show_seconds(other.median_s):>10}  {network.describe()[:60]}{marks}")
    rho = float(spearmanr([each.median_s for each in first], [each.median_s for each in second]).statistic)
    what = f"Spearman of two readings of {len(networks)} networks, {options.pause:g} s apart, on {first[0].device}"
    report(what, rho, limit=LIMIT, at_least=True)


if __name__ == "__main__":
    main()
