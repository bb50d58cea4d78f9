"""How much of a cluster a trial asks for: its predicted memory and a margin, rounded up to few size classes.

Few, because Tune gives a trial to a running actor only where both ask for exactly the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from search.config.errors import UserError
from search.config.units import show_bytes

SHARES = (0.125, 0.25, 0.5, 1.0)
MARGIN = 1.2  # over the predicted peak: the allocator's blocks, cuDNN's workspaces
CUDA_BYTES = 600 * 2**20  # what a process takes on a card before its first tensor
PROCESS_BYTES = 2**30  # what a process takes of the machine's memory once torch and monai are imported
GIB = 2**30
Request = Mapping[str, float]  # in Ray's words: CPU, GPU, memory in bytes, accelerator_type:NAME


@dataclass(frozen=True)
class Node:
    """A machine of the cluster: what it lends to trials, its cards' kind, and the bytes of one card."""

    cpus: float
    memory_bytes: float
    gpus: float = 0.0
    kind: str = ""
    gpu_bytes: float = 0.0


@dataclass(frozen=True)
class Need:
    """What a trial needs: predicted peak bytes, threads, a card or none; `alone`: as much as there is."""

    memory_bytes: float
    threads: int
    gpu: bool
    alone: bool = False


def request(need: Need, nodes: Sequence[Node], flying: Sequence[Request], *, grows: bool = False) -> dict[str, float]:
    """Return what to ask Ray for. Raises UserError where no machine of a cluster that doesn't grow can give it."""
    asked = _on_card(need, nodes, flying) if need.gpu else _on_cpu(need, nodes)
    if not grows and not any(holds(node, asked) for node in nodes):
        words = ", ".join(f"{_show(name, value)} {name}" for name, value in asked.items())
        largest = max(nodes, key=lambda node: (node.gpus, node.cpus, node.memory_bytes), default=Node(0, 0))
        raise UserError(
            [
                f"a trial asks for {words}, more than any machine of the cluster has "
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
    """Return the cards of a kind that trials leave, as far as these say which kind they are on."""
    there = sum(node.gpus for node in nodes if node.kind == kind)
    return there - sum(each.get("GPU", 0.0) for each in flying if f"accelerator_type:{kind}" in each)


def holds(node: Node, asked: Request) -> bool:
    """Tell whether an empty machine could give this."""
    kinds = [name for name in asked if name.startswith("accelerator_type:")]
    return (
        asked["CPU"] <= node.cpus
        and asked["memory"] <= node.memory_bytes
        and asked.get("GPU", 0.0) <= node.gpus
        and all(name == f"accelerator_type:{node.kind}" for name in kinds)
    )


def has_room(nodes: Sequence[Node], flying: Sequence[Request], *, threads: int, gpu: bool) -> bool:
    """Tell whether the smallest trial would find a place beside those that are under way."""
    least = {"CPU": float(threads), "memory": float(GIB), **({"GPU": SHARES[0]} if gpu else {})}
    lent = {"CPU": [n.cpus for n in nodes], "memory": [n.memory_bytes for n in nodes], "GPU": [n.gpus for n in nodes]}
    return all(
        value <= sum(lent[name]) - sum(each.get(name, 0.0) for each in flying) + 1e-6 for name, value in least.items()
    )


def default_threads(nodes: Sequence[Node], *, gpu: bool) -> int:
    """Return a study's threads where its file names none: a machine's CPUs, or an eighth of a card's part of them."""
    if gpu:
        return max(1, int(min(node.cpus / node.gpus for node in nodes if node.gpus) * SHARES[0]))
    return max(1, int(min((node.cpus for node in nodes if node.cpus), default=1.0)))


def _show(name: str, value: float) -> str:
    return show_bytes(value) if name == "memory" else f"{value:g}"
