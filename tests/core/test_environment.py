"""dhp_lab.core.environment: the machine's memory, against the system's own count."""

import resource
import sys
from pathlib import Path

import pytest

from dhp_lab.core.environment import peak_memory_mb


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_peak_memory_lies_between_what_is_held_now_and_what_getrusage_says():
    held_now = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6
    at_most = (
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    )  # counts the parent before exec too
    assert held_now * 0.98 <= peak_memory_mb() <= at_most * 1.02
