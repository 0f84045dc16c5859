"""The files of a codec's realism part: whole or not at all, no part of the model id, and refused with a clear
line when anything is wrong.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import bk_sdm
import pytest
import torch
from models import picture, untrained, woken
from oracles import largest
from realism_codecs import SIZE, SMALL, codec, network
from safetensors.torch import load, save

from dhp_lab.codec import dhp_file
from dhp_lab.codec.checkpoint import read_checkpoint, save_model, save_realism
from dhp_lab.codec.create import with_settings
from dhp_lab.codec.denoising.residual_unet import FIRST, START, ResidualUNet
from dhp_lab.codec.model import DiffusionHyperprior
from dhp_lab.codec.realism import realism_id
from dhp_lab.core.hub import CHECKPOINT_FILES, upload_checkpoint
from dhp_lab.core.memory import OutOfMemory
from dhp_lab.core.weights import CONFIG, REALISM_CONFIG, REALISM_WEIGHTS, WEIGHTS, CheckpointError


@pytest.fixture(scope="module")
def model() -> DiffusionHyperprior:
    return codec()


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path) -> Path:
    """A copy that a test may spoil."""
    for name in CHECKPOINT_FILES:
        (tmp_path / name).write_bytes((saved / name).read_bytes())
    return tmp_path


# whole files


def test_whole_files_are_decoded_with_it(folder):
    model = DiffusionHyperprior.from_pretrained(folder)
    data = dhp_file.encode(model, picture(*SIZE), lambda_rate=1e-2)
    for name in (REALISM_CONFIG, REALISM_WEIGHTS):
        (folder / name).unlink()
    plain = DiffusionHyperprior.from_pretrained(folder)
    assert plain.realism is None and dhp_file.encode(plain, picture(*SIZE), lambda_rate=1e-2) == data
    assert torch.equal(dhp_file.decode(plain, data), dhp_file.decode(model, data))
    assert largest(dhp_file.decode(plain, data, steps=2) - dhp_file.decode(model, data, steps=2)) > 1e-3
    with pytest.raises(ValueError, match="no realism part: take a checkpoint that holds realism.json"):
        _ = plain.realism_sampler


def test_drawing_takes_more_memory_than_decoding(model, monkeypatch):
    """4 pictures, 4 tensors like y (M / 256 of them a pixel) and a tile, after 3 pictures and 12 like y."""
    data, free = dhp_file.encode(model, picture(64, 64)), type("Memory", (), {"available": 0})
    monkeypatch.setattr("psutil.virtual_memory", lambda: free)
    drawing = 4 * 64 * 64 * (3 * 4 + 4 * 24 / 256) + 12 * SMALL[0] * 64 * 64
    decoding = 4 * 64 * 64 * (3 * 3 + 12 * 24 / 256)
    for needed, job, ways in (
        (drawing, "drawing", ({"steps": 2},)),
        (decoding, "decoding", ({"steps": 0}, {"steps": 1}, {"steps": 2, "preview": True})),
    ):
        for settings in ways:
            free.available = needed - 1
            with pytest.raises(OutOfMemory, match=f"{job} 0 megapixels needs .* shrink the picture"):
                dhp_file.decode(model, data, **settings)
            free.available = needed
            dhp_file.decode(model, data, **settings)


def test_a_tile_of_a_large_picture_is_no_larger(model):
    assert dhp_file._tile_bytes(model, (3000, 4000)) == dhp_file._tile_bytes(model, (1280, 1280))
    assert dhp_file._tile_bytes(model, (3000, 32)) == 12 * SMALL[0] * 1280 * 32


# save and load


def test_round_trip(model, saved, tmp_path):
    loaded = DiffusionHyperprior.from_pretrained(saved)
    assert sorted(os.listdir(saved)) == sorted(CHECKPOINT_FILES)
    assert loaded.realism.widths == SMALL and not loaded.realism.training
    for name, value in model.realism.state_dict().items():
        found = loaded.realism.state_dict()[name]
        assert found.dtype == torch.float32 and torch.allclose(found, value, rtol=1e-3, atol=1e-4)
    assert {t.dtype for t in load((saved / REALISM_WEIGHTS).read_bytes()).values()} <= {
        torch.float16,
        torch.float32,
    }
    loaded.save_pretrained(tmp_path)
    for name in CHECKPOINT_FILES:
        assert (tmp_path / name).read_bytes() == (saved / name).read_bytes()


def test_large_tensors_are_stored_in_half_precision(tmp_path):
    model = woken(N=4, M=8)
    model.realism = ResidualUNet((24, 24, 24))
    model.save_pretrained(tmp_path)
    stored = load((tmp_path / REALISM_WEIGHTS).read_bytes())
    assert all((t.dtype == torch.float16) == (t.numel() >= 4096) for t in stored.values())
    assert any(t.dtype == torch.float16 for t in stored.values())


def test_the_model_id_is_the_same_with_and_without(saved, tmp_path):
    woken(N=4, M=24).save_pretrained(tmp_path)
    assert sorted(os.listdir(tmp_path)) == [CONFIG, WEIGHTS]
    for name in (CONFIG, WEIGHTS):
        assert (tmp_path / name).read_bytes() == (saved / name).read_bytes()
    with_part, without = (DiffusionHyperprior.from_pretrained(one) for one in (saved, tmp_path))
    assert with_part.model_id == without.model_id == read_checkpoint(saved)[2]


def test_a_part_is_put_into_a_checkpoint_and_trained_further(folder):
    before = (folder / CONFIG).read_bytes(), (folder / WEIGHTS).read_bytes()
    first = DiffusionHyperprior.from_pretrained(folder)
    save_realism(folder, ResidualUNet((12, 8, 8)))
    again = DiffusionHyperprior.from_pretrained(folder)
    assert again.realism.widths == (12, 8, 8) and again.model_id == first.model_id
    assert before == ((folder / CONFIG).read_bytes(), (folder / WEIGHTS).read_bytes())


def test_a_checkpoint_that_is_replaced_leaves_no_part_behind(folder):
    woken(N=4, M=8).save_pretrained(folder)
    assert sorted(os.listdir(folder)) == [CONFIG, WEIGHTS]


def test_a_failing_disk_keeps_the_old_part(folder, saved, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    for save_again in (codec(M=16).save_pretrained, lambda place: save_realism(place, network(awake=False))):
        with pytest.raises(OSError, match="No space"):
            save_again(folder)
    assert all((folder / name).read_bytes() == (saved / name).read_bytes() for name in CHECKPOINT_FILES)
    assert sorted(os.listdir(folder)) == sorted(CHECKPOINT_FILES)


def test_it_goes_to_the_hub_with_the_codec(model, saved, tmp_path, monkeypatch):
    sent = []

    class Api:
        def create_repo(self, name, exist_ok):
            pass

        def upload_folder(self, repo_id, folder_path, allow_patterns):
            sent.extend(allow_patterns)

    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    asked = []

    def snapshot(name, allow_patterns):
        asked.extend(allow_patterns)
        return str(saved)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    upload_checkpoint(saved, "reader/codec")
    assert DiffusionHyperprior.from_pretrained("reader/codec").realism.widths == SMALL
    assert set(CHECKPOINT_FILES) <= set(sent) and set(CHECKPOINT_FILES) <= set(asked)


# what is refused


def refused(folder: Path, message: str) -> None:
    with pytest.raises(CheckpointError, match=message) as found:
        DiffusionHyperprior.from_pretrained(folder)
    assert "\n" not in str(found.value)


@pytest.mark.parametrize("name", [REALISM_CONFIG, REALISM_WEIGHTS])
def test_half_a_part_is_refused_by_the_missing_file(folder, name):
    (folder / name).unlink()
    refused(folder, f"half of the realism part: .*{name} is not there")


@pytest.mark.parametrize("about", [b"", b"{", b"\xff\xfe", b"not json"])
def test_a_damaged_description(folder, about):
    (folder / REALISM_CONFIG).write_bytes(about)
    refused(folder, "realism.json: it is damaged: .*; fetch it again")


@pytest.mark.parametrize("about", [b"[]", b"3", b"null", b"{}", b'{"model": "UNet", "widths": [8, 8, 8]}'])
def test_the_description_of_something_else(folder, about):
    (folder / REALISM_CONFIG).write_bytes(about)
    refused(folder, "realism.json: it does not describe a ResidualUNet")


@pytest.mark.parametrize(
    "change, message",
    [
        ({"widths": [8, 12]}, r"widths must be three whole numbers in 1 .. 1024, got \[8, 12\]"),
        ({"widths": [8, 12, 0]}, "widths must be three"),
        ({"widths": [8, 12, 10**9]}, "widths must be three"),
        ({"widths": [8, 12, 16.0]}, "widths must be three"),
        ({"widths": [8, 12, True]}, "widths must be three"),
        ({"widths": "8"}, "widths must be three"),
        ({"layers": 3}, "it must hold model, widths, start, first and codec, and holds model, .*, layers"),
        ({"start": 0.1}, "start and first must be noise levels, 0 < first < start <= 100, got 0.1 and 0.16"),
        ({"first": 0}, "start and first must be noise levels.* got 3.0 and 0"),
        ({"start": "3"}, "start and first must be"),
        ({"start": float("nan")}, "start and first must be"),
        ({"start": True}, "start and first must be"),
        ({"start": 1e9}, "start and first must be"),
        ({"codec": "00" * 8}, "trained for the codec 0{16}, the one beside it is [0-9a-f]{16}: train"),
    ],
)
def test_a_description_that_does_not_fit(folder, change, message):
    values = json.loads((folder / REALISM_CONFIG).read_text("utf-8")) | change
    (folder / REALISM_CONFIG).write_text(json.dumps(values), "utf-8")
    refused(folder, f"realism.json: .*{message}")


def test_a_description_without_its_noise_levels(folder):
    values = json.loads((folder / REALISM_CONFIG).read_text("utf-8"))
    del values["start"], values["first"]
    (folder / REALISM_CONFIG).write_text(json.dumps(values), "utf-8")
    refused(folder, "it must hold model, widths, start, first and codec, and holds model, widths, codec$")


def test_a_parts_noise_levels_are_those_of_its_chain(folder, saved):
    values = json.loads((folder / REALISM_CONFIG).read_text("utf-8")) | {"start": 2, "first": 0.05}
    (folder / REALISM_CONFIG).write_text(json.dumps(values), "utf-8")
    model, usual = (DiffusionHyperprior.from_pretrained(one) for one in (folder, saved))
    ends = [one.realism_sampler.schedule.sigma(torch.tensor([1.0, 1000.0])) for one in (model, usual)]
    assert torch.allclose(ends[0].float(), torch.tensor([0.05, 2.0]))
    assert torch.allclose(ends[1].float(), torch.tensor([FIRST, START]))
    data = dhp_file.encode(model, picture(*SIZE), lambda_rate=1e-2)
    assert largest(dhp_file.decode(model, data, steps=2) - dhp_file.decode(usual, data, steps=2)) > 1e-3


def test_a_part_is_named_by_its_files(saved):
    files = b"".join((saved / name).read_bytes() for name in (REALISM_CONFIG, REALISM_WEIGHTS))
    loaded, again = (DiffusionHyperprior.from_pretrained(saved) for _ in range(2))
    name = realism_id(loaded.realism, loaded.model_id)
    assert name == hashlib.sha256(files).digest()[:8] == realism_id(again.realism, again.model_id)
    with torch.no_grad():
        again.realism.exit.bias += 1e-3
    assert realism_id(again.realism, again.model_id) != name != realism_id(loaded.realism, bytes(8))


@pytest.mark.parametrize("keep", [0, 5, 1000, -1])
def test_damaged_weights(folder, keep):
    (folder / REALISM_WEIGHTS).write_bytes((folder / REALISM_WEIGHTS).read_bytes()[:keep])
    refused(folder, "realism.safetensors is damaged: .*; fetch it again")


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t.pop("exit.weight"),
        lambda t: t.update(extra=torch.zeros(2)),
        lambda t: t.update({"exit.bias": torch.zeros(5)}),
    ],
)
def test_weights_that_do_not_fit(folder, change):
    tensors = load((folder / REALISM_WEIGHTS).read_bytes())
    change(tensors)
    (folder / REALISM_WEIGHTS).write_bytes(save(tensors))
    refused(folder, "realism.safetensors does not fit realism.json: ")


def test_a_codec_of_another_training_refuses_it(folder):
    """The codec is trained on in its place: its residuals are others."""
    files = {name: (folder / name).read_bytes() for name in (REALISM_CONFIG, REALISM_WEIGHTS)}
    other = untrained(N=4, M=24)
    save_model(folder, other.config, other)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    refused(
        folder, "this realism part was trained for the codec .*: train one for it, or remove realism.json"
    )


def test_codecs_that_can_have_none(tmp_path):
    z_alone = untrained(N=4, M=8, transmit="z")
    around = bk_sdm.created(bk_sdm.written(tmp_path / "parts"))
    for model, reason in ((z_alone, "that sends y"), (around, "around the lapped transform, not")):
        with pytest.raises(ValueError, match=f"a realism part needs a codec {reason}"):
            model.realism = network()
        assert model.realism is None
        place = tmp_path / model.config.kind
        model.save_pretrained(place)
        with pytest.raises(CheckpointError, match=f"config.json: a realism part needs a codec {reason}"):
            save_realism(place, network())
        (place / REALISM_CONFIG).write_text("{}")
        (place / REALISM_WEIGHTS).write_bytes(b"")
        refused(place, f"realism.json: a realism part needs a codec {reason}")


def test_a_codec_with_other_settings_has_none(model):
    assert with_settings(model).realism is model.realism
    assert with_settings(model, dead_zone=0.2).realism is None
