"""The resources that a trial requests: its predicted memory and a margin, rounded up to few size classes.

Few, because Tune reuses an actor only for a trial with exactly the same request.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from search.config.errors import UserError
from search.config.units import show_bytes

LOGGER = logging.getLogger("voxnas.cluster")
SHARES = (0.125, 0.25, 0.5, 1.0)
MARGIN = 1.2  # over the predicted peak, for the allocator's blocks and cuDNN's workspaces
CUDA_BYTES = 600 * 2**20  # a process's GPU memory before its first tensor
PROCESS_BYTES = 2**30  # a process's host memory after importing torch and MONAI
GIB = 2**30
Request = Mapping[str, float]  # by Ray's names: CPU, GPU, memory in bytes, accelerator_type:NAME


@dataclass(frozen=True)
class Node:
    """A machine of the cluster: its resources, the kind of its GPUs, and the bytes of one GPU."""

    cpus: float
    memory_bytes: float
    gpus: float = 0.0
    kind: str = ""
    gpu_bytes: float = 0.0


@dataclass(frozen=True)
class Need:
    """The needs of a trial: predicted peak bytes, threads, whether it uses a GPU; `alone` requires a whole device."""

    memory_bytes: float
    threads: int
    gpu: bool
    alone: bool = False


def request(need: Need, nodes: Sequence[Node], flying: Sequence[Request], *, grows: bool = False) -> dict[str, float]:
    """Return the request for Ray. Raises UserError if no machine of a cluster of fixed size can meet it."""
    asked = _on_card(need, nodes, flying) if need.gpu else _on_cpu(need, nodes)
    if not grows and not any(holds(node, asked) for node in nodes):
        words = ", ".join(f"{_show(name, value)} {name}" for name, value in asked.items())
        largest = max(nodes, key=lambda node: (node.gpus, node.cpus, node.memory_bytes), default=Node(0, 0))
        raise UserError(
            [
                f"a trial needs {words}, more than any machine of the cluster has "
                f"(largest: {largest.cpus:g} CPU, {show_bytes(largest.memory_bytes)} memory, {largest.gpus:g} GPU); "
                "lower executor.threads, or add a larger machine"
            ]
        )
    return asked


def _on_cpu(need: Need, nodes: Sequence[Node]) -> dict[str, float]:
    most = max((node.memory_bytes for node in nodes), default=0.0)
    wanted = PROCESS_BYTES + need.memory_bytes * MARGIN
    memory = most // GIB * GIB if need.alone else GIB * 2.0 ** max(0, int(-(-wanted // GIB) - 1).bit_length())
    return {"CPU": float(need.threads), "memory": max(memory, float(GIB))}


def _on_card(need: Need, nodes: Sequence[Node], flying: Sequence[Request]) -> dict[str, float]:
    kinds = {node.kind: node.gpu_bytes for node in nodes if node.gpus}
    if not kinds:  # none yet: the first that comes is taken whole
        return {"CPU": float(need.threads), "GPU": 1.0, "memory": 2.0 * GIB}
    wanted = CUDA_BYTES + need.memory_bytes * MARGIN
    roomy = {kind: size for kind, size in kinds.items() if size >= wanted} or {max(kinds, key=lambda k: kinds[k]): 0.0}
    kind = max(roomy, key=lambda each: (_free(each, nodes, flying), -roomy[each]))
    share = wanted / kinds[kind] if kinds[kind] else 1.0
    share = 1.0 if need.alone else next((each for each in SHARES if share <= each), 1.0)
    asked = {"CPU": float(need.threads), "GPU": share, "memory": 2.0 * GIB}
    if len(kinds) > 1:
        asked[f"accelerator_type:{kind}"] = 0.001
    return asked


def _free(kind: str, nodes: Sequence[Node], flying: Sequence[Request]) -> float:
    """Return the free GPUs of a kind, as far as trials name the kind that they use."""
    there = sum(node.gpus for node in nodes if node.kind == kind)
    return there - sum(each.get("GPU", 0.0) for each in flying if f"accelerator_type:{kind}" in each)


def holds(node: Node, asked: Request) -> bool:
    """Return whether an empty machine could meet a request."""
    kinds = [name for name in asked if name.startswith("accelerator_type:")]
    return (
        asked["CPU"] <= node.cpus
        and asked["memory"] <= node.memory_bytes
        and asked.get("GPU", 0.0) <= node.gpus
        and all(name == f"accelerator_type:{node.kind}" for name in kinds)
    )


def has_room(nodes: Sequence[Node], flying: Sequence[Request], *, threads: int, gpu: bool) -> bool:
    """Return whether the smallest trial would fit beside those in flight."""
    least = {"CPU": float(threads), "memory": float(GIB), **({"GPU": SHARES[0]} if gpu else {})}
    lent = {"CPU": [n.cpus for n in nodes], "memory": [n.memory_bytes for n in nodes], "GPU": [n.gpus for n in nodes]}
    return all(
        value <= sum(lent[name]) - sum(each.get(name, 0.0) for each in flying) + 1e-6 for name, value in least.items()
    )


def require_threads(threads: int | None, nodes: Sequence[Node], *, grows: bool) -> None:
    """Raise UserError if no machine of a cluster of fixed size has this many CPUs; note it for one that may grow."""
    most = max((node.cpus for node in nodes), default=0.0)
    if threads is None or not nodes or threads <= most:
        return
    problem = f"executor.threads: {threads} is more than any machine of the cluster has ({most:g} CPU)"
    if not grows:
        raise UserError([f"{problem}; lower it, or add a larger machine"])
    LOGGER.warning("%s; trials wait until a larger machine joins", problem)


def default_threads(nodes: Sequence[Node], *, gpu: bool) -> int:
    """Return the default threads: a machine's CPUs, or an eighth of a GPU's share of them."""
    if gpu:
        return max(1, int(min(node.cpus / node.gpus for node in nodes if node.gpus) * SHARES[0]))
    return max(1, int(min((node.cpus for node in nodes if node.cpus), default=1.0)))


def task_options(asked: Request) -> dict[str, Any]:
    """Return the options of a Ray task for a request."""
    named = {"CPU": "num_cpus", "GPU": "num_gpus", "memory": "memory"}
    options: dict[str, Any] = {named[name]: value for name, value in asked.items() if name in named}
    return {**options, "resources": {name: value for name, value in asked.items() if name not in named}}


def _show(name: str, value: float) -> str:
    return show_bytes(value) if name == "memory" else f"{value:g}"
