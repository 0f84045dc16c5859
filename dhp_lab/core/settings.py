"""What a run depends on besides its arguments: the profile, the device, the seed and the folder of data.

Two environment variables are read. Nothing else is configured behind the reader's back, but that glibc's
allocator keeps freed memory (``core.memory``):

    DHP_PROFILE   ci | laptop | gpu: the same code with other sizes and numbers of steps
    DHP_DATA      the folder where downloaded data sets lie
"""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch

from dhp_lab import __version__
from dhp_lab.core.memory import keep_freed_memory
from dhp_lab.core.paths import data_dir
from dhp_lab.core.precision import has_fast_bfloat16

PROFILES = ("ci", "laptop", "gpu")
DEVICES = ("cuda", "cpu")  # not mps: the entropy decoder needs float64, which it lacks


@dataclass(frozen=True)
class Settings:
    """The settings of one run.

    Attributes:
        profile: "ci" (a notebook in under a minute on 2 cores), "laptop" (under 3 minutes) or "gpu" (the real
            sizes).
        device: where tensors live.
        dtype: what convolutions and matrix products compute in, see `compute_dtype`.
        data: the folder of data sets, see `data_dir`.
        seed: start of every random generator.
    """

    profile: str
    device: torch.device
    dtype: torch.dtype
    data: Path
    seed: int


def current_settings(*, device: str | None = None, seed: int = 0) -> Settings:
    """Read the settings of this run from its environment; a notebook calls this first.

    It also lets the allocator keep freed memory, see `keep_freed_memory`.

    Args:
        device: as for `choose_device`.
        seed: start of every random generator.

    Raises:
        ValueError: DHP_PROFILE names no profile, or the device is not there.
    """
    keep_freed_memory()
    chosen = choose_device(device)
    return Settings(choose_profile(), chosen, compute_dtype(chosen), data_dir(), seed)


def choose_profile(name: str | None = None) -> str:
    """Return the profile: `name`, or else DHP_PROFILE, or else "gpu" where CUDA is there and "laptop"
    elsewhere.

    Raises:
        ValueError: there is no such profile.
    """
    source = "profile" if name else "DHP_PROFILE"
    default = "gpu" if torch.cuda.is_available() else "laptop"
    name = name or os.environ.get("DHP_PROFILE") or default
    if name not in PROFILES:
        raise ValueError(f"{source} is {name!r}; choose one of {', '.join(PROFILES)}")
    return name


def available_devices() -> tuple[str, ...]:
    """Return the kinds of device this torch can use here, the fastest first; "cpu" is always the last."""
    there = {"cuda": torch.cuda.is_available(), "cpu": True}
    return tuple(kind for kind in DEVICES if there[kind])


def choose_device(name: str | None = None) -> torch.device:
    """Return the device called `name` ("cpu", "cuda", "cuda:1"), or the fastest one when it is None.

    Raises:
        ValueError: there is no such device, or this torch cannot use it here.
    """
    available = available_devices()
    kind, _, index = (name or available[0]).partition(":")
    if kind not in DEVICES or not (index.isdigit() or index == ""):
        raise ValueError(f"device is {name!r}; choose one of {', '.join(DEVICES)} (or cuda:0, cuda:1, ...)")
    count = torch.cuda.device_count() if kind == "cuda" else 1
    if kind not in available or int(index or 0) >= count:
        found = _describe(available)
        raise ValueError(f"device is {name!r}, but torch {torch.__version__} finds only {found} here")
    return torch.device(name or kind)


def _describe(available: tuple[str, ...]) -> str:
    """Return the devices in words: "cuda:0 .. cuda:3, cpu"."""
    count = torch.cuda.device_count()
    names = {"cuda": f"cuda:0 .. cuda:{count - 1}" if count > 1 else "cuda", "cpu": "cpu"}
    return ", ".join(names[kind] for kind in available)


def compute_dtype(device: torch.device | str) -> torch.dtype:
    """Return bfloat16 where the device multiplies it fast (AMX, AVX-512 BF16, recent GPUs), float32
    elsewhere.
    """
    return torch.bfloat16 if has_fast_bfloat16(torch.device(device).type) else torch.float32


def environment_report() -> list[tuple[str, str]]:
    """Return (name, value) rows that say what a result was computed with, for a notebook's first table."""
    settings = current_settings()
    libraries = [(name, version(name)) for name in ("torch", "compressai", "diffusers")]
    return [
        ("profile", settings.profile),
        ("device", _device_name(settings.device)),
        ("computes in", str(settings.dtype).removeprefix("torch.")),
        ("CPU threads", str(torch.get_num_threads())),
        ("Python", f"{platform.python_version()} on {platform.system()}"),
        ("dhp-lab", __version__),
        *libraries,
    ]


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return f"{device} ({platform.machine()})"
