"""Tiles against the whole: with toy networks to the last bit, with the codec's own up to rounding; and how
far those look.
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from models import M, picture, woken
from oracles import largest

from dhp_lab.codec.denoising.decoder_state import SIGMA_Q, DecoderState
from dhp_lab.codec.entropy_coding import decode_latents
from dhp_lab.codec.networks.hyper_transforms import HYPER
from dhp_lab.codec.networks.lapped import BLOCK
from dhp_lab.codec.networks.tiling import OVERLAP, TILE, tiled
from dhp_lab.core import precision

SMALL = 7  # side of the tiles in these tests, in latents


@pytest.fixture(scope="module")
def model():
    return woken()


@pytest.fixture
def in_tiles(model):
    """A function that sets the side of all tiles; None means one tile for everything."""

    def use(side: int | None):
        model.tile = side or 10**9

    yield use
    model.tile = TILE


# the assembly


@pytest.mark.parametrize("rows, cols", [(7, 7), (8, 7), (40, 1), (1, 40), (15, 50), (29, 30)])
@pytest.mark.parametrize("scale", [1, 3])
def test_a_network_that_looks_as_far_as_the_overlap_gives_the_same(rows, cols, scale):
    """Maxima over a square of side 2 * OVERLAP + 1 are exact, and the border of the whole is the border of
    its tiles.
    """
    x = torch.randn(2, 3, rows, cols, generator=torch.Generator().manual_seed(0))

    def network(r: slice, c: slice) -> torch.Tensor:
        seen = F.max_pool2d(x[..., r, c], 2 * OVERLAP + 1, stride=1, padding=OVERLAP)
        return seen.repeat_interleave(scale, -1).repeat_interleave(scale, -2)

    whole = network(slice(0, rows), slice(0, cols))
    assert torch.equal(tiled(network, rows, cols, scale, SMALL), whole) and whole.shape == (
        2,
        3,
        scale * rows,
        scale * cols,
    )


def test_a_network_that_looks_farther_gives_something_else():
    """The test above would notice an overlap that is one latent too small."""
    x = torch.randn(1, 1, 40, 40, generator=torch.Generator().manual_seed(0))
    far = 2 * OVERLAP + 3

    def network(r, c):
        return F.max_pool2d(F.pad(x[..., r, c], [far // 2] * 4, value=-9.0), far, stride=1)

    assert not torch.equal(tiled(network, 40, 40, 1, SMALL), network(slice(0, 40), slice(0, 40)))


def test_tiles_are_bounded_and_a_small_picture_is_one():
    seen = []

    def network(r, c):
        seen.append((r.stop - r.start, c.stop - c.start))
        return torch.zeros(1, r.stop - r.start, c.stop - c.start)

    tiled(network, TILE, TILE, 1)
    assert seen == [(TILE, TILE)]
    tiled(network, 3 * TILE, TILE + 1, 1)
    assert len(seen) == 1 + 3 * 2 and max(map(max, seen)) <= TILE + 2 * OVERLAP


# how far the networks look


def reach(gradient: torch.Tensor, centre: int, unit: int) -> float:
    """The distance in latents between the middle latent's own square and the farthest place that it depends
    on.
    """
    rows = gradient.flatten(0, -3).abs().sum(0).sum(1).nonzero().flatten()
    first, last = rows.min().item(), rows.max().item()
    return max(centre * unit - first, last - (centre * unit + unit - 1)) / unit


def test_the_overlap_covers_the_reach_of_g_a(model, in_float32):
    centre, x = 14, picture(29 * BLOCK, 29 * BLOCK).requires_grad_()
    y = model.g_a(x, torch.tensor([-3.0]), model.log2_spread.exp2())
    (gradient,) = torch.autograd.grad(y[..., centre, centre].sum(), x)
    assert 7 < reach(gradient, centre, BLOCK) <= 8 <= OVERLAP


def test_the_overlap_covers_the_reach_of_g_s(model, in_float32):
    """All pixels of one latent's block together."""
    centre, y_hat = 14, torch.randn(1, M, 29, 29, generator=torch.Generator().manual_seed(0)).requires_grad_()
    x_hat = model.g_s(y_hat, torch.tensor([-3.0]), model.log2_spread.exp2())
    block = slice(BLOCK * centre, BLOCK * (centre + 1))
    (gradient,) = torch.autograd.grad(x_hat[..., block, block].sum(), y_hat)
    assert reach(gradient, centre, 1) == 8 <= OVERLAP


