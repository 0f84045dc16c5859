"""What tests of the usual networks share."""

import pytest

from dhp_lab.metrics import feature_networks


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Empty folders for weights, and no network loaded before or after."""
    caches = (feature_networks._inception_network, feature_networks._alexnet, feature_networks._clip_parts)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("DHP_DATA", str(tmp_path / "data"))
    for cache in caches:
        cache.cache_clear()
    yield tmp_path / "hub" / "checkpoints"
    for cache in caches:
        cache.cache_clear()
