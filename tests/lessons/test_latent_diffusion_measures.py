"""The lesson on latent diffusion: attention maps, progressive code, encoder measures, against oracles."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from dhp_lab.data.scenes import batch
from dhp_lab.diffusion.schedules import linear
from dhp_lab.latent.autoencoders import encode
from dhp_lab.lessons.latent_diffusion import attention_maps, progressive_code
from dhp_lab.lessons.measuring_pictures import encoder_measures


@pytest.fixture(scope="module")
def model(small_latent_diffusion):
    return small_latent_diffusion


@pytest.fixture(scope="module")
def scenes():
    return batch(6, seed=3)


# what the words look at


def test_recording_changes_nothing(model, scenes):
    z_t, t, context = torch.randn(2, 4, 8, 8), torch.tensor([5.0, 9.0]), model.context(scenes[1][:2])
    before, kinds = (
        model.unet(z_t, t, context).sample,
        {name: type(one) for name, one in model.unet.attn_processors.items()},
    )
    with attention_maps.recorded_attention(model.unet) as maps:
        assert (model.unet(z_t, t, context).sample - before).abs().max() < 1e-5
    assert len(maps) == sum("attn2" in name for name in kinds) > 0
    assert all((found.sum(2) - 1).abs().max() < 1e-5 and found.shape[2] == context.shape[1] for found in maps)
    assert {name: type(one) for name, one in model.unet.attn_processors.items()} == kinds


def test_recording_ends_with_an_error(model):
    kinds = {name: type(one) for name, one in model.unet.attn_processors.items()}
    with pytest.raises(RuntimeError, match="mine"), attention_maps.recorded_attention(model.unet):
        raise RuntimeError("mine")
    assert {name: type(one) for name, one in model.unet.attn_processors.items()} == kinds


def test_a_map_is_the_softmax_over_the_words(model, scenes):
    context, seen = model.context(scenes[1][:2]), []
    attention = next(m for name, m in model.unet.named_modules() if name.endswith("attn2"))
    handle = attention.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(args[0]), with_kwargs=True
    )
    with attention_maps.recorded_attention(model.unet) as maps:
        model.unet(torch.randn(2, 4, 8, 8), torch.tensor([5.0, 9.0]), context)
    handle.remove()
    heads, q, k = attention.heads, attention.to_q(seen[0]), attention.to_k(context)
    q, k = (x.unflatten(2, (heads, -1)) for x in (q, k))
    scores = torch.einsum("bphd,blhd->bhpl", q, k) / q.shape[-1] ** 0.5
    assert (
        min((found - scores.softmax(-1).mean(1)).abs().max() for found in maps if found.shape[1] == 64) < 1e-5
    )


def test_word_maps_keep_their_places():
    even, left = torch.full((4, 16, 3), 1 / 3), torch.zeros(4, 4, 3)
    left[:, 0::2, 1] = 1.0  # 2 x 2 places, the left column
    shown = attention_maps.word_maps([even, even], 2, side=8)
    assert shown.shape == (2, 3, 8, 8) and (shown - 1 / 3).abs().max() < 1e-6
    shown = attention_maps.word_maps([left], 1, side=8)
    assert (
        shown[0, 1, :, 0].tolist() == [1.0] * 8
        and shown[0, 1, :, 7].tolist() == [0.0] * 8
        and not shown[0, 0].any()
    )


@pytest.mark.parametrize("maps", [[], [torch.ones(1, 4, 3)]])
def test_word_maps_need_maps(maps):
    with pytest.raises(ValueError, match="at least 2 items"):
        attention_maps.word_maps(maps, 2)


# bits


def test_the_chain_of_normal_data_sends_what_the_channel_holds(monkeypatch):
    schedule = linear(200)
    z0 = torch.randn(64, 4, 16, 16, generator=torch.Generator().manual_seed(0))

    def exact(z_t, t, context):
        sigma, scale = (
            values.float()[:, None, None, None] for values in (schedule.sigma(t), schedule.scale(t))
        )
        return z_t / scale * sigma / (1 + sigma**2)

    vae = SimpleNamespace(config=SimpleNamespace(scaling_factor=1.0))
    model = SimpleNamespace(schedule=schedule, vae=vae, context=len, eps=exact, pictures=lambda z: z)
    monkeypatch.setattr(progressive_code, "encode", lambda vae, x: x)
    found = progressive_code.progressive_code(model, z0, [""] * 64, count=60)
    assert found.times[0] == 200 and found.times[-1] == 1 and bool((found.times.diff() < 0).all())
    sigma2 = schedule.sigma(found.times).square()
    expected = z0[0].numel() / 2 * torch.log2(1 + 1 / sigma2)  # what z_t tells of z0 (Shannon 1948)
    assert ((found.bits - expected).abs() / expected[-1]).max() < 0.01
    assert (found.rmse - 255 * (sigma2 / (1 + sigma2)).sqrt()).abs().max() < 2


def test_the_code_is_a_function_of_its_seed(model, scenes):
    found = [
        progressive_code.progressive_code(model, scenes[0][:2], scenes[1][:2], count=4, seed=seed)
        for seed in (0, 0, 1)
    ]
    assert torch.equal(found[0].bits, found[1].bits) and torch.equal(found[0].rmse, found[1].rmse)
    assert not torch.equal(found[0].bits, found[2].bits)


# the encoder's measures


def test_the_layers_end_in_the_latents(model, scenes):
    x = scenes[0][:2]
    layers, encoder = encoder_measures.encoder_layers(model.vae, x), model.vae.encoder
    assert [layer.shape[-1] for layer in layers] == [32, 16, 8, 8, 8]
    moments = model.vae.quant_conv(encoder.conv_out(encoder.conv_act(encoder.conv_norm_out(layers[-1]))))
    assert (moments[:, :4] - encode(model.vae, x)).abs().max() < 1e-5
    features = encoder_measures.encoder_features(model.vae, x)
    assert features.shape == (2, 32) and torch.allclose(features[1, 3], layers[-1][1, 3].mean())
    assert torch.allclose(features[1, 19], layers[-1][1, 3].flatten().std())


def test_the_predictor_is_the_penalised_least_squares_fit(model):
    predictor = encoder_measures.WordPredictor(model.vae, count=120, penalty=1e-2)
    pictures, captions = batch(120, 2000)
    features = encoder_measures.encoder_features(model.vae, pictures).double().numpy()
    words = torch.stack([predictor.words(caption) for caption in captions]).numpy()
    a, b = features - features.mean(0), words - words.mean(0)
    penalty = np.sqrt(1e-2 * (a**2).sum(0).mean()) * np.eye(a.shape[1])
    best = np.linalg.lstsq(
        np.vstack([a, penalty]), np.vstack([b, np.zeros_like(penalty)[:, :18]]), rcond=None
    )[0]
    predicted, given = predictor(pictures, captions)
    assert np.abs(predicted.numpy() - a @ best).max() < 1e-6 and np.abs(given.numpy() - b).max() < 1e-12


def test_the_words_are_counted():
    found = encoder_measures.WordPredictor.words("a red circle above a blue square and a cyan square")
    assert found.sum() == 11 and found[0] == 3 and found[encoder_measures.WORDS.index("square")] == 2
    with pytest.raises(ValueError, match="does not know 'pink'"):
        encoder_measures.WordPredictor.words("a pink circle")
