"""Pictures and files that make codecs fail, in the lesson on evaluation."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from models import untrained
from PIL import Image

from dhp_lab.codec import dhp_file
from dhp_lab.codec.bits.bitstream import BitstreamError
from dhp_lab.data.images import to_pixels, to_tensor
from dhp_lab.data.photos import load_photo
from dhp_lab.lessons.evaluation import failures

SIDE = 64


@pytest.fixture(scope="module")
def model():
    return untrained()


# failures


def test_drawn_pictures_are_what_their_names_say():
    drawn = failures.drawn_pictures(48)
    assert [tuple(x.shape) for x in drawn.values()] == [(1, 3, 48, 48)] * 5 + [(1, 3, 16, 16)]
    chess, bars = drawn["chessboard of pixels"], drawn["red and blue bars"]
    assert (
        torch.equal(chess.diff(dim=-1).abs(), torch.ones(1, 3, 48, 47))
        and chess.diff(dim=-2).abs().min() == 1
    )
    assert bars[0, :, 0, :6].tolist() == [[1, 1, 1, 0, 0, 0], [0] * 6, [0, 0, 0, 1, 1, 1]]
    assert len(drawn["flat grey"].unique()) == 1 and len(drawn["noise"].unique()) == 256
    assert torch.equal(drawn["tiny photo"], load_photo("astronaut", 16))
    again = failures.drawn_pictures(48)
    assert all(torch.equal(x, again[name]) for name, x in drawn.items())


def test_the_page_is_black_on_white():
    page = failures.drawn_pictures(192)["text"]
    dark = (page < 0.5).double().mean().item()
    assert 0.03 < dark < 0.3 and page.min() < 0.1
    assert (page[..., : failures.MARGIN // 2] == 1).all() and (page[..., -failures.MARGIN :] == 1).all(), (
        "the margins stay white"
    )


def test_png_size_is_that_of_a_file(tmp_path):
    x = to_tensor(np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8))
    Image.fromarray(to_pixels(x)).save(tmp_path / "x.png", optimize=True)
    assert failures.png_size(x) == (tmp_path / "x.png").stat().st_size


def test_no_spoiled_file_decodes(model):
    data = dhp_file.encode(model, load_photo("coffee", SIDE), lambda_rate=1e-3)
    decode = partial(dhp_file.decode, model)
    spoiled = failures.spoiled(data)
    assert data not in spoiled.values() and len(set(spoiled.values())) == len(spoiled) == 7
    found = {what: failures.outcome(decode, file) for what, file in spoiled.items()}
    words = (
        "truncated header",
        "truncated file",
        "unexpected bytes",
        "damaged header",
        "damaged streams",
        "JPEG",
        "empty",
    )
    for (what, message), word in zip(found.items(), words, strict=True):
        assert word in message, what
    assert failures.outcome(decode, data) == "decoded"


def test_other_errors_are_not_hidden():
    with pytest.raises(ZeroDivisionError):
        failures.outcome(lambda data: 1 // 0, b"")

    def decode(data):
        raise BitstreamError("one\ntwo")

    assert failures.outcome(decode, b"") == "one"
