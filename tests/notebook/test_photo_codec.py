"""A model and photos behind an explorer, and the explorer of lesson 00: the codec's figures are true."""

import io
from datetime import UTC, datetime

import numpy as np
import pytest
import torch
from models import untrained
from PIL import Image

from dhp_lab.codec.bits import bitstream
from dhp_lab.data.images import ImageError, to_pixels
from dhp_lab.data.photos import load_photo
from dhp_lab.evaluation import classical
from dhp_lab.lessons.start_here.explorer import CodecExplorer
from dhp_lab.metrics.pixels import psnr
from dhp_lab.notebook.photo_codec import BESIDE, DETAIL, WHOLE, PhotoCodec

SIDE = 64


@pytest.fixture(scope="module")
def model():
    return untrained()


@pytest.fixture(scope="module")
def codec(model):
    return PhotoCodec(model, SIDE)


def png(image):
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


# JPEG beside it


def test_jpeg_within_is_the_best_that_fits():
    x = load_photo("chelsea", SIDE)
    sizes = [len(classical.JPEG.encode(x, quality)) for quality in range(1, 101)]
    for budget in (sizes[10], sizes[49] - 1, sizes[90] + 3, max(sizes) + 100):
        data = classical.jpeg_within(x, budget)
        assert len(data) <= budget
        assert len(data) == max(size for size in sizes if size <= budget)
    assert len(classical.jpeg_within(x, 1)) == min(sizes)


# The codec's figures


def test_the_file_is_the_models(codec, model):
    data, seconds = codec.encode("coffee", 1e-4)
    strings = model.compress(load_photo("coffee", SIDE), lambda_rate=1e-4)["strings"]
    assert bitstream.read(data).strings == strings
    assert seconds > 0


@pytest.mark.parametrize("name", BESIDE)
def test_what_stands_beside_is_the_best_that_fits(codec, name):
    data, _ = codec.encode("coffee", 1e-5)
    beside = codec.beside(name, "coffee", 1e-5)
    files = [BESIDE[name].encode(load_photo("coffee", SIDE), quality) for quality in range(1, 101, 3)]
    assert len(beside) <= len(data)
    assert not [len(file) for file in files if len(beside) < len(file) <= len(data)]


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_the_picture_is_what_the_model_decodes(codec, model, steps):
    x_hat, seconds = codec.decode("coffee", 1e-3, steps)
    coded = model.compress(load_photo("coffee", SIDE), lambda_rate=1e-3)
    assert torch.equal(x_hat, model.decompress(coded["strings"], coded["shape"], steps=steps)["x_hat"])
    assert seconds > 0


def test_a_move_of_k_writes_no_new_file(model, monkeypatch):
    codec, calls, compress = PhotoCodec(model, SIDE), [], model.compress
    monkeypatch.setattr(
        model, "compress", lambda *args, **options: calls.append(options) or compress(*args, **options)
    )
    for steps in (0, 1, 2, 1):
        codec.render(photo="coffee", view=WHOLE, lambda_rate=1e-3, steps=steps)
    assert calls == [{"lambda_rate": 1e-3}]
    assert codec.decode.cache_info().misses == 3


def test_the_text_gives_bytes_and_psnr_of_both(codec):
    text = codec.render(photo="coffee", view=WHOLE, lambda_rate=1e-4, steps=1).text
    x, (data, _) = load_photo("coffee", SIDE), codec.encode("coffee", 1e-4)
    jpeg = codec.beside("JPEG", "coffee", 1e-4)
    x_hat, _ = codec.decode("coffee", 1e-4, 1)
    for size, picture in ((len(data), x_hat), (len(jpeg), classical.JPEG.decode(jpeg))):
        assert (
            f">{size}<" in text
            and f">{8 * size / SIDE**2:.3f}<" in text
            and f">{psnr(picture, x).item():.2f}<" in text
        )
    assert f"t* = {codec.model.start_time(codec.model.step_size(1e-4)):.2f} of 10" in text
    assert "no JPEG" not in text


@pytest.mark.parametrize("name", BESIDE)
def test_the_text_says_when_none_is_as_small(codec, name):
    data, _ = codec.encode("coffee", 1e-2)
    assert len(codec.beside(name, "coffee", 1e-2)) > len(data)
    shown = codec.render(photo="coffee", view=WHOLE, beside=name, lambda_rate=1e-2, steps=1)
    assert f"no {name} of this picture is as small" in shown.text


