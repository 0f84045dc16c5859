"""dhp_lab.codec.dhp_file: files are what compress and the container make, pictures what decompress makes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from models import picture, untrained, woken
from PIL import Image

import dhp_lab
from dhp_lab.codec import dhp_file
from dhp_lab.codec.bits import bitstream
from dhp_lab.codec.bits.bitstream import HEADER_BYTES, BitstreamError
from dhp_lab.codec.bits.lambdas import CODE_MAX, lambda_code, lambda_of
from dhp_lab.core.memory import OutOfMemory
from dhp_lab.data.images import load_image, to_pixels, to_tensor

KINDS = {"one pass": {}, "four passes": {"passes": 4}, "z alone": {"transmit": "z"}}
DECODES = [{"steps": 0}, {}, {"steps": 1}, {"steps": 3, "gamma": 0.25, "seed": 7}]
RATE = 1e-3


@pytest.fixture(scope="module", params=KINDS, ids=lambda name: name.replace(" ", "-"))
def model(request):
    model = woken(**KINDS[request.param])
    model.model_id = b"model-id"
    return model


@pytest.fixture(scope="module")
def data(model) -> bytes:
    return dhp_file.encode(model, picture(40, 56), lambda_rate=RATE)


def rewritten(data: bytes, **changes) -> bytes:
    """The same file with other streams or fields of the header, and correct checksums."""
    file = bitstream.read(data)
    fields = {"transmit": file.transmit, "passes": file.passes, "model_id": file.model_id}
    streams = {"y": file.y, "z": file.z, "side": file.side}
    streams |= {name: value for name, value in changes.items() if name in streams}
    fields |= {name: value for name, value in changes.items() if name in fields}
    return bitstream.write([[stream] for stream in streams.values()], file.shape, **fields)


# what is in a file, and what is made of it


@pytest.mark.parametrize("rate", [1e-1, 1e-3, 1e-6])
def test_a_file_holds_what_compress_makes(model, rate):
    x = picture(40, 56)
    file = bitstream.read(dhp_file.encode(model, x, lambda_rate=rate))
    coded = model.compress(x, rate)
    assert (file.strings, file.shape) == (coded["strings"], coded["shape"])
    assert (file.model_id, file.transmit, file.passes) == (
        b"model-id",
        model.config.transmit,
        model.config.passes,
    )
    assert file.lambda_rate == pytest.approx(rate, rel=4e-4)


@pytest.mark.parametrize("settings", DECODES)
def test_a_picture_is_what_decompress_makes(model, data, settings):
    file = bitstream.read(data)
    expected = model.decompress(file.strings, file.shape, **settings)["x_hat"]
    assert expected.shape == (1, 3, 40, 56)
    assert torch.equal(dhp_file.decode(model, data, **settings), expected)
    assert torch.equal(dhp_file.decode(model, file, **settings), expected), "of a file that was read already"


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P"])
def test_a_pil_picture_is_coded_as_its_pixels(model, mode):
    image = Image.fromarray(to_pixels(picture(40, 56))).convert(mode)
    x = to_tensor(image.convert("RGB"))
    assert dhp_file.encode(model, image, lambda_rate=RATE) == dhp_file.encode(model, x, lambda_rate=RATE)


def test_the_package_offers_it():
    assert dhp_lab.dhp_file is dhp_file
    with pytest.raises(AttributeError, match="has no attribute 'dhp_files'"):
        _ = dhp_lab.dhp_files


def test_a_model_in_training_is_used_and_stays_so():
    model = woken()
    x = picture(32, 32)
    data = dhp_file.encode(model, x)
    x_hat = dhp_file.decode(model, data)
    model.train()
    assert dhp_file.encode(model, x) == data and torch.equal(dhp_file.decode(model, data), x_hat)
    assert model.training


# batches


def test_a_batch_makes_the_files_of_its_pictures(model):
    x = picture(40, 56, count=3)
    coded = model.compress(x, RATE)
    files = dhp_file.encode_batch(model, x, lambda_rate=RATE)
    assert len(files) == 3
    for data, *streams in zip(files, *coded["strings"], strict=True):
        assert bitstream.read(data).strings == [[stream] for stream in streams]


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_a_batch_of_files_gives_the_pictures_of_each(model, steps):
    pairs = zip(picture(40, 56, count=3).split(1), (1e-1, 1e-3, 1e-5), strict=True)
    files = [dhp_file.encode(model, x, lambda_rate=rate) for x, rate in pairs]
    single = torch.cat([dhp_file.decode(model, data, steps=steps, seed=5) for data in files])
    batch = dhp_file.decode_batch(model, files, steps=steps, seed=5)
    assert batch.shape == (3, 3, 40, 56) and (batch - single).abs().max() < 1e-4
    mixed = dhp_file.decode_batch(model, [files[0], bitstream.read(files[1]), files[2]], steps=steps, seed=5)
    assert torch.equal(mixed, batch)


def test_several_pictures_are_not_one_file(model):
    with pytest.raises(ValueError, match="a file holds one picture, got 2; encode_batch"):
        dhp_file.encode(model, picture(32, 32, count=2))


def test_files_of_two_sizes_are_no_batch(model, data):
    other = dhp_file.encode(model, picture(56, 40), lambda_rate=RATE)
    with pytest.raises(ValueError, match=r"pictures of one size, got \[\(40, 56\), \(56, 40\)\]"):
        dhp_file.decode_batch(model, [data, other])


# previews, and files that were cut off


@pytest.mark.parametrize("settings", [{}, {"steps": 2, "seed": 3}])
def test_a_preview_is_made_of_z_alone(model, data, settings):
    file = bitstream.read(data)
    expected = model.decompress([[None], [file.z], [file.side]], file.shape, **settings)["x_hat"]
    assert torch.equal(dhp_file.decode(model, data, preview=True, **settings), expected)
    cut = data[: HEADER_BYTES + len(file.z) + len(file.y) // 2]
    assert torch.equal(dhp_file.decode(model, cut, preview=True, **settings), expected)


def test_a_file_that_was_cut_off_needs_a_preview():
    model = woken()
    data = dhp_file.encode(model, picture(40, 56))
    z_end = HEADER_BYTES + len(bitstream.read(data).z)
    with pytest.raises(BitstreamError, match="z is whole: copy it again, or see a preview"):
        dhp_file.decode(model, data[:-1])
    half = bitstream.read(data[:-1], allow_truncated=True)
    with pytest.raises(BitstreamError, match="y was cut off"):
        dhp_file.decode(model, half)
    with pytest.raises(BitstreamError, match="so there is no preview"):
        dhp_file.decode(model, data[: z_end - 1], preview=True)


# files whose checksums are right, and whose header is wrong


def test_a_file_written_again_is_the_same_file(data):
    assert rewritten(data) == data


@pytest.mark.parametrize("preview", [False, True])
@pytest.mark.parametrize("off", [-1, 1, 5])
def test_another_number_of_passes_is_refused(model, data, off, preview):
    passes = max(1, model.config.passes + off)
    passes = passes if passes != model.config.passes else 7
    message = f"contradicts its model: entropy passes {passes} .byte 5., the model has {model.config.passes}"
    with pytest.raises(BitstreamError, match=message):
        dhp_file.decode(model, rewritten(data, passes=passes), preview=preview)


def test_another_transmission_is_refused(model, data):
    own = model.config.transmit
    forged = rewritten(data, transmit="z" if own == "z+y" else "z+y", y=b"")
    with pytest.raises(BitstreamError, match="contradicts its model: transmit"):
        dhp_file.decode(model, forged)


@pytest.mark.parametrize("passes", [1, 2, 4])
def test_an_empty_stream_where_symbols_are_missing_is_refused(passes):
    model = woken(passes=passes)
    data = dhp_file.encode(model, picture(40, 56), lambda_rate=1e-4)
    assert bitstream.read(data).y, "there is something to take away"
    with pytest.raises(BitstreamError, match=r"y has 0 bytes where \d+ symbols are missing"):
        dhp_file.decode(model, rewritten(data, y=b""))


def test_an_empty_stream_is_right_where_nothing_is_sent():
    model = woken(transmit="z")
    data = dhp_file.encode(model, picture(40, 56))
    assert bitstream.read(data).y == b"" and dhp_file.decode(model, data).shape == (1, 3, 40, 56)


def test_one_wrong_file_in_a_batch_is_refused(model, data):
    with pytest.raises(BitstreamError, match="contradicts its model"):
        dhp_file.decode_batch(model, [data, rewritten(data, passes=9)])


def test_the_file_of_another_model_is_refused(model, data):
    with pytest.raises(BitstreamError, match=f"wrong model.*{b'model-id'.hex()}.*{bytes(8).hex()}"):
        dhp_file.decode(untrained(), data)
    with pytest.raises(BitstreamError, match="wrong model"):
        dhp_file.check_header(model, bitstream.read(rewritten(data, model_id=bytes(8))))


def test_no_byte_of_a_file_may_be_another():
    model = woken()
    data = dhp_file.encode(model, picture(16, 16))
    random = np.random.default_rng(0)
    for place in range(0, len(data), 3):
        wrong = bytearray(data)
        wrong[place] ^= int(random.integers(1, 256))
        with pytest.raises(BitstreamError):
            dhp_file.decode(model, bytes(wrong))


def test_a_pillow_picture_is_taken_as_its_file_is(tmp_path):
    """Turned upright, and drawn on white where it is transparent."""
    pixels = np.random.default_rng(0).integers(0, 256, (24, 40, 4), dtype=np.uint8)
    path, exif = tmp_path / "x.png", Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    Image.fromarray(pixels).save(path, exif=exif)
    codec = untrained()
    with Image.open(path) as image:
        assert dhp_file.encode(codec, image) == dhp_file.encode(codec, load_image(path)[0])


def test_the_largest_file_within_a_number_of_bytes():
    """By brute force over the same lambdas."""
    codec, x = untrained(), picture(48, 64)
    codes = range(CODE_MAX, lambda_code(1e-4) - 1, -512)
    sizes = [len(dhp_file.encode(codec, x, lambda_rate=lambda_of(code))) for code in codes]
    for limit in (sizes[0] - 1, sizes[3], sizes[7] + 1, 10**6):
        largest = max([size for size in sizes if size <= limit], default=sizes[0])
        for near in (None, 1e-4, 2e-3, 1e-1):
            found = dhp_file.encode_within(
                codec, x, limit, least_lambda=1e-4, code_step=512, near_lambda=near
            )
            assert len(found) == largest, (limit, near)


def test_a_picture_that_the_memory_does_not_suffice_for_is_refused_before_it_is_coded(
    model, data, monkeypatch
):
    """Rather than ended by the system: with the sizes of both, and what to do."""
    free = type("Memory", (), {"available": 2e6})
    monkeypatch.setattr("psutil.virtual_memory", lambda: free)
    small, large = picture(64, 64), picture(64, 1024)
    dhp_file.encode(model, small)
    message = "encoding 0 megapixels needs about 0.0 GB of memory, 0.0 are free: shrink the picture, or cut"
    with pytest.raises(OutOfMemory, match=message):
        dhp_file.encode(model, large)
    free.available = 0
    for work in (lambda: dhp_file.encode(model, small, effort=1), lambda: dhp_file.decode(model, data)):
        with pytest.raises(OutOfMemory, match="are free: shrink the picture, or cut it into parts"):
            work()
