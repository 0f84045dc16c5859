"""SSIMULACRA2 and ColorVideoVDP: how their packages are called, and what the real ones find."""

import io
import sys
import types

import numpy as np
import pytest
import torch
from photos import photo
from PIL import Image

from dhp_lab.data.images import to_pixels
from dhp_lab.evaluation import rival_metrics
from dhp_lab.evaluation.judges import choose_metrics
from dhp_lab.evaluation.rival_metrics import MissingPackage, require


def noisy(x, deviation=0.05):
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    return (x + deviation * noise).clamp(0, 1)


def test_a_missing_package_is_one_line(monkeypatch):
    for module, key in (("ssimulacra2", "ssimulacra2"), ("pycvvdp", "cvvdp")):
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(
            MissingPackage, match=rf'{module} is not installed; pip install "dhp-lab\[rivals\]"'
        ):
            require(module)
        line = f'{key} is left out: {module} is not installed; pip install "dhp-lab[rivals]"'
        assert choose_metrics([key]) == ([], [line])


def test_ssimulacra2_gets_the_original_first_as_files(monkeypatch):
    seen = []

    def compute(original, decoded):
        seen.extend(np.array(Image.open(stream)) for stream in (original, decoded))
        assert isinstance(original, io.BytesIO)
        return np.float64(71.5)

    monkeypatch.setitem(sys.modules, "ssimulacra2", types.SimpleNamespace(compute_ssimulacra2=compute))
    x, x_hat = photo(20, 24), noisy(photo(20, 24))
    assert rival_metrics.ssimulacra2(x_hat, x) == 71.5
    assert np.array_equal(seen[0], to_pixels(x)) and np.array_equal(seen[1], to_pixels(x_hat))


def test_cvvdp_gets_the_decoded_picture_first(monkeypatch):
    made = []

    class Model:
        def __init__(self, **options):
            made.append(options)

        def predict(self, test, reference, dim_order):
            assert dim_order == "CHW" and test.shape == reference.shape == (3, 20, 24)
            return (test - reference).mean(), None

    monkeypatch.setitem(sys.modules, "pycvvdp", types.SimpleNamespace(cvvdp=Model))
    rival_metrics._video_metric.cache_clear()
    x = photo(20, 24)
    found = [rival_metrics.cvvdp(x + 0.5, x), rival_metrics.cvvdp(x, x)]
    rival_metrics._video_metric.cache_clear()
    assert found == pytest.approx([0.5, 0], abs=1e-6)
    assert made == [{"display_name": "standard_4k", "device": torch.device("cpu"), "quiet": True}]


@pytest.mark.slow
@pytest.mark.parametrize("name, best", [("ssimulacra2", 100), ("cvvdp", 10)])
def test_the_real_ones_fall_with_noise(name, best):
    found, _ = choose_metrics([name])
    if not found:
        pytest.skip(f"{name} is not installed")
    metric, x = getattr(rival_metrics, name), photo(64, 80)
    figures = [metric(noisy(x, deviation), x) for deviation in (0, 0.03, 0.1)]
    assert figures[0] == pytest.approx(best, abs=1e-3) and figures[0] > figures[1] > figures[2]
