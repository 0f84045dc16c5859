"""The machine that a result was measured on."""

from __future__ import annotations

import platform
from pathlib import Path
from time import strftime

import PIL
import torch


def environment(device: torch.device) -> dict[str, object]:
    """Return what times and bytes depend on besides the model: date, processor, threads, versions, memory
    used.
    """
    cuda = device.type == "cuda"
    peak = torch.cuda.max_memory_allocated(device) / 1e6 if cuda else peak_memory_mb()
    return {
        "date": strftime("%Y-%m-%d"),
        "device": torch.cuda.get_device_name(device) if cuda else cpu_model(),
        "threads": torch.get_num_threads(),
        "peak_memory_mb": peak,
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "pillow": PIL.__version__,
        },
    }


def cpu_model() -> str:
    """Return the processor's name as the system tells it."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} x {names[0]}" if names else platform.processor() or platform.machine()


def peak_memory_mb() -> float:
    """Return the most memory (resident set, MB of 10**6 bytes) that this process has held so far."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would count the process that started this one
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024 / 1e6
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # macOS counts bytes
