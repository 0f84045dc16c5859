"""What small trainings of the realism denoiser need: photos, a codec, the judges, and a configuration."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from made_networks import lay_all
from models import untrained
from PIL import Image
from realism_runs import SMALL

from dhp_lab.metrics.perceptual import dists_network, lpips_network
from dhp_lab.training.realism_config import RealismConfig


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """Four smooth random pictures with a little grain."""
    folder, random = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for i in range(4):
        coarse = Image.fromarray(random.integers(0, 256, (6, 5, 3), dtype=np.uint8))
        coarse.resize((80, 96), Image.Resampling.BICUBIC).save(folder / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def codec(tmp_path_factory) -> Path:
    """The folder of a small codec."""
    folder = tmp_path_factory.mktemp("codec")
    model = untrained(N=8, M=16)
    model.update()
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """Small networks of the judges, where programs look for them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DHP_DATA", str(tmp_path_factory.mktemp("data")))
        patch.setenv("TORCH_HOME", str(tmp_path_factory.mktemp("torch")))
        forget()
        lay_all()
        yield
    forget()


def forget() -> None:
    """Load the judges anew when they are next used."""
    lpips_network.cache_clear()
    dists_network.cache_clear()


@pytest.fixture
def without_networks(monkeypatch, tmp_path):
    """A machine without any network of the judges."""
    monkeypatch.setenv("DHP_DATA", str(tmp_path / "nothing"))
    forget()
    yield
    forget()


@pytest.fixture
def config(photos, codec, tmp_path):
    """Makes the configuration of a small run."""

    def make(out: Path = tmp_path / "out", **changes) -> RealismConfig:
        places = {"data_path": str(photos), "model_path": str(codec), "output_dir": str(out)}
        return RealismConfig(**places, **{**SMALL, **changes})

    return make
