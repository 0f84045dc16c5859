"""Words as tokens, the loss against diffusers' own noise and v, short runs that repeat themselves and learn;
what is refused.
"""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import pytest
import torch
from diffusers import AutoencoderKL, DDPMScheduler
from oracles import largest, seeded
from torch import Tensor, nn

from dhp_lab.data.scenes import MAX_WORDS, WORDS, batch
from dhp_lab.latent.autoencoders import encode, kl_autoencoder, scale_factor
from dhp_lab.latent.pipeline import LatentDiffusion
from dhp_lab.training import latent_diffusion as latent_training
from dhp_lab.training.latent_diffusion import (
    END,
    PAD,
    START,
    LatentConfig,
    new_latent_diffusion,
    scaled_latents,
    train_latent_diffusion,
    word_tokenizer,
)

pytestmark = pytest.mark.usefixtures("in_float32")

TINY = LatentConfig(
    widths=(16,),
    attention=(True,),
    text_width=8,
    text_layers=1,
    scenes=12,
    training_steps=3,
    batch_size=4,
    lr=1e-2,
)
LONGEST = "a small red circle left of a large blue square and a small green triangle"


def first_stage() -> AutoencoderKL:
    """f = 8, untrained but for its scale."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        vae = kl_autoencoder(8, widths=(8, 8, 8, 8)).eval().requires_grad_(False)
    vae.register_to_config(scaling_factor=scale_factor(vae, batch(8, 99)[0]))
    return vae


@pytest.fixture(scope="module")
def vae() -> AutoencoderKL:
    return first_stage()


def networks(model: LatentDiffusion) -> nn.ModuleList:
    return nn.ModuleList([model.unet, model.text_encoder])


def equal(a: nn.Module, b: nn.Module) -> bool:
    pairs = zip(a.state_dict().items(), b.state_dict().items(), strict=True)
    return all(x == y and torch.equal(v, w) for (x, v), (y, w) in pairs)


# words


def test_each_word_has_a_token_of_its_own():
    tokenizer = word_tokenizer()
    assert tokenizer.get_vocab() == {word: i for i, word in enumerate((PAD, START, END, *WORDS))}
    assert (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id) == (0, 1, 2)


@pytest.mark.parametrize(
    "caption", ["", "a red circle", "A Small RED  circle left of a blue square", LONGEST]
)
def test_a_caption_is_a_start_its_words_an_end_and_padding(caption):
    tokenizer, words = word_tokenizer(), caption.lower().split()
    found = tokenizer([caption], padding="max_length", truncation=True)["input_ids"][0]
    expected = [1, *(3 + WORDS.index(word) for word in words), 2]
    assert found == expected + [0] * (MAX_WORDS + 2 - len(expected))
    assert tokenizer.decode(found, skip_special_tokens=True) == " ".join(words)


def test_the_longest_caption_fills_the_tokens():
    assert len(LONGEST.split()) == MAX_WORDS == 15
    ids = word_tokenizer()([LONGEST], padding="max_length", truncation=True)["input_ids"][0]
    assert len(ids) == word_tokenizer().model_max_length == 17 and 0 not in ids


# networks


@pytest.mark.parametrize("f, side", [(4, 16), (8, 8)])
def test_the_unet_works_on_the_first_stages_latents(f, side):
    with torch.random.fork_rng():
        model = new_latent_diffusion(TINY, kl_autoencoder(f, widths=(8,) * (3 if f == 4 else 4)))
    assert model.latent_shape == (4, side, side) and model.unet.config.cross_attention_dim == 8
    assert model.context(["a red circle"]).shape == (1, 17, 8)
    assert model.schedule.steps == 1000 and model.schedule.betas[-1] == 0.02


@torch.no_grad()
def test_a_word_counts_from_its_place_on(vae):
    """The text encoder is causal: what comes before the changed word stays the same, all after it changes."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = new_latent_diffusion(TINY, vae)
    a, b = model.context(["a red circle", "a blue circle"])
    assert largest(a[:2] - b[:2]) < 1e-6 and (a[2:] - b[2:]).abs().amax(1).min() > 1e-5


# latents


