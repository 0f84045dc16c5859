"""Every figure of dhp_lab.metrics.pixels against a closed form, brute-force numpy or scikit-image."""

import math

import numpy as np
import pytest
import skimage
import torch
from scipy.ndimage import correlate1d
from skimage.metrics import peak_signal_noise_ratio

from dhp_lab.metrics.pixels import (
    bits_per_pixel,
    compression_ratio,
    decibel,
    gradient_energy_ratio,
    ms_ssim,
    psnr,
    round_to_8_bits,
)
from dhp_lab.metrics.rd_curves import bd_rate, smallest_gain


def photo(size=192):
    """An 8-bit photo and a noisy copy, (1, 3, size, size) in [0, 1]."""
    x = torch.from_numpy(skimage.data.astronaut()[:size, :size].copy()).permute(2, 0, 1)[None].float() / 255
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    return x, (x + 0.05 * noise).clamp(0, 1)


def test_psnr_closed_form():
    x = torch.full((2, 3, 4, 5), 100 / 255)
    x_hat = torch.stack([x[0] + 10 / 255, x[1] - 1 / 255])
    expected = torch.tensor([20 * math.log10(255 / 10), 20 * math.log10(255)], dtype=torch.float64)
    assert (psnr(x_hat, x) - expected).abs().max() < 1e-5


def test_psnr_agrees_with_scikit_image():
    x, x_hat = photo()
    floats = peak_signal_noise_ratio(x.double().numpy(), x_hat.double().numpy(), data_range=1.0)
    eight_bit = [(255 * t).round().byte().numpy() for t in (x, x_hat)]
    assert abs(psnr(x_hat, x, rounded=False).item() - floats) < 1e-6
    assert abs(psnr(x_hat, x).item() - peak_signal_noise_ratio(*eight_bit)) < 1e-5


def test_psnr_rounds_to_what_a_png_holds():
    x = torch.full((1, 3, 4, 4), 100 / 255)
    assert psnr(x + 0.4 / 255, x).item() == math.inf
    assert psnr(x + 0.6 / 255, x).item() == pytest.approx(20 * math.log10(255), abs=1e-5)
    assert psnr(x + 0.4 / 255, x, rounded=False).item() == pytest.approx(20 * math.log10(255 / 0.4), abs=1e-3)


def test_psnr_of_identical_pictures_is_infinite():
    x, _ = photo()
    assert psnr(x, x).tolist() == [math.inf]


def test_round_to_8_bits_clamps_and_keeps_the_256_levels():
    levels = torch.arange(256) / 255
    assert torch.equal(round_to_8_bits(levels), levels)
    assert round_to_8_bits(torch.tensor([-0.5, 1.5])).tolist() == [0, 1]


