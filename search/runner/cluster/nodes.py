"""The resources of the cluster's machines, as Ray reports them; each machine reports its GPU memory."""

from __future__ import annotations

import subprocess
from functools import lru_cache
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from search.runner.cluster.resources import Node

GPU_MEMORY = "gpu_memory"  # a custom resource, the bytes of one GPU: --resources='{"gpu_memory": 8e10}'
KIND = "accelerator_type:"


def lending_nodes() -> list[Node]:
    """Return the machines that are alive and offer CPUs."""
    return [_node(each) for each in ray.nodes() if each["Alive"] and each["Resources"].get("CPU")]


def lent_resources() -> dict[str, float]:
    """Return all resources of the cluster, by Ray's names."""
    lent: dict[str, float] = ray.cluster_resources()
    return lent


def _node(each: dict[str, Any]) -> Node:
    lent = each["Resources"]
    kind = next((name.removeprefix(KIND) for name in lent if name.startswith(KIND)), "")
    gpus = lent.get("GPU", 0.0)
    gpu_bytes = (lent.get(GPU_MEMORY) or _ask_card(each["NodeID"])) if gpus else 0.0
    return Node(lent["CPU"], lent.get("memory", 0.0), gpus, kind, gpu_bytes)


@lru_cache(maxsize=1024)
def _ask_card(node_id: str) -> float:
    there = NodeAffinitySchedulingStrategy(node_id, soft=False)
    found: float = ray.get(ray.remote(num_cpus=0)(card_bytes).options(scheduling_strategy=there).remote())
    return found


def card_bytes() -> float:
    """Return the bytes of this machine's smallest GPU, 0 if its driver does not report them."""
    query = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        output = subprocess.run(query, capture_output=True, text=True, check=True, timeout=30).stdout
    except (OSError, subprocess.SubprocessError):
        return 0.0
    return min((float(line) * 2**20 for line in output.split()), default=0.0)