@torch.no_grad()
def test_scaled_latents_are_those_of_scenes_chunk_by_chunk(vae):
    z, captions = scaled_latents(vae, 5, seed=7, chunk=3)
    (first, some), (second, more) = batch(3, 7), batch(2, 10)
    expected = torch.cat([encode(vae, first), encode(vae, second)]) * vae.config.scaling_factor
    assert largest(z - expected) < 1e-5 and captions == some + more
    assert not z.requires_grad and z.shape == (5, 4, 8, 8)


def test_scaled_latents_have_about_unit_variance(vae):
    assert scaled_latents(vae, 32)[0].std() == pytest.approx(1, rel=0.1)


# the loop


@pytest.mark.slow
def test_a_run_repeats_itself_and_leaves_the_global_generator_alone(vae):
    torch.manual_seed(5)
    state, before = torch.get_rng_state(), copy.deepcopy(vae)
    first = train_latent_diffusion(TINY, vae)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(7)
    assert equal(networks(first), networks(train_latent_diffusion(TINY, vae)))
    assert not equal(networks(first), networks(train_latent_diffusion(replace(TINY, seed=1), vae)))
    for part in networks(first):
        assert not part.training and not any(p.requires_grad for p in part.parameters())
    assert first.vae is vae and equal(vae, before), "the first stage is frozen"


def test_both_networks_learn(vae):
    with torch.random.fork_rng():
        torch.manual_seed(TINY.seed)
        before = new_latent_diffusion(TINY, vae)
    after = train_latent_diffusion(TINY, vae)
    for a, b in ((before.unet, after.unet), (before.text_encoder, after.text_encoder)):
        moved = [
            name
            for (name, p), q in zip(a.named_parameters(), b.parameters(), strict=True)
            if not torch.equal(p, q)
        ]
        assert len(moved) == len(list(a.parameters()))


@pytest.mark.parametrize("heaviest", [1e6, 10.0, 1.0])
def test_the_first_loss_is_that_of_diffusers_v(vae, heaviest):
    """The batch, times and noise that the seed gives, mixed by diffusers' DDPMScheduler and shown to the new
    network.
    """
    losses, config = [], replace(TINY, null_probability=0.0, seed=3, heaviest=heaviest)
    train_latent_diffusion(config, vae, progress=lambda step, loss: losses.append((step, loss)))
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = new_latent_diffusion(config, vae)
    (pictures, captions), generator = batch(12, 3), seeded(3)
    chosen, _ = torch.randint(12, (4,), generator=generator), torch.rand(4, generator=generator)
    timesteps, eps = (
        torch.randint(1, 1001, (4,), generator=generator) - 1,
        torch.randn(4, 4, 8, 8, generator=generator),
    )
    with torch.no_grad():
        z = encode(vae, pictures)[chosen] * vae.config.scaling_factor
        scheduler, context = (
            DDPMScheduler(1000, 1e-4, 0.02, "linear"),
            model.context([captions[i] for i in chosen]),
        )
        z_t, v = scheduler.add_noise(z, eps, timesteps), scheduler.get_velocity(z, eps, timesteps)
        errors = (
            (model.unet(z_t, timesteps, encoder_hidden_states=context).sample - v).square().mean((1, 2, 3))
        )
        expected = ((heaviest * scheduler.alphas_cumprod[timesteps]).clamp(max=1) * errors).mean().item()
    assert losses[0] == (1, pytest.approx(expected, rel=1e-4)) and [step for step, _ in losses] == [1, 2, 3]


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_a_share_of_the_captions_is_dropped(vae, monkeypatch, share):
    """A dropped one is given as the empty caption, whose third token is padding."""
    seen: list[Tensor] = []
    make = latent_training.new_latent_diffusion

    def listening(*args) -> LatentDiffusion:
        model = make(*args)
        model.text_encoder.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
        return model

    monkeypatch.setattr(latent_training, "new_latent_diffusion", listening)
    train_latent_diffusion(replace(TINY, null_probability=share, batch_size=32), vae)
    dropped = torch.cat(seen)[:, 2] == 0
    assert len(dropped) == 96 and dropped.float().mean().item() == pytest.approx(
        share, abs=0.15 if 0 < share < 1 else 0
    )


