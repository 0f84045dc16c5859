"""How the models of scenes are trained, named and found; one call and one command train them in miniature;
what is shipped.
"""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel, VQModel
from typer.testing import CliRunner

from dhp_lab.cli import app
from dhp_lab.core.weights import CheckpointError
from dhp_lab.data.scenes import WORDS, batch, caption_accuracy_table
from dhp_lab.diffusion.samplers import start
from dhp_lab.latent.autoencoders import codebook_use, decode, encode, load_autoencoder
from dhp_lab.latent.pipeline import LatentDiffusion
from dhp_lab.metrics.pixels import psnr
from dhp_lab.training import (
    autoencoder as autoencoder_training,
)
from dhp_lab.training import (
    digit_denoiser as lesson_training,
)
from dhp_lab.training import (
    scene_models,
)
from dhp_lab.training.autoencoder import AutoencoderConfig
from dhp_lab.training.latent_diffusion import LatentConfig
from dhp_lab.training.scene_models import (
    SCENE_MODELS,
    SceneConfig,
    load_scenes,
    load_vq,
    scene_config,
    train_scenes,
)

UNSEEN = 1_000_000  # a seed beyond those of training
NAMES = ("scenes-f4", "scenes-f8", "scenes-vq")
SECOND = LatentConfig(widths=(16,), attention=(True,), text_width=8, text_layers=1, batch_size=2)


@pytest.fixture
def in_miniature(monkeypatch):
    """The three models with little networks, three steps for each of their stages and few pictures."""
    configs = {
        "scenes-f4": SceneConfig(AutoencoderConfig(f=4, widths=(8, 8, 8), batch_size=2), (SECOND, SECOND)),
        "scenes-f8": SceneConfig(AutoencoderConfig(f=8, widths=(8, 8, 8, 8), batch_size=2), (SECOND,)),
        "scenes-vq": SceneConfig(AutoencoderConfig(f=4, codes=8, widths=(8, 8, 8), batch_size=2)),
    }
    monkeypatch.setattr(scene_models, "SCENE_MODELS", configs)
    monkeypatch.setattr(autoencoder_training, "SCALE_PICTURES", 8)
    monkeypatch.setattr(scene_models, "SHORT", {"ci": (3, 3, 8), "laptop": (4, 4, 9)})


@pytest.mark.slow
def test_one_call_trains_and_saves_all(tmp_path, in_miniature):
    reports = []
    folders = train_scenes(
        tmp_path, profile="ci", device="cpu", progress=lambda name, step, loss: reports.append((name, step))
    )
    assert folders == [tmp_path / name for name in NAMES]
    assert reports == [
        (name, step) for name, steps in zip(NAMES, (9, 6, 3), strict=True) for step in range(1, steps + 1)
    ]
    for name, side in (("scenes-f4", 16), ("scenes-f8", 8)):
        model = LatentDiffusion.load(tmp_path / name)
        assert model.latent_shape == (4, side, side) and model.sample(["a red circle"], steps=1).shape == (
            1,
            3,
            64,
            64,
        )
        saved = json.loads((tmp_path / name / "training.json").read_text())
        assert saved == json.loads(json.dumps(asdict(scene_config(name, "ci"))))
        assert saved["first"]["training_steps"] == 3 and {one["scenes"] for one in saved["second"]} == {8}
    vq = load_autoencoder(tmp_path / "scenes-vq")
    assert type(vq) is VQModel and vq.config.num_vq_embeddings == 8


@pytest.mark.slow
def test_one_command_trains_one_of_them(tmp_path, in_miniature):
    result = CliRunner().invoke(
        app, f"train-scenes --output_dir {tmp_path} --only scenes-vq --profile ci --device cpu".split()
    )
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == [f"checkpoint: {tmp_path}/scenes-vq"] and "3/3" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["scenes-vq"]
    assert type(load_autoencoder(tmp_path / "scenes-vq")) is VQModel


@pytest.mark.parametrize("line", ["--only scenes-f2", "--profile huge", "--device tpu"])
def test_bad_options_end_in_one_line(tmp_path, line):
    result = CliRunner().invoke(app, f"train-scenes --output_dir {tmp_path} {line}".split())
    assert result.exit_code == 1 and list(tmp_path.iterdir()) == []
    assert line.split()[1] in result.stderr and "choose one of " in result.stderr


def test_profiles_change_the_numbers_of_steps_and_scenes_alone():
    assert tuple(SCENE_MODELS) == NAMES
    for name in NAMES:
        small, whole = scene_config(name, "ci"), scene_config(name)
        assert small.training_steps < scene_config(name, "laptop").training_steps < whole.training_steps
        changed = {key for key, value in asdict(small.first).items() if value != asdict(whole.first)[key]}
        assert changed == {"training_steps"} and (whole.second == ()) == (name == "scenes-vq")
        assert whole.training_steps == whole.first.training_steps + sum(
            one.training_steps for one in whole.second
        )
        for one, other in zip(small.second, whole.second, strict=True):
            changed = {key for key, value in asdict(one).items() if value != asdict(other)[key]}
            assert changed == {"training_steps", "scenes"}


