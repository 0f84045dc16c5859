"""The pipeline against diffusers' own, picture by picture; its folder read by plain diffusers; what is saved
and refused.
"""

from __future__ import annotations

import json
import shutil
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from oracles import largest, seeded
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import CLIPTextModel, PreTrainedTokenizerFast
from transformers.utils import logging

from dhp_lab.core import precision
from dhp_lab.core.weights import CheckpointError
from dhp_lab.data.scenes import WORDS, parse
from dhp_lab.diffusion.samplers import ddim, last, start
from dhp_lab.diffusion.schedules import broadcast_to, cosine, linear
from dhp_lab.latent import pipeline as latent_diffusion
from dhp_lab.latent.autoencoders import kl_autoencoder
from dhp_lab.latent.folder import EPSILON, V_PREDICTION, schedule_of, scheduler_of
from dhp_lab.latent.pipeline import LatentDiffusion
from dhp_lab.training.latent_diffusion import LatentConfig, new_latent_diffusion

pytestmark = pytest.mark.usefixtures("in_float32")

CAPTIONS = ["a red circle", "a small blue square left of a large green triangle"]
CONFIG, WEIGHTS = "config.json", "diffusion_pytorch_model.safetensors"
PARTS = ("vae", "unet", "text_encoder", "tokenizer", "scheduler")


