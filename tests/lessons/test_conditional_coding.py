"""A frame coded beside its context: shifts, and what is left to code, by oracles."""

from __future__ import annotations

import math

import torch
from models import picture, untrained, woken

from dhp_lab.codec.bits.lambdas import lambda_code
from dhp_lab.lessons.where_next import latent_hooks


def test_a_shift_brings_the_content_back():
    scene = picture(120, 140)
    one, two = scene[..., 20:100, 30:110], scene[..., 25:105, 21:101]
    assert torch.equal(latent_hooks.shifted(one, 5, -9)[..., :75, 9:], two[..., :75, 9:])
    assert torch.equal(latent_hooks.shifted(one, 0, 0), one)


def test_of_a_frame_that_is_its_own_context_nothing_is_left_to_code():
    model, frame = untrained(), picture(128, 128)
    codec, log2_delta = (
        latent_hooks.conditioned_on(model, frame),
        torch.tensor([math.log2(model.step_size(3e-3))]),
    )
    assert (codec.encode(frame, [lambda_code(3e-3)]).symbols == 0).all()
    assert not (model.encode(frame, [lambda_code(3e-3)]).symbols == 0).all()
    coded = codec.compress(frame, 3e-3)
    assert len(coded["strings"][0][0]) < len(model.compress(frame, 3e-3)["strings"][0][0])
    clean = model.synthesise(model.analyse(frame, log2_delta), log2_delta, (128, 128)).clamp(0, 1)
    assert torch.allclose(codec.decompress(**coded, steps=0)["x_hat"], clean, atol=1e-3)


def test_a_context_of_weight_0_is_the_plain_codec():
    model = woken(passes=2, dead_zone=0.35)
    one, two = picture(128, 128), picture(128, 128, seed=1)
    assert (
        latent_hooks.conditioned_on(model, one, weight=0.0).compress(two, 3e-3)["strings"]
        == model.compress(two, 3e-3)["strings"]
    )
