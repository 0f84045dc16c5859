"""The pipeline's folder: saved, loaded, and what is refused."""

from __future__ import annotations

import json
import shutil
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from oracles import largest
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModel
from transformers.utils import logging
from untrained import same_weights, small_pipeline

from dhp_lab.core.weights import CheckpointError
from dhp_lab.data.scenes import parse
from dhp_lab.diffusion.schedules import cosine
from dhp_lab.latent import pipeline as latent_diffusion
from dhp_lab.latent.pipeline import LatentDiffusion

pytestmark = pytest.mark.usefixtures("in_float32")

CAPTIONS = ["a red circle", "a small blue square left of a large green triangle"]
CONFIG, WEIGHTS = "config.json", "diffusion_pytorch_model.safetensors"
PARTS = ("vae", "unet", "text_encoder", "tokenizer", "scheduler")


@pytest.fixture(scope="module")
def model() -> LatentDiffusion:
    return small_pipeline()


@pytest.fixture(scope="module")
def saved(tmp_path_factory, model) -> Path:
    """Where the pipeline is saved; not to be changed."""
    folder = tmp_path_factory.mktemp("saved") / "new" / "folder"
    model.save(folder, training={"steps": 3})
    return folder


@pytest.fixture
def folder(saved, tmp_path) -> Path:
    """A copy of it, to be changed."""
    return shutil.copytree(saved, tmp_path / "copy")


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


# saved and loaded


def test_saved_and_loaded_is_the_same(model, saved, tmp_path):
    """A second time to the last bit, so that a folder may be loaded and saved again; none says where it came
    from.
    """
    once = LatentDiffusion.load(saved, check=parse)
    once.save(tmp_path / "again", training={"steps": 3})
    twice = LatentDiffusion.load(tmp_path / "again")
    for name in ("vae", "unet", "text_encoder"):
        assert same_weights(getattr(once, name), getattr(twice, name)) and not getattr(once, name).training
    changed = {name for name, data in files(saved).items() if files(tmp_path / "again")[name] != data}
    assert changed <= {"tokenizer/tokenizer_config.json"}, "to which transformers adds how it was loaded"
    assert not [name for name, data in files(tmp_path / "again").items() if str(saved).encode() in data]
    assert (
        torch.equal(once.tokens(CAPTIONS), model.tokens(CAPTIONS)) and once.latent_shape == model.latent_shape
    )
    assert (
        torch.equal(once.schedule.betas, twice.schedule.betas) and once.check is parse and twice.check is None
    )
    assert 0 < largest(model.sample(CAPTIONS, steps=2) - once.sample(CAPTIONS, steps=2)) < 0.02


def test_what_lies_in_the_folder_stays_and_an_older_pipeline_goes(folder, model):
    (folder / "README.md").write_text("a card")
    other = small_pipeline(seed=1)
    other.save(folder, training={"steps": 4}, notes={"of": "a run"})
    assert (folder / "README.md").read_text() == "a card"
    assert json.loads((folder / "training.json").read_text()) == {"steps": 4}
    assert json.loads((folder / "notes.json").read_text()) == {"of": "a run"}
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        [
            "README.md",
            "model_index.json",
            "notes.json",
            "training.json",
            *PARTS,
        ]
    )
    found = LatentDiffusion.load(folder)
    assert same_weights(found.text_encoder, other.text_encoder) and not same_weights(
        found.text_encoder, model.text_encoder
    )


def test_a_save_that_fails_leaves_the_older_pipeline_as_it_was(folder, monkeypatch):
    def full_disk(*args):
        raise OSError(28, "No space left on device")

    before = files(folder)
    monkeypatch.setattr(latent_diffusion, "save_autoencoder", full_disk)
    with pytest.raises(OSError, match="No space left"):
        small_pipeline(seed=1).save(folder)
    assert files(folder) == before


@pytest.mark.parametrize("shown", [True, False])
def test_saving_and_loading_are_silent_and_bars_come_back(model, tmp_path, capfd, shown):
    """Or stay away, where somebody has turned them off."""
    if not shown:
        logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            model.save(tmp_path)
            LatentDiffusion.load(tmp_path)
        assert capfd.readouterr() == ("", "")
        CLIPTextModel.from_pretrained(tmp_path, subfolder="text_encoder")
        assert ("Loading weights" in capfd.readouterr().err) == shown
    finally:
        logging.enable_progress_bar()


