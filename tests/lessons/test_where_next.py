"""The lesson on what comes next: teacher and student, attention, maps of lambda, conditional coding, by
oracles; the explorer's picture is pure.
"""

from __future__ import annotations

import io
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from models import picture, untrained, woken
from PIL import Image

from dhp_lab.codec import dhp_file
from dhp_lab.codec.bits import bitstream
from dhp_lab.codec.bits.lambdas import lambda_code, lambda_of
from dhp_lab.data.images import to_pixels
from dhp_lab.data.photos import load_photo
from dhp_lab.lessons.where_next import attention, latent_hooks, one_step
from dhp_lab.lessons.where_next import figures as lesson
from dhp_lab.lessons.where_next.explorer import explore as explore_where_next

FIELDS = "symbols", "decoded", "mean", "scale", "log2_delta"
START = {"photo": "coffee", "area": lesson.MIDDLE, "lambda_rate": 3e-3, "strength": 2}


@pytest.fixture(scope="module")
def model():
    return woken(passes=2, dead_zone=0.35)


@pytest.fixture(scope="module")
def x():
    return picture(200, 136)


# fewer steps


@pytest.fixture(scope="module")
def decoder_state(model, x):
    return one_step.decoder_state_of(model, x, 3e-3)


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_the_teacher_is_the_decoders_chain(model, decoder_state, steps):
    drawn = one_step.draw(model, decoder_state, one_step.noises_like(decoder_state, steps - 1, seed=3))
    delta = decoder_state.log2_delta.exp2().view(-1, 1, 1, 1)
    assert torch.allclose(
        (drawn.sample + decoder_state.mean) * delta,
        model.sampler.sample(decoder_state, steps=steps, seed=3),
        atol=1e-6,
    )
    assert torch.allclose(
        (drawn.mean + decoder_state.mean) * delta, model.sampler.sample(decoder_state, steps=1), atol=1e-6
    )


def test_the_picture_is_what_decompress_gives(model, decoder_state, x):
    coded = model.compress(x, 3e-3)
    shown = one_step.picture(
        model, decoder_state, one_step.draw(model, decoder_state, []).sample, tuple(x.shape[-2:])
    )
    assert torch.allclose(
        shown, model.decompress(coded["strings"], coded["shape"], steps=1)["x_hat"], atol=1e-5
    )


def test_weights_of_a_linear_chain_are_found(decoder_state):
    noises, true = one_step.noises_like(decoder_state, 3, seed=0), torch.tensor([0.7, 0.5, 0.2])
    mean, variance = torch.zeros_like(decoder_state.mean), decoder_state.scale.square()
    sample = mean + variance.sqrt() * sum(w * eps for w, eps in zip(true, noises, strict=True))
    drawn = one_step.Drawn(sample, mean, variance)
    assert torch.allclose(one_step.fit_weights(drawn, noises), true, atol=1e-4)
    assert one_step.explained(drawn, sample) == 1 and one_step.explained(drawn, mean) == 0
    assert one_step.explained(drawn, sample / 2) == pytest.approx(0.75, abs=1e-6)


def test_a_new_student_draws_with_the_weights_alone(model, decoder_state):
    noises, weights = one_step.noises_like(decoder_state, 3, seed=0), torch.tensor([0.7, 0.5, 0.2])
    first = one_step.draw(model, decoder_state, [])
    expected = first.mean + first.variance.sqrt() * sum(
        w * eps for w, eps in zip(weights, noises, strict=True)
    )
    assert torch.allclose(one_step.Student(model, weights)(decoder_state, noises), expected, atol=1e-5)


