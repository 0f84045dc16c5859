"""What every test runs under: the small profile, no network, and notebooks that stop at their first failing
cell.
"""

import os
import socket

import pytest

import dhp_lab  # noqa: F401  (before anything imports torchvision)
from dhp_lab.core import precision

# Set before anything is imported, so that libraries, kernels and other processes see it too.
os.environ.setdefault("DHP_PROFILE", "ci")
os.environ["HF_HUB_OFFLINE"] = "1"

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


class StopAtFirstFailingCell:
    """Once a notebook's cell has failed, the cells after it are skipped: their failures would say nothing
    new.
    """

    def __init__(self):
        self.failed = set()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item, call):
        report = yield
        if report.failed and item.path.suffix == ".ipynb":
            self.failed.add(item.path)
        return report

    def pytest_runtest_setup(self, item):
        if item.path in self.failed:
            pytest.skip("an earlier cell of this notebook failed")


def pytest_configure(config):
    # A conftest's own hooks reach only the tests below it; the notebooks lie beside it.
    config.pluginmanager.register(StopAtFirstFailingCell())