@pytest.mark.slow
def test_thirty_steps_lower_the_loss(vae):
    losses = []
    config = replace(TINY, training_steps=30, batch_size=8, scenes=32)
    model = train_latent_diffusion(config, vae, progress=lambda step, loss: losses.append(loss))
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
    assert model.sample(["a red circle"], steps=2).shape == (1, 3, 64, 64)


def test_the_average_is_what_comes_back(vae):
    """Nothing kept is the last weights; all kept but a little, nearly the first: (1 - step / (step + 10)) of
    each step counts.
    """
    last, mean = (train_latent_diffusion(replace(TINY, average=keep), vae) for keep in (0.0, 0.999))
    with torch.random.fork_rng():
        torch.manual_seed(TINY.seed)
        first = new_latent_diffusion(TINY, vae)
    a, b, c = (model.unet.conv_out.weight.detach() for model in (first, mean, last))
    assert 0 < largest(b - a) <= largest(c - a) and not torch.equal(b, c)


def test_latents_at_hand_are_those_of_the_configuration(vae):
    data = scaled_latents(vae, TINY.scenes, seed=TINY.seed)
    given = train_latent_diffusion(TINY, vae, data=data)
    assert equal(networks(given), networks(train_latent_diffusion(TINY, vae)))


def test_a_stage_has_as_many_layers_as_are_named(vae):
    unet = new_latent_diffusion(replace(TINY, layers=2), vae).unet
    assert [len(stage.resnets) for stage in (*unet.down_blocks, *unet.up_blocks)] == [2, 3]


def test_a_run_goes_on_from_another(vae):
    """With steps of no length it ends where it starts; what it starts from stays."""
    before = train_latent_diffusion(TINY, vae)
    weights = copy.deepcopy(before.unet.state_dict())
    still = train_latent_diffusion(replace(TINY, lr=1e-12, seed=1), vae, start=before)
    on = train_latent_diffusion(replace(TINY, seed=1), vae, start=before)
    for name in ("unet", "text_encoder"):
        pairs = zip(*(list(getattr(model, name).parameters()) for model in (before, still, on)), strict=True)
        gaps = [(largest(a - b), largest(a - c)) for a, b, c in pairs]
        assert max(gap for gap, _ in gaps) < 1e-6 < 1e-4 < max(gap for _, gap in gaps)
    assert all(torch.equal(value, weights[name]) for name, value in before.unet.state_dict().items())


def test_a_loss_that_is_no_number_stops_the_run():
    vae = first_stage()
    vae.register_to_config(scaling_factor=math.nan)
    with pytest.raises(ValueError, match="the loss is nan at step 1; try a smaller lr than 0.01"):
        train_latent_diffusion(TINY, vae)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"heaviest": 0.5}, "heaviest must be at least 1, got 0.5"),
        (
            {"widths": (64, 100)},
            r"multiples of 16 with an attention for each, got \(64, 100\) and \(False, True\)",
        ),
        ({"widths": (64,)}, r"got \(64,\) and \(False, True\)"),
        ({"widths": (), "attention": ()}, r"got \(\) and \(\)"),
        ({"widths": (0, 16)}, r"got \(0, 16\)"),
        ({"text_width": 10}, "text_width must be a multiple of 4, got 10"),
        ({"text_width": 0}, "got 0"),
        ({"text_layers": 0}, "text_layers must be at least 1, got 0"),
        ({"diffusion_steps": 0}, "diffusion_steps must be at least 1, got 0"),
        ({"layers": 0}, "layers must be at least 1, got 0"),
        ({"scenes": 0}, "scenes must be at least 1, got 0"),
        ({"training_steps": -1}, "training_steps must be at least 1, got -1"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"lr": 0.0}, r"lr must lie in \(0, 1\), .*got 0, 0.1 and 0.999"),
        ({"lr": math.nan}, "got nan, 0.1 and 0.999"),
        ({"null_probability": 1.5}, "got 0.001, 1.5 and 0.999"),
        ({"average": 1.0}, "got 0.001, 0.1 and 1"),
    ],
)
def test_a_configuration_outside_its_range_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        LatentConfig(**change)