# what is refused


@pytest.mark.parametrize("part", [*PARTS, "model_index.json"])
def test_a_part_that_is_missing_is_named(folder, part):
    shutil.rmtree(folder / part) if (folder / part).is_dir() else (folder / part).unlink()
    with pytest.raises(
        CheckpointError, match=rf"no latent diffusion model at .*copy: {part}.* not found; fetch it again"
    ):
        LatentDiffusion.load(folder)


def test_all_parts_that_are_missing_are_named(tmp_path):
    with pytest.raises(CheckpointError, match=", ".join(f"{part}/.*json" for part in PARTS)):
        LatentDiffusion.load(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "name, message",
    [
        (f"vae/{WEIGHTS}", f"no autoencoder at .*vae: {WEIGHTS} not found"),
        (f"unet/{WEIGHTS}", f"no latent diffusion model at .*: unet/{WEIGHTS} not found"),
        ("text_encoder/model.safetensors", "text_encoder/model.safetensors not found"),
        ("tokenizer/tokenizer.json", "is damaged: "),
        ("text_encoder/config.json", "text_encoder/config.json not found"),
    ],
)
def test_a_file_that_is_missing_is_refused(folder, name, message):
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=message):
        LatentDiffusion.load(folder)


@pytest.mark.parametrize("data", [b"short", bytes(range(256))])
@pytest.mark.parametrize("name", [f"vae/{WEIGHTS}", f"unet/{WEIGHTS}", "text_encoder/model.safetensors"])
def test_damaged_weights_are_refused(folder, name, data):
    for broken in (data, (folder / name).read_bytes()[:-100]):
        (folder / name).write_bytes(broken)
        with pytest.raises(CheckpointError, match="is damaged: .*; fetch it again"):
            LatentDiffusion.load(folder)


@pytest.mark.parametrize(
    "name, data",
    [
        *((f"{part}/{CONFIG}", data) for part in ("unet", "text_encoder") for data in (b"{", b"null")),
        ("text_encoder/config.json", b"[]"),
        *(
            (f"tokenizer/{name}.json", data)
            for name in ("tokenizer", "tokenizer_config")
            for data in (b"{", b"[]", b"null", b"\xff")
        ),
        *(
            ("scheduler/scheduler_config.json", data)
            for data in (b"{", b"[]", b"null", b'{"prediction_type": "sample"}')
        ),
    ],
)
def test_damaged_descriptions_are_refused(folder, name, data):
    (folder / name).write_bytes(data)
    with pytest.raises(
        CheckpointError, match="the latent diffusion model at .* is damaged: .*; fetch it again"
    ):
        LatentDiffusion.load(folder)


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors, name: tensors.pop(name),
        lambda tensors, name: tensors.update({name: torch.zeros(1)}),
        lambda tensors, name: tensors.update(extra=torch.zeros(1)),
    ],
)
@pytest.mark.parametrize(
    "name, key",
    [
        (f"unet/{WEIGHTS}", "conv_in.bias"),
        ("text_encoder/model.safetensors", "final_layer_norm.bias"),
    ],
)
def test_weights_that_do_not_fit_are_refused(folder, name, key, change):
    """Neither library minds a missing tensor: it draws one at random."""
    tensors = load_file(folder / name)
    assert key in tensors
    change(tensors, key)
    save_file(tensors, folder / name, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="is damaged: "):
        LatentDiffusion.load(folder)


def test_a_schedule_that_diffusers_cannot_describe_is_refused(model, tmp_path):
    other = LatentDiffusion(model.vae, model.unet, model.text_encoder, model.tokenizer, cosine(1000))
    with pytest.raises(ValueError, match="the schedule 'cosine' has no linear betas"):
        other.save(tmp_path)
    assert files(tmp_path) == {}


def test_another_prediction_is_refused(model):
    with pytest.raises(ValueError, match="a U-Net predicts 'epsilon' or 'v_prediction' here, got 'sample'"):
        replace(model, prediction="sample")
