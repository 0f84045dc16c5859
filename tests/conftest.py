"""What every test runs under: the small profile, no network, and how two workers share the tests."""

import os
import socket
from collections import Counter

import pytest

import dhp_lab  # noqa: F401  (before anything imports torchvision)
from dhp_lab.core import precision

# Set before anything is imported, so that libraries, kernels and other processes see it too.
os.environ.setdefault("DHP_PROFILE", "ci")
os.environ["HF_HUB_OFFLINE"] = "1"

LESSONS = "test_lessons.py"
LOCAL = ("127.0.0.1", "::1", "localhost")


@pytest.fixture
def in_float32(monkeypatch):
    """Convolutions in float32 on every machine, so that their rounding is 2^-24 and not 2^-9."""
    monkeypatch.setattr(precision, "has_fast_bfloat16", lambda device_type: False)


@pytest.fixture(autouse=True, scope="session")
def offline():
    """Refuse every connection that leaves this machine."""
    connect = socket.socket.connect

    def connect_locally(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in LOCAL:
            raise RuntimeError(f"a test tried to reach {address}: tests run offline")
        return connect(self, address)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", connect_locally)
        yield


def unit(nodeid: str) -> str:
    """What one worker runs without a break: a lesson of test_lessons.py, or the whole of any other file."""
    path, _, test = nodeid.partition("::")
    lesson = test.partition("[")[2]
    return f"{path}[{lesson}" if path.endswith(LESSONS) and lesson else path


def pytest_collection_modifyitems(items):
    """The lessons first, then the files with the most slow tests, so that the workers end together."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: (item.path.name != LESSONS, -slow[item.path]))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Hand out units of tests in the order in which they were collected."""
    from xdist.scheduler import LoadScopeScheduling

    class Units(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            return unit(nodeid)

    config.option.loadscopereorder = False
    return Units(config, log)
