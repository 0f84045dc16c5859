"""The pipeline against diffusers' own, picture by picture; its folder read by plain diffusers; what is saved
and refused.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from oracles import largest, seeded
from torch import Tensor
from transformers import CLIPTextModel, PreTrainedTokenizerFast
from untrained import same_weights, small_pipeline

from dhp_lab.core import precision
from dhp_lab.data.scenes import WORDS
from dhp_lab.diffusion.samplers import ddim, last, start
from dhp_lab.diffusion.schedules import broadcast_to, linear
from dhp_lab.latent import pipeline as latent_diffusion
from dhp_lab.latent.folder import EPSILON, V_PREDICTION, schedule_of, scheduler_of
from dhp_lab.latent.pipeline import LatentDiffusion

pytestmark = pytest.mark.usefixtures("in_float32")

CAPTIONS = ["a red circle", "a small blue square left of a large green triangle"]
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


@pytest.fixture(scope="module")
def theirs(saved) -> StableDiffusionPipeline:
    pipeline = StableDiffusionPipeline.from_pretrained(saved)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def noise(model: LatentDiffusion, count: int, seed: int = 0) -> Tensor:
    return start(model.schedule, (count, *model.latent_shape), generator=seeded(seed))


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
    assert same_weights(read, model.text_encoder)
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
def test_a_u_net_may_predict_the_noise_or_v(model, tmp_path, prediction):
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


def test_predicted_v_is_turned_into_the_noise(model):
    z_t, t, context = noise(model, 2), torch.tensor([1.0, 700.0]), model.context(CAPTIONS)
    eps_of_v = replace(model, prediction=EPSILON).eps(z_t, t, context)
    mixed = (
        broadcast_to(model.schedule.alpha_bar(t).sqrt(), z_t) * eps_of_v
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
    """So that the two pipelines agree but roughly: ours evaluates the network at times that are not whole."""
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
    plain = model.sample(CAPTIONS, steps=2, guidance=0)
    assert largest(plain - model.sample(CAPTIONS[::-1], steps=2, guidance=0)) < 1e-6
    assert largest(plain - model.sample(["", ""], steps=2, guidance=1)) < 1e-6
    assert largest(plain - model.sample(CAPTIONS, steps=2, guidance=1)) > 1e-3


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
    nothing, plain, far = (last(model.states(CAPTIONS, steps=1, guidance=scale)).x0 for scale in (0, 1, 5))
    assert (
        largest(far - (nothing + 5 * (plain - nothing))) < 1e-3 * largest(far)
        and largest(plain - nothing) > 0
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
