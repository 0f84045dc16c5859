"""Checkpoints: whole or not at all, named by their bytes, and refused with a clear line when anything is
wrong.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest
import torch
from models import picture, untrained, woken
from safetensors.torch import load, save

from dhp_lab.codec.checkpoint import model_id, read_checkpoint
from dhp_lab.codec.config import CodecConfig
from dhp_lab.codec.model import DiffusionHyperprior
from dhp_lab.core import paths, weights
from dhp_lab.core.files import write_atomic
from dhp_lab.core.weights import CONFIG, WEIGHTS, CheckpointError


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "made" / "on demand"
    woken(N=4, M=8).save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path) -> Path:
    """A copy that a test may spoil."""
    for name in (CONFIG, WEIGHTS):
        (tmp_path / name).write_bytes((saved / name).read_bytes())
    return tmp_path


def refused(folder: Path, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        DiffusionHyperprior.from_pretrained(folder)


# write_atomic


def test_a_file_is_written_whole(tmp_path):
    write_atomic(tmp_path / "a.bin", b"first")
    write_atomic(str(tmp_path / "a.bin"), b"second")
    assert (tmp_path / "a.bin").read_bytes() == b"second" and os.listdir(tmp_path) == ["a.bin"]


@pytest.mark.parametrize("call", ["replace", "fsync"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failing_disk_keeps_the_old_file_and_leaves_nothing_behind(tmp_path, monkeypatch, call, error):
    write_atomic(tmp_path / "a.bin", b"old")

    def fail(*_):
        raise error

    monkeypatch.setattr(os, call, fail)
    for name in ("a.bin", "b.bin"):
        with pytest.raises(type(error)):
            write_atomic(tmp_path / name, b"new")
    assert os.listdir(tmp_path) == ["a.bin"] and (tmp_path / "a.bin").read_bytes() == b"old"


def test_the_data_is_on_the_disk_before_it_takes_the_name(tmp_path, monkeypatch):
    order = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, real=real, name=name: (order.append(name), real(*a)))
    write_atomic(tmp_path / "a.bin", b"data")
    assert order == ["fsync", "replace"]


def test_a_folder_that_is_not_there_is_the_disks_own_trouble(tmp_path):
    with pytest.raises(FileNotFoundError):
        write_atomic(tmp_path / "nowhere" / "a.bin", b"data")


# save and load


def test_round_trip(saved):
    model, loaded = woken(N=4, M=8), DiffusionHyperprior.from_pretrained(saved)
    assert (
        loaded.config == model.config
        and not loaded.training
        and sorted(os.listdir(saved)) == [CONFIG, WEIGHTS]
    )
    assert set(loaded.state_dict()) == set(model.state_dict())
    assert all(value.dtype == model.state_dict()[name].dtype for name, value in loaded.state_dict().items())
    x = picture(48, 48)
    coded = loaded.compress(x)
    assert torch.equal(loaded.decompress(coded["strings"], (48, 48))["x_hat"], loaded(x)["x_hat"].clamp(0, 1))


def test_large_tensors_are_stored_in_half_precision_and_tables_are_not(saved):
    for name, value in load((saved / WEIGHTS).read_bytes()).items():
        large = value.numel() >= weights.HALF_FROM
        assert value.dtype in (
            (torch.int32,)
            if "cdf" in name or "offset" in name
            else (torch.float16 if large else torch.float32,)
        )


def test_the_configuration_is_readable(saved):
    config = json.loads((saved / CONFIG).read_text("utf-8"))
    made_of = {
        "N": 4,
        "M": 8,
        "diffusion_steps": 10,
        "schedule": "linear",
        "transmit": "z+y",
        "passes": 1,
        "dead_zone": 0.0,
        "revision": 2,
        "trellis": False,
    }
    assert config == {"model": "DiffusionHyperprior"} | made_of


@pytest.mark.parametrize("settings", [{"transmit": "z"}, {"schedule": "cosine", "diffusion_steps": 3}])
def test_every_setting_survives(tmp_path, settings):
    model = untrained(N=4, M=8, **settings)
    model.save_pretrained(tmp_path)
    assert (
        DiffusionHyperprior.from_pretrained(str(tmp_path)).config
        == model.config
        == CodecConfig(4, 8, **{"diffusion_steps": 10} | settings)
    )


def test_tables_of_any_size_are_loaded(tmp_path):
    """Those of a trained prior of z are longer or shorter than the ones that a new model starts with."""
    model = untrained(N=4, M=8)
    start = model.entropy_bottleneck.quantized_cdf.shape
    model.update(force=True, update_quantiles=True)
    model.save_pretrained(tmp_path)
    other = untrained(N=4, M=8)
    other.load_state_dict(model.state_dict())
    for loaded in (DiffusionHyperprior.from_pretrained(tmp_path), other):
        found = loaded.entropy_bottleneck.quantized_cdf
        assert torch.equal(found, model.entropy_bottleneck.quantized_cdf) and found.shape != start


def test_saving_makes_missing_tables(tmp_path):
    model = DiffusionHyperprior(CodecConfig(N=4, M=8))
    model.save_pretrained(tmp_path)
    assert DiffusionHyperprior.from_pretrained(tmp_path).compress(picture(16, 16))["shape"] == (16, 16)


def test_a_failing_disk_keeps_the_old_checkpoint(folder, monkeypatch):
    before = read_checkpoint(folder)[2]
    monkeypatch.setattr(
        os, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    )
    with pytest.raises(OSError, match="No space"):
        untrained(N=4, M=8).save_pretrained(folder)
    assert read_checkpoint(folder)[2] == before and sorted(os.listdir(folder)) == [CONFIG, WEIGHTS]


# the model's name


def test_model_id_is_the_head_of_the_sha256(saved):
    config, weights = ((saved / name).read_bytes() for name in (CONFIG, WEIGHTS))
    assert (
        read_checkpoint(saved)[2]
        == model_id(config, weights)
        == hashlib.sha256(config + weights).digest()[:8]
    )
    assert DiffusionHyperprior.from_pretrained(saved).model_id == model_id(config, weights)


def test_model_id_changes_with_any_byte():
    config, weights = b'{"N": 4}', bytes(range(40))
    names = {model_id(config, weights)}
    for i in range(len(config) + len(weights)):
        changed = bytearray(config + weights)
        changed[i] ^= 1
        names.add(model_id(bytes(changed[: len(config)]), bytes(changed[len(config) :])))
    assert len(names) == 1 + len(config) + len(weights) and all(len(name) == 8 for name in names)


def test_model_id_of_a_loaded_model_follows_the_weights(folder):
    before = DiffusionHyperprior.from_pretrained(folder).model_id
    tensors = load((folder / WEIGHTS).read_bytes())
    tensors["gain.knots"][0] += 2.0**-20
    (folder / WEIGHTS).write_bytes(save(tensors))
    assert DiffusionHyperprior.from_pretrained(folder).model_id != before


# what is refused


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    refused(folder, f"no checkpoint at .*No such file.*{name}")


def test_a_folder_that_is_not_there(tmp_path):
    refused(tmp_path / "nowhere", "no checkpoint at .*nowhere: No such file or directory: .*nowhere")


@pytest.mark.parametrize("config", [b"", b"{", b'{"N": "\xff"}', b"\xff\xfe", b"not json"])
def test_a_damaged_configuration(folder, config):
    (folder / CONFIG).write_bytes(config)
    refused(folder, "is damaged: .*; fetch it again")


@pytest.mark.parametrize("keep", [0, 5, 1000, -1])
def test_damaged_weights(folder, keep):
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:keep])
    refused(folder, "is damaged: .*; fetch it again")


@pytest.mark.parametrize(
    "config", [b"[]", b"3", b"null", b"{}", b'{"model": "AutoencoderKL", "N": 4}', b'{"model_type": "bert"}']
)
def test_a_checkpoint_of_something_else(folder, config):
    (folder / CONFIG).write_bytes(config)
    refused(folder, "config.json does not describe a codec")


@pytest.mark.parametrize(
    "change",
    [
        {"N": 8},
        {"M": 9},
        {"N": "4"},
        {"N": 4.5},
        {"M": None},
        {"schedule": "square"},
        {"transmit": 1},
        {"layers": 3},
        {"diffusion_steps": 0},
    ],
)
def test_a_configuration_that_does_not_fit(folder, change):
    config = json.loads((folder / CONFIG).read_text("utf-8")) | change
    (folder / CONFIG).write_text(json.dumps(config), "utf-8")
    refused(folder, "does not fit this version of dhp_lab")


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t.pop("g_a.linear.correction"),
        lambda t: t.pop("entropy_bottleneck._offset"),
        lambda t: t.pop("gaussian_conditional._quantized_cdf"),
        lambda t: t.update(extra=torch.zeros(2)),
        lambda t: t.update({"gain.knots": torch.zeros(3)}),
    ],
)
def test_weights_that_do_not_fit(folder, change):
    tensors = load((folder / WEIGHTS).read_bytes())
    change(tensors)
    (folder / WEIGHTS).write_bytes(save(tensors))
    refused(folder, "does not fit this version of dhp_lab")


def test_the_shipped_checkpoint_is_found_or_missed_with_a_way_out(monkeypatch, tmp_path):
    monkeypatch.setattr(paths, "CHECKPOINTS", tmp_path / "data" / "checkpoints")
    with pytest.raises(
        CheckpointError, match="not at .*data/checkpoints/diffusion-hyperprior; .* --model_path"
    ):
        paths.default_checkpoint()
    shipped = tmp_path / "data" / "checkpoints" / "diffusion-hyperprior"
    shipped.mkdir(parents=True)
    (shipped / WEIGHTS).touch()
    assert paths.default_checkpoint() == shipped.resolve()
