"""dhp_lab.core.settings: the profile, the device, the precision and the folder of data."""

from pathlib import Path

import pytest
import torch

from dhp_lab.core import settings


@pytest.fixture
def cuda(monkeypatch):
    """Pretend that torch sees this many CUDA devices."""

    def pretend(count: int) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)

    return pretend


@pytest.mark.parametrize("name", settings.PROFILES)
def test_profile_comes_from_the_environment(monkeypatch, name):
    monkeypatch.setenv("DHP_PROFILE", name)
    assert settings.choose_profile() == name


def test_profile_given_by_name_wins(monkeypatch):
    monkeypatch.setenv("DHP_PROFILE", "ci")
    assert settings.choose_profile("laptop") == "laptop"


@pytest.mark.parametrize(("count", "profile"), [(0, "laptop"), (1, "gpu")])
@pytest.mark.parametrize("value", [None, ""])
def test_default_profile_follows_cuda(monkeypatch, cuda, value, count, profile):
    cuda(count)
    monkeypatch.delenv("DHP_PROFILE", raising=False)
    if value is not None:
        monkeypatch.setenv("DHP_PROFILE", value)
    assert settings.choose_profile() == profile


def test_unknown_profile_is_named_with_the_choice(monkeypatch):
    monkeypatch.setenv("DHP_PROFILE", "Laptop")
    with pytest.raises(ValueError, match="DHP_PROFILE is 'Laptop'; choose one of ci, laptop, gpu"):
        settings.choose_profile()


@pytest.mark.parametrize(("count", "device"), [(0, "cpu"), (2, "cuda")])
def test_fastest_device_is_the_default(cuda, count, device):
    cuda(count)
    assert settings.choose_device() == torch.device(device)


def test_device_asked_for_is_the_device_given(cuda):
    cuda(2)
    assert settings.choose_device("cpu") == torch.device("cpu")
    assert settings.choose_device("cuda:1") == torch.device("cuda", 1)


@pytest.mark.parametrize(
    ("count", "name", "message"),
    [
        (0, "cuda", "device is 'cuda', but torch .* finds only cpu here"),
        (0, "mps", "device is 'mps'; choose one of cuda, cpu"),
        (2, "cuda:2", "device is 'cuda:2', but torch .* finds only cuda:0 .. cuda:1, cpu here"),
        (0, "cpu:1", "device is 'cpu:1', but"),
        (0, "gpu", "device is 'gpu'; choose one of cuda, cpu"),
        (1, "cuda:x", "device is 'cuda:x'; choose one of"),
    ],
)
def test_missing_device_is_an_error_not_a_fallback(cuda, count, name, message):
    cuda(count)
    with pytest.raises(ValueError, match=message):
        settings.choose_device(name)


@pytest.mark.parametrize(("fast", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_compute_dtype_follows_the_hardware(monkeypatch, fast, dtype):
    monkeypatch.setattr(settings, "has_fast_bfloat16", lambda kind: fast and kind == "cpu")
    assert settings.compute_dtype("cpu") == dtype
    assert settings.compute_dtype(torch.device("mps")) == torch.float32


def test_data_dir(monkeypatch, tmp_path):
    monkeypatch.setenv("DHP_DATA", str(tmp_path / "x" / ".." / "sets"))
    assert settings.data_dir() == tmp_path / "sets"
    monkeypatch.delenv("DHP_DATA")
    assert settings.data_dir() == Path(__file__).resolve().parents[2] / "data"


def test_current_settings_gathers_them(monkeypatch, tmp_path):
    monkeypatch.setenv("DHP_PROFILE", "ci")
    monkeypatch.setenv("DHP_DATA", str(tmp_path))
    expected = settings.Settings("ci", torch.device("cpu"), settings.compute_dtype("cpu"), tmp_path, seed=7)
    assert settings.current_settings(device="cpu", seed=7) == expected
    with pytest.raises(AttributeError):
        expected.seed = 8


def test_environment_report_says_what_runs(monkeypatch):
    monkeypatch.setenv("DHP_PROFILE", "ci")
    rows = dict(settings.environment_report())
    assert all(isinstance(value, str) and value for value in rows.values())
    assert rows["profile"] == "ci"
    assert rows["CPU threads"] == str(torch.get_num_threads())
    assert rows["torch"] == torch.__version__
    assert {"dhp-lab", "compressai", "diffusers", "Python", "device"} <= rows.keys()
