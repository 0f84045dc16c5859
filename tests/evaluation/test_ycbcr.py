"""Colours and chroma planes for video encoders, beside scikit-image's and beside plain averages."""

import numpy as np
import pytest
import skimage

from dhp_lab.evaluation.ycbcr import double, from_levels, halve, rgb_to_ycbcr, to_levels, ycbcr_to_rgb

PIXELS = skimage.data.astronaut()[100:164, 200:280]
EVERY_16TH = np.stack(np.meshgrid(*[np.arange(0, 256, 15)] * 3), axis=-1).reshape(-1, 1, 3).astype(np.uint8)


@pytest.mark.parametrize("pixels", [PIXELS, EVERY_16TH], ids=["photo", "cube"])
def test_the_matrix_is_that_of_scikit_image_in_the_full_range(pixels):
    y, cb, cr = rgb_to_ycbcr(pixels)
    theirs = np.moveaxis(skimage.color.rgb2ycbcr(pixels), 2, 0)  # Y in 16 .. 235, chroma in 16 .. 240
    ours = np.stack([16 + 219 * y, 128 + 224 * cb, 128 + 224 * cr])
    assert np.abs(ours - theirs).max() < 2e-3  # scikit-image's matrix has three decimals


def test_primaries_reach_the_ends_of_the_range():
    primaries = np.array([[[255, 0, 0], [0, 0, 255], [255, 255, 255]]], dtype=np.uint8)
    y, cb, cr = rgb_to_ycbcr(primaries)[:, 0]
    assert np.abs(y - [0.299, 0.114, 1]).max() < 1e-12
    assert abs(cr[0] - 0.5) < 1e-12 and abs(cb[1] - 0.5) < 1e-12
    assert np.abs([cb[2], cr[2]]).max() < 1e-12


@pytest.mark.parametrize("pixels", [PIXELS, EVERY_16TH], ids=["photo", "cube"])
def test_ten_bits_bring_every_colour_back(pixels):
    planes = rgb_to_ycbcr(pixels)
    levels = to_levels(planes, 10)
    assert len(levels) == 2 * planes.size
    back = from_levels(levels, [pixels.shape[:2]] * 3, 10)
    assert np.abs(np.stack(back) - planes).max() <= 0.5 / 1023 + 1e-12
    assert np.array_equal(ycbcr_to_rgb(np.stack(back)), pixels)


def test_eight_bits_are_far_above_what_is_measured():
    back = from_levels(to_levels(rgb_to_ycbcr(PIXELS), 8), [PIXELS.shape[:2]] * 3, 8)
    error = ycbcr_to_rgb(np.stack(back)).astype(float) - PIXELS
    assert 10 * np.log10(255**2 / (error**2).mean()) > 50


def test_levels_are_whole_numbers_of_two_bytes_plane_after_plane():
    levels = np.frombuffer(to_levels([np.ones((1, 2)), -np.ones((1, 1)) / 2, np.zeros((1, 1))], 10), "<u2")
    assert levels.tolist() == [1023, 1023, 0, 512]


def test_levels_of_another_size_are_refused():
    with pytest.raises(ValueError, match="have 6 levels, got 5"):
        from_levels(bytes(10), [(2, 2), (1, 1), (1, 1)], 10)


def test_even_colours_survive_half_the_resolution():
    plane = np.full((6, 8), 0.25)
    assert halve(plane).shape == (3, 4)
    assert np.abs(halve(plane) - 0.25).max() < 1e-6 and np.abs(double(halve(plane)) - 0.25).max() < 1e-6


def test_samples_lie_in_the_middle_of_four():
    plane = np.tile(np.arange(32.0), (32, 1)) / 32
    means = plane.reshape(16, 2, 16, 2).mean(axis=(1, 3))
    assert np.abs(halve(plane) - means)[4:-4, 4:-4].max() < 2e-3


def test_no_other_half_doubles_to_a_nearer_plane():
    """At the least squares, the error is orthogonal to whatever a half sample can change."""
    plane = rgb_to_ycbcr(PIXELS)[1]
    half = halve(plane)
    error = ((double(half) - plane) ** 2).sum()
    means = plane.reshape(half.shape[0], 2, half.shape[1], 2).mean(axis=(1, 3))
    assert error < 0.92 * ((double(means) - plane) ** 2).sum()
    generator = np.random.default_rng(0)
    for _ in range(5):
        other = half + generator.normal(scale=0.002, size=half.shape)
        assert ((double(other) - plane) ** 2).sum() > error