def test_a_student_learns_from_its_teacher_and_leaves_it_as_it_is(model):
    states = [one_step.decoder_state_of(model, picture(256, 256, seed=seed), 3e-3) for seed in (0, 1)]
    batch = one_step.crop_batch(states, 7)
    noises = one_step.noises_like(batch, 3, seed=0)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        student = one_step.Student(model, one_step.fit_weights(one_step.draw(model, batch, noises), noises))
    losses = one_step.train(student, states, 30, lr=5e-3)
    assert len(losses) == 30 and sum(losses[-5:]) < 0.9 * sum(losses[:5])
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_crops_are_windows_of_the_photos(model, decoder_state):
    batch = one_step.crop_batch([decoder_state], 5, count=3, side=6)
    assert torch.equal(batch.symbols, one_step.crop_batch([decoder_state], 5, count=3, side=6).symbols)
    windows = (
        decoder_state.symbols.unfold(2, 6, 1).unfold(3, 6, 1)[0].permute(1, 2, 0, 3, 4).flatten(0, 1)
    )  # all of them
    for crop, moments in zip(batch.symbols, batch.moments[0], strict=True):
        place = (windows == crop).all((1, 2, 3)).nonzero()
        assert len(place)
        assert torch.equal(
            moments,
            decoder_state.moments[0]
            .unfold(2, 6, 1)
            .unfold(3, 6, 1)[0]
            .permute(1, 2, 0, 3, 4)
            .flatten(0, 1)[place[0, 0]],
        )


@pytest.mark.parametrize("trellis", [False, True])
def test_crops_of_both_quantisers_are_joined_and_drawn(x, trellis):
    codec = woken(passes=2, dead_zone=0.0 if trellis else 0.35, trellis=trellis)
    state = one_step.decoder_state_of(codec, x, 3e-3)
    batch = one_step.crop_batch([state], 5, count=2, side=6)
    assert (batch.moments is None) == (state.moments is None) == trellis == batch.trellis
    noises = one_step.noises_like(batch, 1, seed=0)
    student = one_step.Student(codec, torch.tensor([0.7]))
    drawn = student(batch, noises)
    for number in range(2):  # each crop is drawn as it would be alone
        one = replace(
            batch,
            **{name: getattr(batch, name)[number : number + 1] for name in FIELDS},
            moments=batch.moments and tuple(t[number : number + 1] for t in batch.moments),
        )
        alone = student(one, [noise[number : number + 1] for noise in noises])
        assert (alone[0] - drawn[number]).abs().max() < 1e-4


# attention


def test_attention_is_softmax_of_all_pairs():
    block = attention.Attention(8)
    h = torch.randn(2, 8, 3, 5, generator=torch.Generator().manual_seed(0))
    assert torch.equal(block(h), h)
    with torch.no_grad():
        block.exit.weight.copy_(torch.eye(8)[:, :, None, None])
        q, k, v = (
            block.qkv(F.group_norm(h, 1, block.norm.weight, block.norm.bias))
            .flatten(2)
            .mT.double()
            .chunk(3, 2)
        )
        weights = (torch.einsum("bid,bjd->bij", q, k) / math.sqrt(8)).exp()
        expected = (weights / weights.sum(2, keepdim=True)) @ v
        assert torch.allclose((block(h) - h).flatten(2).mT.double(), expected, atol=1e-5)


def test_both_codecs_start_alike(x):
    state = torch.get_rng_state()
    plain, with_it = (attention.small_codec(used, 1).eval() for used in (False, True))
    assert torch.equal(state, torch.get_rng_state())
    assert sum(isinstance(part, attention.Attention) for part in with_it.modules()) == 2
    assert all(
        torch.equal(tensor, plain.state_dict()[name])
        for name, tensor in with_it.state_dict().items()
        if name in plain.state_dict() and not name.startswith("g_s.tail")
    )
    assert torch.allclose(plain(x)["x_hat"], with_it(x)["x_hat"], atol=1e-6)


def test_a_training_is_reproducible_and_ends_in_a_codec():
    photos, ends = [picture(160, 160, seed=seed) for seed in (0, 1)], []
    for _ in range(2):
        codec = attention.small_codec(True, 0, N=8, M=16)
        losses = attention.train(codec, photos, 3, 64, seed=0)
        assert len(losses) == 3 and not codec.training
        ends.append((losses, attention.coded(codec, photos[0], 1e-2)))
    assert ends[0] == ends[1]
    n_bytes, decibels, loss = ends[0][1]
    assert loss == pytest.approx(
        1000 * (10 ** (-decibels / 10) + 1e-2 * 8 * n_bytes / 160**2), rel=0.02
    )  # PSNR is of rounded pixels


