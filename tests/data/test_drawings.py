"""Drawings for training: repeatable, in range, of every kind, and as often among the crops as asked for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from photos import photo
from PIL import Image

from dhp_lab.data import drawings
from dhp_lab.data.crops import PhotoCrops
from dhp_lab.data.drawings import WithDrawings, drawn_crop

KINDS = ("_bars", "_checkers", "_text", "_shapes", "_gradient")


@pytest.fixture(scope="module")
def grey_photo(tmp_path_factory) -> PhotoCrops:
    """Crops of a grey photo: whatever is not grey is a drawing."""
    path = tmp_path_factory.mktemp("grey") / "grey.png"
    Image.new("RGB", (64, 64), (100, 100, 100)).save(path)
    return PhotoCrops([path], 32, seed=3)


def is_drawn(batch: torch.Tensor) -> torch.Tensor:
    """(B,) which crops are not the grey photo."""
    return (batch * 255 - 100).abs().amax((1, 2, 3)) > 1


def test_a_drawing_depends_on_its_seed_alone():
    first = [drawn_crop(64, seed) for seed in range(30)]
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    again = [drawn_crop(64, seed) for seed in reversed(range(30))]
    assert all(torch.equal(a, b) for a, b in zip(first, reversed(again), strict=True))
    assert len({x.numpy().tobytes() for x in first}) == 30
    assert torch.equal(drawn_crop(64, np.random.default_rng(5)), first[5])
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)


@pytest.mark.parametrize("size", [8, 9, 64, 100])
def test_drawings_are_8_bit_pictures_in_range(size):
    for seed in range(60):
        x = drawn_crop(size, seed)
        assert x.shape == (3, size, size) and x.dtype == torch.float32 and bool(torch.isfinite(x).all())
        assert x.min() >= 0 and x.max() <= 1
        assert (x * 255 - (x * 255).round()).abs().max() < 1e-4


def test_a_size_too_small_is_named():
    with pytest.raises(ValueError, match="at least 8 pixels, got 7"):
        drawn_crop(7, 0)


def test_every_kind_is_drawn_about_as_often(monkeypatch):
    counts = dict.fromkeys(KINDS, 0)

    def counting(name: str):
        draw = getattr(drawings, name)

        def counted(size, random):
            counts[name] += 1
            return draw(size, random)

        return counted

    for name in KINDS:
        monkeypatch.setattr(drawings, name, counting(name))
    for seed in range(400):
        drawn_crop(16, seed)
    total = sum(counts.values())
    assert total / 400 == pytest.approx(1 + drawings.SPLIT_SHARE, abs=5 * (0.3 * 0.7 / 400) ** 0.5)
    assert all(abs(n - total / 5) < 5 * (total * 0.2 * 0.8) ** 0.5 for n in counts.values()), counts


def test_drawings_have_what_photos_lack(monkeypatch):
    """Flat areas, steps of the full height from pixel to pixel, and saturated colours: shares of pairs of
    neighbours, crops and pixels.
    """

    def shares(x: torch.Tensor) -> tuple[float, ...]:
        steps = (x[..., 1:] - x[..., :-1]).abs().amax(1)
        saturated = ((x == 0) | (x == 1)).all(1) & (x.amax(1) > x.amin(1))
        measured = (steps == 0, steps.amax((1, 2)) == 1, saturated)
        return tuple(share.float().mean().item() for share in measured)

    monkeypatch.setattr(drawings, "NOISY_SHARE", 0.0)
    drawn = shares(torch.stack([drawn_crop(64, seed) for seed in range(100)]))
    found = shares(torch.cat([photo(64, 64, shift) for shift in range(0, 448, 32)]))
    assert all(mine > 0.1 and mine > 5 * theirs for mine, theirs in zip(drawn, found, strict=True)), found
    assert drawn[0] < 0.95


def test_hard_edges_have_two_colours_and_smooth_ones_more(monkeypatch):
    monkeypatch.setattr(drawings, "UPRIGHT_SHARE", 0.0)
    counts = {}
    for share in (0.0, 1.0):
        monkeypatch.setattr(drawings, "SMOOTH_SHARE", share)
        pixels = [drawings._checkers(48, np.random.default_rng(seed)) for seed in range(20)]
        counts[share] = [len(np.unique(p.reshape(-1, 3), axis=0)) for p in pixels]
    assert max(counts[0.0]) == 2 and np.median(counts[1.0]) > 4


def test_noise_is_as_strong_as_it_says(monkeypatch):
    """On a flat grey ground: uniform draws of the standard deviation from 1/2 to MOST_NOISE levels."""
    flat = np.full((64, 64, 3), 128, dtype=np.uint8)
    monkeypatch.setattr(drawings, "_drawing", lambda size, random: flat.copy())
    monkeypatch.setattr(drawings, "NOISY_SHARE", 1.0)
    spread = torch.stack([(255 * drawn_crop(64, seed)).std() for seed in range(300)])
    assert spread.mean().item() == pytest.approx((0.5 + drawings.MOST_NOISE) / 2, abs=0.6)
    assert spread.min() >= 0.5 and spread.max() < 1.1 * drawings.MOST_NOISE


# among the crops of photos


@pytest.mark.parametrize("share", [0.0, 0.25, 0.7, 1.0])
def test_the_share_of_drawings_is_the_one_asked_for(grey_photo, share):
    crops = WithDrawings(grey_photo, share)
    drawn = torch.cat([is_drawn(crops.batch(number, 8)) for number in range(60)]).float().mean().item()
    assert drawn == pytest.approx(share, abs=5 * (share * (1 - share) / 480) ** 0.5 + 1e-9)
    assert len(crops) == len(grey_photo) == 1


def test_a_batch_depends_on_seed_and_number_alone_and_the_rest_are_photos(grey_photo):
    crops, again = WithDrawings(grey_photo, 0.5), WithDrawings(grey_photo, 0.5)
    first = [crops.batch(number, 6) for number in range(4)]
    assert all(torch.equal(again.batch(number, 6), first[number]) for number in (3, 0, 2, 1))
    assert not torch.equal(first[0], first[1]) and first[0].shape == (6, 3, 32, 32)
    for number, batch in enumerate(first):
        kept = ~is_drawn(batch)
        assert torch.equal(batch[kept], grey_photo.batch(number, 6)[kept])


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
def test_a_share_out_of_range_is_named(grey_photo, share):
    with pytest.raises(ValueError, match=rf"must lie in \[0, 1\], got {share}"):
        WithDrawings(grey_photo, share)
