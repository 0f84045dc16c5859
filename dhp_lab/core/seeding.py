"""Code that can only draw from torch's global generators: given a seed there, without a trace afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def temporary_seed(seed: int) -> Iterator[None]:
    """Seed torch's global generators inside the block, and put back their state after it.

    New layers draw their weights from these generators, and dropout its masks; neither takes a
    ``torch.Generator``. Whatever does take one should be given one instead.

    Args:
        seed: of the generators on the CPU and on every GPU.
    """
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        yield