# a lambda for each block


def test_nothing_between_is_the_plain_codec(model, x):
    same = latent_hooks.with_latent_hooks(model, lambda y, _: y, lambda y_hat, _: y_hat)
    strings = model.compress(x, 3e-3)["strings"]
    assert same.compress(x, 3e-3)["strings"] == strings
    assert torch.equal(
        same.decompress(strings, (200, 136))["x_hat"], model.decompress(strings, (200, 136))["x_hat"]
    )


def test_gains_are_ratios_of_steps(model):
    octaves = torch.tensor([[0, 2, -1], [1, 0, 0]])
    gains = latent_hooks.block_gains(model, 3e-3, octaves, (70, 190))
    assert gains.shape == (1, 1, 5, 12)
    for (row, col), (i, j) in {(0, 0): (0, 0), (3, 4): (0, 1), (0, 11): (0, 2), (4, 3): (1, 0)}.items():
        expected = model.step_size(3e-3) / model.step_size(3e-3 * 2.0 ** -octaves[i, j].item())
        assert gains[0, 0, row, col].item() == pytest.approx(expected, rel=1e-6)


def test_lambdas_stay_in_range(model):
    gains = latent_hooks.block_gains(model, 1e-6, torch.tensor([[5]]), (64, 64))
    assert torch.equal(gains, torch.ones(1, 1, 4, 4))


@pytest.mark.parametrize("shape", [(1, 1), (4, 3)])
def test_a_map_comes_back(model, shape):
    octaves = torch.randint(-4, 5, shape, generator=torch.Generator().manual_seed(0))
    assert torch.equal(
        latent_hooks.decode_map(model, latent_hooks.encode_map(model, octaves), shape), octaves.int()
    )


def test_an_even_map_is_the_plain_codec_at_that_lambda_but_for_the_networks_delta(model, x):
    data, map_data = latent_hooks.encode_with_map(model, x, 3e-3, torch.zeros(4, 3))
    coded = model.compress(x, 3e-3)
    assert bitstream.read(data).strings == coded["strings"]
    assert torch.equal(
        latent_hooks.decode_with_map(model, data, map_data), model.decompress(**coded)["x_hat"]
    )


def test_a_finer_block_is_nearer_and_costs_bytes(x):
    model = untrained(M=96)  # its lapped transform is a codec already
    octaves = torch.zeros(4, 3)
    octaves[0, 0] = 4
    here = latent_hooks.over_pixels(octaves > 0, (200, 136))
    files = [latent_hooks.encode_with_map(model, x, 3e-2, some) for some in (0 * octaves, octaves)]
    plain, finer = (
        latent_hooks.region_psnr(latent_hooks.decode_with_map(model, *file, steps=0), x, here)
        for file in files
    )
    assert here.sum() == 64 * 64 and finer > plain + 0.5 and len(files[1][0]) > len(files[0][0])


@pytest.mark.parametrize("share", [0.6, 0.9, 1.2])
def test_the_plain_file_fits(model, x, share):
    n_bytes = int(share * len(latent_hooks.encode_with_map(model, x, 3e-3, torch.zeros(4, 3))[0]))
    file = bitstream.read(dhp_file.encode_within(model, x, n_bytes))
    size = 48 + sum(len(part[0]) for part in file.strings[:2])
    assert size <= n_bytes
    finer = model.compress(x, lambda_of(lambda_code(file.lambda_rate) - 160))["strings"]
    assert 48 + sum(len(part[0]) for part in finer[:2]) > n_bytes