def made(seed: int = 0) -> LatentDiffusion:
    """A pipeline of the shipped kind with little, untrained networks and f = 8."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        vae = kl_autoencoder(8, widths=(8, 8, 8, 8)).eval()
        vae.register_to_config(scaling_factor=1.7)
        config = LatentConfig(widths=(16,), attention=(True,), text_width=8, text_layers=1)
        return new_latent_diffusion(config, vae)


@pytest.fixture(scope="module")
def model() -> LatentDiffusion:
    return made()


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


@pytest.fixture(scope="module")
def theirs(saved) -> StableDiffusionPipeline:
    pipeline = StableDiffusionPipeline.from_pretrained(saved)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def noise(model: LatentDiffusion, count: int, seed: int = 0) -> Tensor:
    return start(model.schedule, (count, *model.latent_shape), generator=seeded(seed))


def equal(a: nn.Module, b: nn.Module) -> bool:
    pairs = zip(a.state_dict().items(), b.state_dict().items(), strict=True)
    return all(x == y and torch.equal(v, w) for (x, v), (y, w) in pairs)


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


# against diffusers


def test_the_folder_is_read_by_plain_diffusers(model, saved):
    """Each part by its own class; the large tensors of vae and unet have passed through float16, and are
    float32 again.
    """
    for kind, name in (
        (AutoencoderKL, "vae"),
        (UNet2DConditionModel, "unet"),
        (CLIPTextModel, "text_encoder"),
    ):
        ours, read = getattr(model, name), kind.from_pretrained(saved, subfolder=name)
        for (key, a), (other, b) in zip(ours.state_dict().items(), read.state_dict().items(), strict=True):
            assert key == other and b.dtype == torch.float32 and largest(a - b) <= 2**-11 * largest(a), key
    assert equal(read, model.text_encoder)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(saved, subfolder="tokenizer")
    assert tokenizer.get_vocab() == model.tokenizer.get_vocab()
    scheduler = DDIMScheduler.from_pretrained(saved, subfolder="scheduler")
    assert largest(scheduler.betas - model.schedule.betas) < 1e-8
    index = json.loads((saved / "model_index.json").read_text())
    assert index["_class_name"] == "StableDiffusionPipeline" and set(PARTS) < set(index)


@pytest.mark.parametrize(
    "steps, guidance, eta", [(1, 4.0, 0.0), (5, 1.0, 0.0), (8, 7.5, 0.0), (5, 4.0, 0.7), (4, 4.0, 1.0)]
)
def test_diffusers_pipeline_makes_the_same_pictures(saved, theirs, steps, guidance, eta):
    """From the same noise, with as many steps. It takes a guidance of 1 for none at all, as ours does.

    A single step divides by sqrt(alpha_bar) = 0.006, and float32's rounding with it.
    """
    ours, generator = LatentDiffusion.load(saved), seeded(3)
    z_T = start(ours.schedule, (2, *ours.latent_shape), generator=generator)
    expected = theirs(
        CAPTIONS,
        num_inference_steps=steps,
        guidance_scale=guidance,
        eta=eta,
        latents=z_T,
        generator=generator,
        output_type="pt",
    ).images
    found = ours.sample(CAPTIONS, steps=steps, guidance=guidance, eta=eta, seed=3)
    assert found.std() > 0.05 and largest(found - expected) < (1e-3 if steps == 1 else 1e-4)


@pytest.mark.parametrize("prediction", [EPSILON, V_PREDICTION])
def test_a_u_net_may_tell_the_noise_or_v(model, tmp_path, prediction):
    """The folder says which; diffusers reads it there and makes the same pictures."""
    replace(model, prediction=prediction).save(tmp_path)
    theirs, ours = StableDiffusionPipeline.from_pretrained(tmp_path), LatentDiffusion.load(tmp_path)
    theirs.set_progress_bar_config(disable=True)
    assert theirs.scheduler.config.prediction_type == ours.prediction == prediction
    z_T = start(ours.schedule, (2, *ours.latent_shape), generator=seeded(3))
    expected = theirs(
        CAPTIONS, num_inference_steps=4, guidance_scale=3.0, latents=z_T, output_type="pt"
    ).images
    assert largest(ours.sample(CAPTIONS, steps=4, guidance=3.0, seed=3) - expected) < 1e-4


def test_told_as_v_the_noise_is_turned_back(model):
    z_t, t, context = noise(model, 2), torch.tensor([1.0, 700.0]), model.context(CAPTIONS)
    told = replace(model, prediction=EPSILON).eps(z_t, t, context)
    mixed = (
        broadcast_to(model.schedule.alpha_bar(t).sqrt(), z_t) * told
        + broadcast_to((1 - model.schedule.alpha_bar(t)).sqrt(), z_t) * z_t
    )
    assert largest(model.eps(z_t, t, context) - mixed) < 1e-5


@pytest.mark.parametrize("steps", [1, 4, 10, 50, 1000])
def test_a_divisor_of_1000_steps_takes_diffusers_times(model, steps):
    scheduler = scheduler_of(model.schedule)
    scheduler.set_timesteps(steps)
    assert torch.equal(scheduler.timesteps + 1, model.schedule.times(steps)[:-1].long())


@pytest.mark.parametrize("steps", [7, 30, 300])
def test_other_numbers_of_steps_are_even_here_and_rounded_there(model, steps):
    """So that the two pipelines agree but roughly: ours asks the network at times that are not whole."""
    scheduler, times = scheduler_of(model.schedule), model.schedule.times(steps)[:-1]
    scheduler.set_timesteps(steps)
    assert 0.1 < largest(scheduler.timesteps + 1 - times) <= 0.5 + 1e-9


@pytest.mark.parametrize("schedule", [linear(1000), linear(50), linear(300)])
def test_a_schedule_comes_back_from_diffusers_configuration(schedule):
    config = dict(scheduler_of(schedule).config)
    found = schedule_of(config)
    assert found.name == "linear" and largest(found.betas / schedule.betas - 1) < 1e-6
    assert dict(scheduler_of(found).config) == config
    assert (config["prediction_type"], config["clip_sample"], config["timestep_spacing"]) == (
        "epsilon",
        False,
        "trailing",
    )


# captions and guidance


def test_guidance_0_ignores_the_captions(model):
    asked = model.sample(CAPTIONS, steps=2, guidance=0)
    assert largest(asked - model.sample(CAPTIONS[::-1], steps=2, guidance=0)) < 1e-6
    assert largest(asked - model.sample(["", ""], steps=2, guidance=1)) < 1e-6
    assert largest(asked - model.sample(CAPTIONS, steps=2, guidance=1)) > 1e-3


@torch.no_grad()
def test_guidance_1_is_the_network_alone(model):
    model, context = replace(model, prediction=EPSILON), model.context(CAPTIONS)
    alone = ddim(
        lambda z_t, t: model.unet(z_t, t - 1, context).sample, model.schedule, noise(model, 2), count=4
    )
    found, expected = last(model.states(CAPTIONS, steps=4, guidance=1)).x, last(alone).x
    assert largest(found - expected) < 1e-5 * largest(expected)


@torch.no_grad()
def test_guidance_goes_on_from_no_caption_through_the_caption(model):
    """One step: x0 = (z - sigma eps) is linear in eps, and eps in the scale."""
    nothing, asked, far = (last(model.states(CAPTIONS, steps=1, guidance=scale)).x0 for scale in (0, 1, 5))
    assert (
        largest(far - (nothing + 5 * (asked - nothing))) < 1e-3 * largest(far)
        and largest(asked - nothing) > 0
    )


def test_a_seed_gives_the_same_pictures_and_another_others(model):
    torch.manual_seed(5)
    state, found = torch.get_rng_state(), model.sample(CAPTIONS, steps=2, eta=1.0, seed=4)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(7)
    assert torch.equal(found, model.sample(CAPTIONS, steps=2, eta=1.0, seed=4))
    assert largest(found - model.sample(CAPTIONS, steps=2, eta=1.0, seed=5)) > 0.01


def test_a_batch_is_its_pictures_one_by_one_but_for_the_noise(model, monkeypatch):
    """Each place in a batch has noise of its own, the first place that of a single picture. With its noise
    given, a picture does not depend on the others.
    """
    z_T, together = noise(model, 3), model.sample([CAPTIONS[0], *CAPTIONS], steps=2)
    assert largest(together[0] - together[1]) > 0.01, "one caption, two places"
    assert largest(together[:1] - model.sample(CAPTIONS[:1], steps=2)) < 1e-4
    for i, caption in enumerate([CAPTIONS[0], *CAPTIONS]):
        monkeypatch.setattr(latent_diffusion, "start", lambda *args, i=i, **options: z_T[i : i + 1])
        assert largest(together[i : i + 1] - model.sample([caption], steps=2)) < 1e-4


@torch.no_grad()
def test_states_end_at_the_latents_of_the_pictures(model):
    states = list(model.states(CAPTIONS, steps=4))
    assert [state.t for state in states] == [750, 500, 250, 0]
    assert all(state.x.shape == state.x0.shape == (2, 4, 8, 8) for state in states)
    decoded = model.vae.decode(states[-1].x / 1.7).sample / 2 + 0.5
    pictures = model.sample(CAPTIONS, steps=4)
    assert pictures.shape == (2, 3, 64, 64) and largest(pictures - decoded.clamp(0, 1)) < 1e-6


def test_half_precision_changes_little(model, monkeypatch):
    exact = model.sample(CAPTIONS, steps=2, guidance=1)
    monkeypatch.setattr(precision, "has_fast_bfloat16", lambda device_type: True)
    half = model.sample(CAPTIONS, steps=2, guidance=1)
    assert half.dtype == torch.float32 and 0 < (half - exact).abs().mean() < 0.01


def test_a_word_that_the_grammar_lacks_is_named_beside_those_that_it_has(model):
    with pytest.raises(
        ValueError, match=f"a caption does not know 'pink'; its words are: {', '.join(WORDS)}"
    ):
        model.sample(["a red circle", "a pink circle"])
    with pytest.raises(ValueError, match="'a circle' is not a caption; write 'a .*COLOUR KIND'"):
        model.context(["a circle"])


@pytest.mark.parametrize("captions", ["a red circle", [], ()])
def test_captions_that_are_no_list_are_refused(model, captions):
    for use in (model.sample, model.context, model.tokens):
        with pytest.raises(ValueError, match="captions must be a list of at least one, got "):
            use(captions)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"guidance": -1}, "scale must be finite and at least 0, got -1"),
        ({"steps": 0}, r"count must lie in 1 .. 1000.*got 0"),
        ({"steps": 1001}, "got 1001"),
        ({"eta": 2}, r"eta must lie in \[0, 1\], got 2"),
    ],
)
def test_options_outside_their_ranges_are_refused(model, options, message):
    with pytest.raises(ValueError, match=message):
        model.sample(CAPTIONS, **options)


# saved and loaded


def test_saved_and_loaded_is_the_same(model, saved, tmp_path):
    """A second time to the last bit, so that a folder may be loaded and saved again; none says where it came
    from.
    """
    once = LatentDiffusion.load(saved, check=parse)
    once.save(tmp_path / "again", training={"steps": 3})
    twice = LatentDiffusion.load(tmp_path / "again")
    for name in ("vae", "unet", "text_encoder"):
        assert equal(getattr(once, name), getattr(twice, name)) and not getattr(once, name).training
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
    other = made(seed=1)
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
    assert equal(found.text_encoder, other.text_encoder) and not equal(found.text_encoder, model.text_encoder)


def test_a_save_that_fails_leaves_the_older_pipeline_as_it_was(folder, monkeypatch):
    def full_disk(*args):
        raise OSError(28, "No space left on device")

    before = files(folder)
    monkeypatch.setattr(latent_diffusion, "save_autoencoder", full_disk)
    with pytest.raises(OSError, match="No space left"):
        made(seed=1).save(folder)
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
        (f"unet/{WEIGHTS}", f"is damaged: .*{WEIGHTS}"),
        ("text_encoder/model.safetensors", "is damaged: .*model.safetensors"),
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
