"""The device of trainings: whether a GPU is used, and what bfloat16 gains on it."""

from __future__ import annotations

import os
import shutil
import subprocess
import time

import torch
from torch import nn

from search.config.units import show_bytes, show_seconds
from search.setup.check import Check
from search.setup.machine import Machine, this_machine

CONV = {"cuda": (32, 64), "cpu": (8, 32)}  # channels and edge length of the timed convolution's input
REPEATS = 5
SMALL_GPU_BYTES, SMALL_MEMORY_BYTES = 8 * 2**30, 8 * 2**30


def check_device() -> Check:
    """Find the device that trainings use; a GPU that PyTorch can't use is an error."""
    machine = this_machine()
    if machine.device != "cpu":
        found = f"{machine.name}, {show_bytes(machine.memory_bytes)}, CUDA {torch.version.cuda}"
        if machine.memory_bytes < SMALL_GPU_BYTES:
            return Check("device", "warning", found, "keep training.patch and batch small; voxnas init fits them")
        return Check("device", "ok", found)
    cards = _cards()
    if cards:
        advice = "install a PyTorch build for this driver's CUDA version, or update the driver"
        return Check("device", "error", f"PyTorch {torch.__version__} can't use {cards}", advice)
    advice = "studies train on the CPU; expect hours instead of minutes, and small patches"
    return Check("device", "warning", f"no GPU; {machine.name}, {machine.threads} threads", advice)


def check_precision() -> Check:
    """Time a 3D convolution, forward and backward, in bfloat16 and in float32."""
    machine = this_machine()
    times = {kind: _conv_seconds(machine, kind) for kind in (torch.float32, torch.bfloat16)}
    ratio = times[torch.float32] / times[torch.bfloat16]
    found = (
        f"3D convolution: {show_seconds(times[torch.float32])} in float32, "
        f"{show_seconds(times[torch.bfloat16])} in bfloat16 ({ratio:.1f} times as fast)"
    )
    if machine.device != "cpu" and ratio < 1.0:
        return Check("bfloat16", "warning", found, "set training.precision: float32")
    if machine.device == "cpu" and ratio > 1.2:
        return Check("bfloat16", "ok", found, "training.precision: bfloat16 may be faster here")
    return Check("bfloat16", "ok", found)


def check_load() -> Check:
    """Compare the machine's load with its processors: latencies measured under load are too long."""
    threads, load = len(os.sched_getaffinity(0)), os.getloadavg()[0]
    found = f"{threads} usable, load {load:.1f}"
    if load > 0.5 * threads:
        return Check("processors", "warning", found, "latencies measured now are too long: wait until other work ends")
    return Check("processors", "ok", found)


def check_memory() -> Check:
    """Compare the machine's memory with what reading volumes and training need."""
    page = os.sysconf("SC_PAGE_SIZE")
    total, free = page * os.sysconf("SC_PHYS_PAGES"), page * os.sysconf("SC_AVPHYS_PAGES")
    found = f"{show_bytes(total)}, {show_bytes(free)} unused"
    if total < SMALL_MEMORY_BYTES:
        return Check("memory", "warning", found, "large volumes may not fit; close other programs")
    return Check("memory", "ok", found)


def _conv_seconds(machine: Machine, kind: torch.dtype) -> float:
    device = torch.device(machine.device)
    channels, size = CONV[device.type]
    conv = nn.Conv3d(channels, channels, 3, padding=1).to(device)
    images = torch.zeros(1, channels, size, size, size, device=device)
    times = []
    for _ in range(REPEATS + 1):
        began = time.perf_counter()
        with torch.autocast(device.type, kind, enabled=kind != torch.float32):
            conv(images).float().sum().backward()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - began)
    return min(times[1:])


def _cards() -> str:
    """Return the GPUs that the driver lists, empty if there is no driver."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return ""
    listed = subprocess.run([tool, "--query-gpu=name", "--format=csv,noheader"], capture_output=True, text=True)
    return ", ".join(listed.stdout.split("\n")).strip(", ") if listed.returncode == 0 else ""