def ms_ssim_of_one_channel(a, b):
    """The definition of Wang 2003 on two (H, W) arrays in [0, 1] with even sides at all five scales."""
    g = np.exp(-((np.arange(11) - 5) ** 2) / (2 * 1.5**2))
    g /= g.sum()

    def blur(t):
        return correlate1d(correlate1d(t, g, axis=0), g, axis=1)[5:-5, 5:-5]

    result, c1, c2 = 1.0, 0.01**2, 0.03**2
    for scale, weight in enumerate((0.0448, 0.2856, 0.3001, 0.2363, 0.1333)):
        mean_a, mean_b = blur(a), blur(b)
        covariance = 2 * (blur(a * b) - mean_a * mean_b) + c2
        similarity = covariance / (blur(a * a) - mean_a**2 + blur(b * b) - mean_b**2 + c2)
        if scale == 4:
            similarity *= (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
        result *= similarity.mean() ** weight
        a, b = (t.reshape(t.shape[0] // 2, 2, t.shape[1] // 2, 2).mean(axis=(1, 3)) for t in (a, b))
    return result


def test_ms_ssim_brute_force():
    x, x_hat = photo(256)
    channels = zip(x_hat[0].double().numpy(), x[0].double().numpy(), strict=True)
    expected = np.mean([ms_ssim_of_one_channel(a, b) for a, b in channels])
    assert 0.9 < expected < 0.99
    assert abs(ms_ssim(x_hat, x, rounded=False).item() - expected) < 1e-5
    assert ms_ssim(x, x).item() == pytest.approx(1, abs=1e-6)


def test_ms_ssim_closed_form_for_a_change_of_brightness():
    """Flat pictures differ in luminance alone, and only the coarsest scale (weight 0.1333) looks at it."""
    a, b, c1 = 0.4, 0.6, 0.01**2
    x, x_hat = (torch.full((2, 3, 176, 192), value, dtype=torch.float64) for value in (a, b))
    expected = ((2 * a * b + c1) / (a * a + b * b + c1)) ** 0.1333
    assert (ms_ssim(x_hat, x) - expected).abs().max() < 1e-5
    assert (
        ms_ssim(x_hat.float(), x.float()) - expected
    ).abs().max() < 5e-5  # float32 variances of a flat area


def test_ms_ssim_refuses_small_pictures():
    x = torch.rand(1, 3, 160, 400)
    with pytest.raises(ValueError, match="at least 161 pixels, got 160 x 400"):
        ms_ssim(x, x)


def test_decibel():
    assert decibel(0.9) == pytest.approx(10)
    assert decibel(0.99) == pytest.approx(20)
    assert decibel(1.0) == math.inf


def test_gradient_energy_ratio_brute_force():
    x, x_hat = photo(24)

    def energy(t):
        luma = t[0].double().numpy().transpose(1, 2, 0) @ np.array([0.299, 0.587, 0.114])
        rows, columns = luma.shape
        down = sum((luma[i + 1, j] - luma[i, j]) ** 2 for i in range(rows - 1) for j in range(columns))
        right = sum((luma[i, j + 1] - luma[i, j]) ** 2 for i in range(rows) for j in range(columns - 1))
        return down + right

    assert gradient_energy_ratio(x_hat, x, rounded=False).item() == pytest.approx(
        energy(x_hat) / energy(x), rel=1e-9
    )


def test_gradient_energy_ratio_closed_forms():
    x, x_hat = photo()
    halved = 0.5 + (x - 0.5) / 2  # half the contrast: a quarter of the energy
    assert gradient_energy_ratio(halved, x, rounded=False).item() == pytest.approx(0.25, abs=1e-5)
    assert gradient_energy_ratio(x, x).item() == 1
    assert gradient_energy_ratio(x_hat, x).item() > 1  # noise adds texture
    flat = torch.full_like(x, 0.5)
    assert gradient_energy_ratio(flat, x).item() == 0
    assert gradient_energy_ratio(flat, flat).item() == 1
    assert gradient_energy_ratio(x, flat).item() == math.inf


def test_each_picture_of_a_batch_has_its_own_figure():
    x, x_hat = photo()
    batch, batch_hat = torch.cat([x, x]), torch.cat([x_hat, x * 0.9])
    for metric in (psnr, ms_ssim, gradient_energy_ratio):
        one_by_one = torch.cat([metric(x_hat, x), metric(x * 0.9, x)])
        assert (metric(batch_hat, batch) - one_by_one).abs().max() < 1e-6


def test_shapes_must_agree():
    for metric in (psnr, ms_ssim, gradient_energy_ratio):
        with pytest.raises(
            ValueError, match=r"one shape \(B, C, H, W\), got \(1, 3, 8, 8\) and \(1, 3, 8, 9\)"
        ):
            metric(torch.rand(1, 3, 8, 8), torch.rand(1, 3, 8, 9))


def test_bits_and_ratio():
    assert bits_per_pixel(49152, 512, 768) == 1.0
    assert compression_ratio(49152, 512, 768) == 24.0


RATES, QUALITIES = [0.1, 0.2, 0.4, 0.8, 1.6], [26.0, 28.5, 31.0, 33.8, 37.0]


def test_bd_rate_of_ten_percent_fewer_bits():
    result = bd_rate((RATES, QUALITIES), ([0.9 * r for r in RATES], QUALITIES))
    assert result.percent == pytest.approx(-10, abs=1e-9)
    assert (result.low, result.high, result.overlap, result.coverage) == (26.0, 37.0, 11.0, 1.0)


def test_bd_rate_of_straight_lines_in_log_rate():
    """log2(rate) = (dB - 26) / 3 against the same line 1 dB lower: 2**(1/3) times the bits, on the common
    range.
    """
    quality = np.linspace(26, 38, 7)

    def line(db):
        return 2 ** ((db - 26) / 3)

    result = bd_rate((line(quality), quality), (line(quality), quality - 1))
    assert result.percent == pytest.approx(100 * (2 ** (1 / 3) - 1), abs=1e-9)
    assert (result.low, result.high) == (26, 37)
    assert result.coverage == pytest.approx(11 / 12)


def test_bd_rate_does_not_depend_on_the_order_of_points():
    test = ([0.7 * r for r in RATES], [q + 0.1 for q in QUALITIES])
    backwards = tuple(values[::-1] for values in test)
    assert bd_rate((RATES, QUALITIES), test) == bd_rate((RATES, QUALITIES), backwards)


@pytest.mark.parametrize(
    "rates, qualities, message",
    [
        (RATES[:3], QUALITIES[:3], "at least 4"),
        (RATES, QUALITIES[:4], "at least 4"),
        (RATES, [q + 20 for q in QUALITIES], "share no quality"),
        (
            RATES,
            [26, 28.5, 28.5, 33.8, 37],
            r"not monotonic: 28.500 dB at 0.2000 bpp, then 28.500 dB at 0.4000 bpp",
        ),
        ([0.1, 0.2, 0.2, 0.8, 1.6], QUALITIES, "not monotonic"),
        ([0.0, 0.2, 0.4, 0.8, 1.6], QUALITIES, r"holds 26.0 dB at 0.0 bpp"),
        (RATES, [26, 28.5, 31, 33.8, math.inf], r"holds inf dB at 1.6 bpp"),
    ],
)
def test_bd_rate_refuses_curves_it_cannot_judge(rates, qualities, message):
    with pytest.raises(ValueError, match=message):
        bd_rate((RATES, QUALITIES), (rates, qualities))


def test_smallest_gain_between_straight_lines():
    """dB = a + b log2(rate): the gap is linear in log rate, so it is smallest at one end."""
    rates = np.geomspace(0.1, 1.6, 9)
    anchor, test = (rates, 30 + 3 * np.log2(rates)), (rates, 31 + 2 * np.log2(rates))
    assert smallest_gain(anchor, test) == pytest.approx(1.0, abs=1e-9)  # at 1 bpp
    assert smallest_gain(test, anchor) == pytest.approx(-1 - np.log2(5), abs=1e-9)  # at 0.2 bpp
    assert smallest_gain(anchor, test, high=1.6) == pytest.approx(1 - np.log2(1.6), abs=1e-9)


def test_smallest_gain_looks_only_where_both_curves_reach():
    rates = np.geomspace(0.5, 4, 5)

    def line(r):
        return 30 + 3 * np.log2(r)

    assert smallest_gain((RATES, line(np.array(RATES))), (rates, line(rates) + 0.5)) == pytest.approx(
        0.5, abs=1e-9
    )
    assert smallest_gain((RATES, QUALITIES), (rates + 2, line(rates))) is None
