"""The lapped transform against its definition, and the transforms around it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from models import M, N, picture, untrained, woken

from dhp_lab.codec.networks import lapped
from dhp_lab.codec.networks.lapped import lapped_basis, lapped_filters, mirror
from dhp_lab.codec.networks.layers import widths
from dhp_lab.codec.networks.transforms import (
    CORRECTED,
    LIMIT,
    Analysis,
    Synthesis,
    filter_blocks,
    learnt_share,
    limited,
    overlap_blocks,
)

LOG2_DELTA = torch.tensor([-3.0])
ALL = 3 * 16 * 16


def largest(difference) -> float:
    return float(abs(difference).max())


@pytest.fixture(scope="module")
def complete() -> tuple[Analysis, Synthesis, torch.Tensor]:
    """Untrained g_a and g_s with all 768 channels, and the channels' spread."""
    return Analysis(4, ALL), Synthesis(4, ALL), torch.ones(ALL)


# the lapped transform


@pytest.mark.parametrize("size", [2, 4, 16])
def test_basis_is_orthonormal_also_against_its_shift(size):
    basis = lapped_basis(size)
    assert basis.shape == (size, 2 * size)
    assert largest(basis @ basis.T - np.eye(size)) < 1e-12
    assert largest(basis[:, size:] @ basis[:, :size].T) < 1e-12


def test_basis_rows_are_even_or_odd_and_fall_in_variance():
    basis = lapped_basis()
    parity = (basis * basis[:, ::-1]).sum(1)
    assert largest(np.abs(parity) - 1) < 1e-12 and parity.sum().round() == 0
    covariance = 0.95 ** np.abs(np.subtract.outer(np.arange(32), np.arange(32)))
    assert np.all(np.diff(np.diag(basis @ covariance @ basis.T)) < 0)


def test_basis_gains_more_than_the_dct():
    """Coding gain for AR(1), 0.95, and 16 bands: 9.5 dB for the DCT, up to 9.85 dB with one overlap (Malvar
    1992).
    """

    def gain(rows):
        n = np.arange(rows.shape[1])
        variance = np.diag(rows @ 0.95 ** np.abs(np.subtract.outer(n, n)) @ rows.T)
        return 10 * np.log10(variance.mean() / np.exp(np.log(variance).mean()))

    k, n = np.arange(16)[:, None], np.arange(16)[None]
    dct = np.sqrt(2 / 16) * np.cos(np.pi * k * (n + 0.5) / 16) * np.where(k == 0, math.sqrt(0.5), 1)
    assert gain(dct) == pytest.approx(9.46, abs=0.02)
    assert gain(lapped_basis()) > gain(dct) + 0.2


def test_filters_are_orthonormal_and_their_variances_those_of_the_model_of_photos():
    filters = lapped_filters(ALL)
    rows = filters["weight"].double().flatten(1)
    assert largest(rows @ rows.T - torch.eye(ALL)) < 1e-6
    some = torch.arange(0, ALL, 13)
    kernels = (
        filters["weight"]
        .double()[some]
        .view(-1, 3, 16, 16, 2, 2)
        .permute(0, 1, 4, 2, 5, 3)
        .reshape(-1, 3, 32, 32)
    )
    planes = torch.einsum("ec,mcij->emij", torch.from_numpy(lapped.COLOUR), kernels)
    distance = (torch.arange(32)[:, None] - torch.arange(32)).abs().double()
    variance = sum(
        power * (plane * (r**distance @ plane @ r**distance)).sum((1, 2))
        for power, r, plane in zip(lapped.COLOUR_VARIANCE, lapped.COLOUR_CORRELATION, planes, strict=True)
    )
    assert largest(filters["variance"][some] / variance - 1) < 1e-4
    assert bool((filters["variance"].diff() <= 0).all())
    assert torch.equal(lapped_filters(40)["weight"], filters["weight"][:40])


@pytest.mark.parametrize("channels", [0, -1, 769])
def test_a_number_of_channels_that_does_not_exist_is_refused(channels):
    with pytest.raises(ValueError, match=f"M must lie in 1 .. 768, .* got {channels}"):
        lapped_filters(channels)


@torch.no_grad()
@pytest.mark.parametrize("size", [(16, 16), (16, 48), (48, 16), (80, 112)])
def test_all_channels_give_the_picture_back(complete, size):
    g_a, g_s, std = complete
    x = picture(*size, count=2)
    delta = LOG2_DELTA.expand(2)
    assert largest(g_s(g_a(x, delta, std), delta, std) - x) < 1e-5


@torch.no_grad()
def test_energy_is_kept_even_at_the_border(complete):
    """Parseval: the mirrored transform is orthonormal as a whole."""
    g_a, _, std = complete
    x = torch.rand(1, 3, 48, 80, generator=torch.Generator().manual_seed(0))
    assert g_a(x, LOG2_DELTA, std).square().sum().item() == pytest.approx(
        (x - 0.5).square().sum().item(), rel=1e-5
    )


@torch.no_grad()
def test_noise_on_the_latents_is_noise_of_the_same_power_on_the_picture(complete):
    _, g_s, std = complete
    noise = torch.randn(1, ALL, 3, 5, generator=torch.Generator().manual_seed(0))
    assert (g_s(noise, LOG2_DELTA, std) - 0.5).square().sum().item() == pytest.approx(
        noise.square().sum().item(), rel=1e-5
    )