def test_unknown_names_are_refused_before_anything_is_trained(tmp_path):
    choice = "choose one of scenes-f4, scenes-f8, scenes-vq and one of ci, laptop, gpu; got"
    with pytest.raises(ValueError, match=f"{choice} 'digits' and 'gpu'"):
        train_scenes(tmp_path, names=["scenes-vq", "digits"])
    with pytest.raises(ValueError, match=f"{choice} 'scenes-vq' and 'phone'"):
        scene_config("scenes-vq", "phone")
    with pytest.raises(ValueError, match="f must be 4 or 8, got 2"):
        load_scenes(2)
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_is_not_there_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(scene_models, "CHECKPOINTS", tmp_path)
    with pytest.raises(
        CheckpointError, match="no latent diffusion model at .*scenes-f8: model_index.json, vae"
    ):
        load_scenes(8)
    with pytest.raises(CheckpointError, match="no autoencoder at .*scenes-vq: config.json and"):
        load_vq()


# what is shipped


def test_the_shipped_models_weigh_little_and_say_nothing_of_where_they_were_made():
    folders = [lesson_training.CHECKPOINTS / name for name in NAMES]
    found = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in found) < 20e6
    assert {path.suffix for path in found} == {".json", ".md", ".safetensors"}
    texts = {path: path.read_text("utf-8") for path in found if path.suffix != ".safetensors"}
    assert [path for path, text in texts.items() if "_name_or_path" in text or '"/' in text] == []
    for folder in folders:
        assert (folder / "README.md").is_file()


@pytest.mark.parametrize("name", NAMES[:2])
def test_the_shipped_models_are_those_of_their_configuration(name):
    saved = json.loads((lesson_training.CHECKPOINTS / name / "training.json").read_text())
    assert saved == json.loads(json.dumps(asdict(scene_config(name))))


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize("name, least", [("scenes-f4", 41.0), ("scenes-f8", 34.5), ("scenes-vq", 39.5)])
def test_the_shipped_first_stages_lose_little_of_pictures_they_have_never_seen(name, least):
    model = load_vq() if name == "scenes-vq" else load_scenes(int(name[-1])).vae
    assert type(model) is (VQModel if name == "scenes-vq" else AutoencoderKL)
    x = batch(32, UNSEEN)[0]
    z = encode(model, x)
    assert psnr(decode(model, z), x).mean() > least
    if name == "scenes-vq":
        assert codebook_use(model, x).used > 400
    else:
        assert (z * model.config.scaling_factor).std() == pytest.approx(1, abs=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("f, least", [(4, 0.8), (8, 0.8)])
def test_the_shipped_models_draw_their_captions(f, least):
    """The captions' colours and kinds at their sides, in 64 captions of seeds that training has not seen."""
    captions, model = batch(64, UNSEEN)[1], load_scenes(f)
    found = caption_accuracy_table(model.sample(captions, steps=10, guidance=4.0), captions)
    assert found["placed"] >= least


@pytest.mark.slow
@pytest.mark.parametrize("f", [4, 8])
def test_plain_diffusers_draws_the_same_from_the_shipped_folder(f, in_float32):
    """By its own classes and pipeline, in float32; a picture's levels are 1/255 = 0.004 apart."""
    folder, ours, caption = (
        lesson_training.CHECKPOINTS / f"scenes-f{f}",
        load_scenes(f),
        "a red circle left of a blue square",
    )
    vae, unet = (
        kind.from_pretrained(folder, subfolder=part)
        for kind, part in ((AutoencoderKL, "vae"), (UNet2DConditionModel, "unet"))
    )
    assert vae.config.scaling_factor == ours.vae.config.scaling_factor and unet.config.sample_size == 64 // f
    theirs = StableDiffusionPipeline.from_pretrained(folder, vae=vae, unet=unet)
    theirs.set_progress_bar_config(disable=True)
    z_T = start(ours.schedule, (1, *ours.latent_shape), generator=torch.Generator().manual_seed(2))
    expected = theirs(
        [caption], num_inference_steps=10, guidance_scale=4.0, latents=z_T, output_type="pt"
    ).images
    assert (ours.sample([caption], steps=10, guidance=4.0, seed=2) - expected).abs().max() < 1e-3


def test_the_shipped_models_know_the_words_of_the_grammar():
    for f in (4, 8):
        with pytest.raises(ValueError, match=f"does not know 'dog'; its words are: {', '.join(WORDS)}"):
            load_scenes(f).sample(["a red dog"])
