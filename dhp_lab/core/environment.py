"""The machine that a result was measured on."""

from __future__ import annotations

import platform
from pathlib import Path
from time import strftime

import PIL
import torch


def environment(device: torch.device) -> dict[str, object]:
    """Return what times and bytes depend on besides the model.

    Args:
        device: the one that was measured on.

    Returns:
        date (year-month-day), device (its name), threads of the CPU, peak_memory_mb (of the device, 10**6
        bytes), versions of Python, torch and Pillow.
    """
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        peak_mb = torch.cuda.max_memory_allocated(device) / 1e6
    else:
        name = cpu_model()
        peak_mb = peak_memory_mb()
    return {
        "date": strftime("%Y-%m-%d"),
        "device": name,
        "threads": torch.get_num_threads(),
        "peak_memory_mb": peak_mb,
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "pillow": PIL.__version__,
        },
    }


def cpu_model() -> str:
    """Return the number of processors and their name, as the system reports them."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    if not names:
        return platform.processor() or platform.machine()
    return f"{len(names)} x {names[0]}"


def peak_memory_mb() -> float:
    """Return the most memory (resident set, MB of 10**6 bytes) that this process has held so far."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would count the process that started this one
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024 / 1e6
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # macOS counts bytes