def test_the_overlap_covers_the_reach_of_the_denoiser(model, in_float32):
    centre, generator = 10, torch.Generator().manual_seed(0)
    inputs = [torch.randn(1, M, 21, 21, generator=generator).requires_grad_() for _ in range(3)]
    mask = torch.ones(1, 1, 21, 21)
    facts = DecoderState(
        inputs[0], mask, inputs[1], inputs[2].abs() + 0.5, torch.tensor([-3.0]), torch.ones(M)
    )
    clean, _ = model.denoiser(inputs[0] + 0.1, SIGMA_Q / 2 * mask, facts)
    gradients = torch.autograd.grad(clean[..., centre, centre].sum(), inputs)
    assert max(reach(gradient, centre, 1) for gradient in gradients) == 8 <= OVERLAP


# the codec in tiles


@torch.no_grad()
def test_g_a_and_g_s_in_tiles(model, in_float32):
    """Differences are those of float32 sums over 3072 pixels: 2e-5 seen in latents of up to 11, 5e-7 in
    pixels.
    """
    x, delta = picture(400, 340), torch.tensor([-3.0])
    whole = model.analyse(x, delta, tile=10**9)
    assert largest(model.analyse(x, delta, tile=SMALL) - whole) < 5e-6 * largest(whole)
    decoded = model.synthesise(whole, delta, (400, 340), tile=10**9)
    assert largest(model.synthesise(whole, delta, (400, 340), tile=SMALL) - decoded) < 4e-6


@torch.no_grad()
@pytest.mark.parametrize("size", [(25, 22), (28, 9), (3, 41)])
def test_h_s_in_tiles_is_the_same_to_the_last_bit(model, in_tiles, size):
    """Or the decoder would read other tables than the encoder wrote."""
    z_shape = (2, model.N, *(-(-side // HYPER) for side in size))
    z_symbols = torch.randint(-9, 10, z_shape, generator=torch.Generator().manual_seed(0))
    in_tiles(None)
    whole = model.predict(z_symbols, [3000, 20000], size)
    in_tiles(SMALL)
    assert all(
        torch.equal(part, one)
        for part, one in zip(model.predict(z_symbols, [3000, 20000], size), whole, strict=True)
    )
    assert all(part.shape[-2:] == size for part in whole)


@torch.no_grad()
@pytest.mark.parametrize("steps", [1, 3])
def test_the_denoiser_in_tiles(model, in_float32, in_tiles, steps):
    coded = model.compress(picture(400, 340), 1e-3)
    decoder_state = decode_latents(model, coded["strings"], coded["shape"])
    in_tiles(None)
    whole = model.sampler.sample(decoder_state, steps=steps)
    in_tiles(SMALL)
    assert largest(model.sampler.sample(decoder_state, steps=steps) - whole) < 1e-5


@pytest.mark.parametrize("steps", [0, 3])
def test_the_codec_in_tiles(model, in_float32, in_tiles, steps):
    """The same bytes, and a picture that differs by less than a thousandth of an 8-bit level."""
    x = picture(400, 340)
    in_tiles(None)
    coded = model.compress(x, 1e-3)
    whole = model.decompress(coded["strings"], coded["shape"], steps=steps)["x_hat"]
    in_tiles(SMALL)
    assert model.compress(x, 1e-3) == coded
    assert largest(model.decompress(coded["strings"], coded["shape"], steps=steps)["x_hat"] - whole) < 4e-6


@pytest.mark.parametrize("size", [(16, 2100), (2080, 33)])
def test_a_picture_of_more_than_one_real_tile(model, in_float32, in_tiles, size):
    x = picture(*size)
    coded = model.compress(x, 1e-3)
    decoded = model.decompress(coded["strings"], coded["shape"], steps=2)["x_hat"]
    assert max(size) > TILE * BLOCK and decoded.shape == x.shape
    in_tiles(None)
    assert model.compress(x, 1e-3) == coded
    assert largest(model.decompress(coded["strings"], coded["shape"], steps=2)["x_hat"] - decoded) < 4e-6


@pytest.mark.parametrize("steps", [1, 3])
def test_seams_in_bfloat16_are_as_small(model, in_tiles, monkeypatch, steps):
    """Sums are kept in float32 and rounded to bfloat16 at the end, so a tile rarely rounds otherwise: an
    eighth of an 8-bit level at most, with weights this wild.
    """
    monkeypatch.setattr(precision, "has_fast_bfloat16", lambda device_type: True)
    in_tiles(None)
    coded = model.compress(picture(400, 340), 1e-3)
    whole = model.decompress(coded["strings"], coded["shape"], steps=steps)["x_hat"]
    in_tiles(SMALL)
    assert (
        largest(model.decompress(coded["strings"], coded["shape"], steps=steps)["x_hat"] - whole)
        < 0.125 / 255
    )