def test_the_panel_shows_our_picture_and_the_jpeg(codec):
    shown = codec.render(photo="coffee", view=WHOLE, lambda_rate=1e-4, steps=0)
    canvas = np.asarray(Image.open(io.BytesIO(shown.picture)))
    ours, jpeg = (
        codec.decode("coffee", 1e-4, 0)[0],
        classical.JPEG.decode(codec.beside("JPEG", "coffee", 1e-4)),
    )
    ours, jpeg = to_pixels(ours), to_pixels(jpeg)
    assert np.array_equal(canvas[-SIDE:, :SIDE], ours)
    assert any(
        np.array_equal(canvas[-SIDE:, left : left + SIDE], jpeg)
        for left in range(SIDE, canvas.shape[1] - SIDE + 1)
    )
    assert "coffee" in shown.alt and "K = 0" in shown.alt and "λ = 0.0001" in shown.alt


def test_the_detail_shows_the_original_too(codec):
    shown = codec.render(photo="coffee", view=DETAIL, lambda_rate=1e-4, steps=0)
    canvas = np.asarray(Image.open(io.BytesIO(shown.picture)))
    original = np.kron(
        to_pixels(load_photo("coffee", SIDE)), np.ones((3, 3, 1), np.uint8)
    )  # smaller than a detail
    assert np.array_equal(canvas[-3 * SIDE :, : 3 * SIDE], original)


# The reader's own picture

RGB = Image.fromarray(to_pixels(load_photo("rocket", 90)))
FILES = {
    "colour": (RGB, ""),
    "grey": (RGB.convert("L"), "grey picture (mode L) coded as RGB"),
    "grey16": (
        Image.fromarray(np.asarray(RGB.convert("L")).astype(np.uint16) * 257),
        "grey picture (mode I;16)",
    ),
    "transparent": (RGB.convert("RGBA"), "transparency dropped: drawn on white"),
    "palette": (RGB.convert("P"), "mode P converted to RGB"),
    "long": (RGB.resize((400, 40)), "shrunk from 400 x 40 pixels"),
    "tiny": (RGB.resize((16, 17)), ""),
}


@pytest.fixture
def explorer(model):
    return CodecExplorer(model, photo="coffee", side=SIDE)


def upload(explorer, name, content):
    """What the browser does once the reader has chosen a file."""
    file = {
        "name": name,
        "type": "",
        "size": len(content),
        "content": memoryview(content),
        "last_modified": datetime.now(UTC),
    }
    explorer.upload.value = (file,)


@pytest.mark.parametrize("kind", FILES)
def test_own_pictures_of_any_kind(explorer, kind):
    image, note = FILES[kind]
    drawn = explorer.render.cache_info().misses
    upload(explorer, f"{kind}.png", png(image))
    chosen = explorer.position()["photo"]
    assert chosen == f"yours, 1: {kind}.png"
    assert f'alt="{chosen}, whole picture' in explorer.picture.value and note in explorer.text.value
    assert explorer.render.cache_info().misses == drawn + 1
    assert max(explorer.codec.photo(chosen)[0].shape) <= SIDE
    assert explorer.upload.value == (), "the picture must not stay in the widget's state"


def test_two_own_pictures_of_one_name_are_two(explorer):
    for colour in ("red", "blue"):
        upload(explorer, "a.png", png(Image.new("RGB", (32, 32), colour)))
    red, blue = (explorer.codec.photo(f"yours, {i}: a.png")[0] for i in (1, 2))
    assert red[0, 0].mean() == blue[0, 2].mean() == 1 and red[0, 2].max() == 0
    assert explorer.position()["photo"] == "yours, 2: a.png"
    assert list(explorer.controls["photo"].options[:3]) == ["yours, 2: a.png", "yours, 1: a.png", "astronaut"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("notes.txt", b"hello", "notes.txt: not a picture that Pillow can read"),
        ("../<b>.png", png(RGB)[:500], "&lt;b&gt;.png: cannot be read"),
        (
            "small.png",
            png(Image.new("RGB", (8, 8))),
            "small.png: 8 x 8 pixels; both sides must be at least 16",
        ),
    ],
    ids=["text", "cut off", "small"],
)
def test_a_file_that_is_no_picture_is_named_and_changes_nothing(explorer, name, content, message):
    before = explorer.position(), explorer.controls["photo"].options
    upload(explorer, name, content)
    assert explorer.text.value.startswith(f"<b>{message}")
    assert (explorer.position(), explorer.controls["photo"].options) == before


def test_add_raises_without_the_folder_of_this_machine(codec):
    with pytest.raises(ImageError, match="^x.png: not a picture"):
        codec.add("some/folder/x.png", b"")


def test_the_sliders_of_lesson_00(explorer):
    assert list(explorer.position()) == ["photo", "view", "beside", "lambda_rate", "steps"]
    before = explorer.picture.value, explorer.text.value
    for name, value in (
        ("lambda_rate", 1e-4),
        ("steps", 3),
        ("beside", "AVIF"),
        ("view", DETAIL),
        ("photo", "rocket"),
    ):
        explorer.controls[name].value = value
        after = explorer.picture.value, explorer.text.value
        assert after[0] != before[0] and (name == "view" or after[1] != before[1])
        before = after