@torch.no_grad()
def test_a_mirrored_picture_has_mirrored_latents_with_the_parities(complete):
    g_a, g_s, std = complete
    x = picture(48, 80)
    y = g_a(x, LOG2_DELTA, std)
    assert largest(g_a(x.flip(-1), LOG2_DELTA, std) - y.flip(-1) * g_s.linear.fixed.parity_w) < 1e-5
    assert largest(g_a(x.flip(-2), LOG2_DELTA, std) - y.flip(-2) * g_s.linear.fixed.parity_h) < 1e-5
    assert (
        set(g_s.linear.fixed.parity_h.unique().tolist())
        == set(g_s.linear.fixed.parity_w.unique().tolist())
        == {-1.0, 1.0}
    )


@torch.no_grad()
@pytest.mark.parametrize("channels", [40, 400])
def test_the_fixed_transform_is_that_of_its_filters(channels):
    filters, fixed = lapped_filters(channels), lapped.LappedTransform(channels)
    x = picture(48, 80, count=2)
    y = fixed.analyse(x)
    assert largest(y - filter_blocks(x, filters["weight"])) < 2e-6 * largest(y)
    parities = (filters[name].view(-1, 1, 1) for name in ("parity_h", "parity_w"))
    assert largest(fixed.synthesise(y) - overlap_blocks(y, filters["weight"], *parities)) < 1e-5
    assert not fixed.state_dict(), "nothing of it is stored"


@torch.no_grad()
def test_corrections_are_filters_that_fade():
    """All of the 320 learnt kernels at a step of 1, next to nothing at 2^-12."""
    g_a, g_s, x = Analysis(4, ALL), Synthesis(4, ALL), picture(48, 80)
    generator = torch.Generator().manual_seed(0)
    for part in (g_a, g_s):
        part.linear.correction.copy_(0.01 * torch.randn(part.linear.correction.shape, generator=generator))
    plain, filters = g_a.linear.fixed.analyse(x), lapped_filters(CORRECTED)
    parities = [filters[name].view(-1, 1, 1) for name in ("parity_h", "parity_w")]
    for log2_delta in (0.0, -5.0, -12.0):
        delta = torch.tensor([log2_delta])
        share = 1 / (1 + 4.0 ** (-5 - log2_delta))
        assert learnt_share(delta).item() == pytest.approx(share)
        wanted = share * filter_blocks(x, g_a.linear.correction)
        found = g_a.linear.analyse(x, delta) - plain
        assert largest(found[:, :CORRECTED] - wanted) < 0.02 * largest(wanted) + 1e-6
        assert not found[:, CORRECTED:].any()
        wanted = share * overlap_blocks(plain[:, :CORRECTED], g_s.linear.correction, *parities)
        found = g_s.linear.synthesise(plain, delta) - g_s.linear.fixed.synthesise(plain)
        assert largest(found - wanted) < 0.02 * largest(wanted) + 1e-6


def test_the_non_linear_parts_move_nothing_by_more_than_a_few_steps():
    h = torch.linspace(-50, 50, 1001).view(1, 1, 1, -1)
    for log2_delta in (0.0, -6.0):
        limit = LIMIT * 2**log2_delta / (1 + 4.0 ** (-5 - log2_delta))
        found = limited(h, torch.tensor([log2_delta]))
        assert largest(found) <= limit * (1 + 1e-6) and bool((found.diff() >= 0).all())
    small = torch.linspace(-0.1, 0.1, 11).view(1, 1, 1, -1)
    assert largest(limited(small, torch.tensor([0.0])) - small) < 1e-3


@torch.no_grad()
def test_fine_steps_reach_the_quality_of_the_fixed_transform():
    """Whatever is learnt, with random weights in every layer: without rounding a few steps are lost."""
    model, x = woken(M=ALL), picture(64, 80)
    for log2_delta in (-6.0, -9.0, -14.0):
        delta = torch.tensor([log2_delta])
        error = model.synthesise(model.analyse(x, delta), delta, (64, 80)) - x
        share = learnt_share(delta).item()
        assert error.square().mean().sqrt().item() < 2 * LIMIT * 2**log2_delta * share + 1e-6


def test_mirror_is_numpys_symmetric_padding_with_signs():
    x = torch.arange(24.0).view(1, 1, 4, 6)
    assert np.array_equal(mirror(x, 3)[0, 0], np.pad(x[0, 0], 3, mode="symmetric"))
    signed = mirror(x, 1, -torch.ones(1, 1, 1), torch.ones(1, 1, 1))[0, 0]
    assert torch.equal(signed[0, 1:-1], -x[0, 0, 0]) and torch.equal(signed[1:-1, 0], x[0, 0, :, 0])


@torch.no_grad()
def test_shapes():
    model, x = untrained(), picture(64, 128, count=2)
    std, delta = torch.ones(M), LOG2_DELTA.expand(2)
    y = model.g_a(x, delta, std)
    z = model.h_a(y, delta)
    assert y.shape == (2, M, 4, 8) and z.shape == (2, N, 1, 2)
    assert model.h_s(z, delta).shape == (2, 2 * M, 4, 8) and model.g_s(y, delta, std).shape == x.shape


@torch.no_grad()
def test_an_untrained_codec_starts_with_the_variances_alone():
    """h_s starts silent: mean 0 and scale 2^0 in units of the channels' spread."""
    assert largest(untrained().h_s(torch.randn(1, N, 2, 2), LOG2_DELTA)) == 0


def test_widths_are_multiples_of_four():
    assert widths(128) == (96, 128, 192) and widths(16) == (12, 16, 24) and widths(4) == (4, 4, 8)
    assert all(width % 4 == 0 for n in range(4, 300) for width in widths(n))