def test_smooth_blocks_are_ranked():
    x = torch.full((1, 3, 128, 192), 0.5)
    for number, (row, col) in enumerate([(0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]):
        x[..., 64 * row : 64 * row + 63, 64 * col : 64 * col + 63 : 2] += 0.05 * (number + 1)
    assert torch.allclose(latent_hooks.smoothness_rank(x), torch.tensor([[1, 0.6, 0.2], [-0.2, -0.6, -1]]))


@pytest.mark.parametrize(("side", "inside"), [(320, (1, 4)), (512, (2, 6)), (64, (0, 1))])
def test_the_middle_is_inside(side, inside):
    expected = torch.zeros(side // 64, side // 64)
    expected[inside[0] : inside[1], inside[0] : inside[1]] = 1
    assert torch.equal(latent_hooks.middle(torch.zeros(1, 3, side, side)), expected)


# figures and the explorer


def test_paired_differences_are_drawn_as_given():
    (axes,) = lesson.paired_figure({"one": [3.0, 2.0, 4.0], "other": [4.0, 1.0]}, xlabel="loss").axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["one", "other"]
    ticks = [
        line.get_xdata() for line in axes.lines if line.get_marker() == "|" and len(line.get_xdata()) > 1
    ]
    assert list(ticks[0]) == [3, 2, 4] and list(ticks[-1]) == [4, 1]


def test_one_octave_is_singular():
    assert [lesson.octaves_text(n) for n in (1, -1, 2, 0)] == [
        "1 octave",
        "-1 octave",
        "2 octaves",
        "0 octaves",
    ]


def test_the_map_lies_over_its_blocks():
    x = torch.full((1, 3, 128, 100), 0.5)
    shown = lesson.map_pixels(x, torch.tensor([[0, 4], [0, -4]]))
    assert shown.shape == (128, 100, 3)
    assert (shown[:64, :64] == shown[0, 0]).all() and (shown[:64, 64:] == shown[0, 99]).all()
    assert shown[0, 99].sum() > shown[0, 0].sum() > shown[127, 99].sum()


def test_octaves_follow_the_area():
    x = load_photo("coffee", lesson.SIDE)
    assert torch.equal(lesson.octaves_of(lesson.MIDDLE, x, -3), (-3 * latent_hooks.middle(x)).int())
    smooth = lesson.octaves_of(lesson.SMOOTH, x, 2)
    assert smooth.min() == -2 and smooth.max() == 2 and smooth.sum() == 0
    with pytest.raises(ValueError, match="there is no area 'sky'; choose one of the middle, smooth blocks"):
        lesson.octaves_of("sky", x, 1)


@pytest.fixture(scope="module")
def maps(model):
    return lesson.LambdaMaps(model)


@pytest.mark.slow
def test_the_picture_has_its_size_and_says_what_it_is(model, maps):
    shown = maps.render(**START)
    assert Image.open(io.BytesIO(shown.picture)).size == lesson.SIZE
    x = load_photo("coffee", lesson.SIDE)
    data, map_data = latent_hooks.encode_with_map(model, x, 3e-3, lesson.octaves_of(lesson.MIDDLE, x, 2))
    size = len(data) + len(map_data)
    plain_size = len(dhp_file.encode_within(model, x, size))  # by bisection; the explorer begins at its λ
    assert shown.alt == (
        f"coffee: a map that gives the middle 2 octaves of λ; the photo decoded with it from {size} bytes, "
        f"and with one λ from {plain_size} bytes"
    )
    ours = maps.encode_mapped("coffee", lesson.MIDDLE, 3e-3, 2)
    assert (ours[0], maps.encode_plain("coffee", size, 3e-3)[0]) == (size, plain_size)
    assert (to_pixels(ours[1]) == to_pixels(latent_hooks.decode_with_map(model, data, map_data))).all()


@pytest.mark.slow
def test_the_picture_is_pure(maps):
    state = torch.get_rng_state()
    assert maps.render(**START) == maps.render(**START) and torch.equal(state, torch.get_rng_state())


@pytest.mark.slow
@pytest.mark.parametrize(
    "change", [{"photo": "flower"}, {"area": lesson.SMOOTH}, {"lambda_rate": 1e-3}, {"strength": 3}], ids=str
)
def test_every_control_changes_picture_and_text(maps, change):
    one, other = maps.render(**START), maps.render(**START | change)
    assert one.picture != other.picture and one.text != other.text


@pytest.mark.slow
def test_the_explorer_starts_there(model):
    explorer = explore_where_next(model)
    assert explorer.position() == START
    explorer.controls["strength"].value = -2
    assert "the middle: -2 octaves" in explorer.text.value
