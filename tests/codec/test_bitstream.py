"""The .dhp container: what is written is read back, and nothing else is ever accepted."""

import random
import struct
import tracemalloc
import zlib

import pytest

from dhp_lab.codec.bits import bitstream
from dhp_lab.codec.bits.bitstream import BitstreamError, announced_size, check_model, read, write

MODEL = bytes.fromhex("0123456789abcdef")
SIDE = struct.pack(">HII", 20480, 0xDEADBEEF, 0x00C0FFEE)  # code 20480: lambda = 2^-10
Z, Y = b"zzz-stream", b"the stream of y"

GOLDEN = bytes.fromhex(
    "444850 01 00 02 00000018 00000123 0123456789abcdef 5000deadbeef00c0ffee 0000000a 0000000f 0f649634"
    "3083eabc"
    "7a7a7a2d73747265616d 7468652073747265616d206f662079"
)


def small(**changes) -> bytes:
    arguments = {"strings": [[Y], [Z], [SIDE]], "shape": (24, 291), "model_id": MODEL, "passes": 2} | changes
    return write(arguments.pop("strings"), arguments.pop("shape"), **arguments)


def with_header(data: bytes, offset: int, field: bytes) -> bytes:
    """The file with one field replaced and the header's CRC made right again."""
    fields = data[:offset] + field + data[offset + len(field) : 44]
    return fields + struct.pack(">I", zlib.crc32(fields)) + data[48:]


def test_golden_bytes():
    assert small() == GOLDEN
    assert bitstream.HEADER_BYTES == 48


def test_round_trip_gives_what_decompress_takes():
    file = read(GOLDEN)
    assert (file.version, file.height, file.width, file.transmit, file.passes) == (1, 24, 291, "z+y", 2)
    assert (file.model_id, file.side, file.z, file.y) == (MODEL, SIDE, Z, Y)
    assert file.strings == [[Y], [Z], [SIDE]] and file.shape == (24, 291)
    assert file.lambda_rate == 2**-10
    assert write(file.strings, file.shape, model_id=file.model_id, passes=2) == GOLDEN
    assert announced_size(GOLDEN[:48]) == len(GOLDEN)


@pytest.mark.parametrize("kind", [bytearray, memoryview])
def test_any_bytes_like_data(kind):
    assert read(kind(GOLDEN)) == read(GOLDEN)


def test_z_alone():
    data = small(strings=[[b""], [Z], [SIDE]], transmit="z")
    assert len(data) == 48 + len(Z)
    assert (read(data).transmit, read(data).z, read(data).y) == ("z", Z, b"")


def test_empty_y_is_not_a_missing_y():
    assert read(small(strings=[[b""], [Z], [SIDE]])).y == b""


def test_random_contents_survive():
    rng = random.Random(0)
    for _ in range(200):
        z, y = rng.randbytes(rng.randint(1, 300)), rng.randbytes(rng.randint(0, 300))
        side = rng.randint(140, 34157).to_bytes(2, "big") + rng.randbytes(8)
        height, width = rng.randint(16, 10_000), rng.randint(16, 10_000)
        model_id, passes = rng.randbytes(8), rng.randint(1, 255)
        data = write([[y], [z], [side]], (height, width), model_id=model_id, passes=passes)
        assert read(data) == bitstream.DhpFile(1, height, width, "z+y", passes, model_id, side, z, y)


def test_lambda_agrees_with_the_codec():
    from dhp_lab.codec.bits import lambdas

    assert (lambdas.lambda_code(1e-6), lambdas.lambda_code(1e-1)) == (bitstream.CODE_MIN, bitstream.CODE_MAX)
    for code in (bitstream.CODE_MIN, 9000, 20480, bitstream.CODE_MAX):
        side = code.to_bytes(2, "big") + SIDE[2:]
        assert read(small(strings=[[Y], [Z], [side]])).lambda_rate == lambdas.lambda_of(code)


def test_every_single_bit_flip_is_noticed():
    for bit in range(8 * len(GOLDEN)):
        damaged = bytearray(GOLDEN)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(BitstreamError):
            read(bytes(damaged))


def test_every_truncation_is_noticed():
    for length in range(len(GOLDEN)):
        with pytest.raises(BitstreamError, match="truncated|empty"):
            read(GOLDEN[:length])
    with pytest.raises(BitstreamError, match=r"70 of 73 bytes, 3 are missing, but z is whole.*--preview"):
        read(GOLDEN[:-3])
    with pytest.raises(BitstreamError, match=r"50 of 73 bytes, 23 are missing, 8 of them from z"):
        read(GOLDEN[:50])


def test_preview_needs_the_whole_of_z():
    for length in range(48 + len(Z), len(GOLDEN)):
        file = read(GOLDEN[:length], allow_truncated=True)
        assert (file.z, file.y, file.strings) == (Z, None, [[None], [Z], [SIDE]])
    for length in range(48 + len(Z)):
        with pytest.raises(BitstreamError):
            read(GOLDEN[:length], allow_truncated=True)
    assert read(GOLDEN, allow_truncated=True) == read(GOLDEN)


def test_a_preview_reader_still_checks_a_whole_file():
    with pytest.raises(BitstreamError, match="damaged streams"):
        read(GOLDEN[:-1] + b"!", allow_truncated=True)


def test_trailing_bytes():
    with pytest.raises(BitstreamError, match=r"unexpected bytes after the end \(byte 73\)"):
        read(GOLDEN + b"\0", allow_truncated=True)


def test_damage_is_located():
    with pytest.raises(
        BitstreamError, match=r"damaged streams: CRC32 of bytes 48-72 is [0-9a-f]{8}.*0f649634"
    ):
        read(GOLDEN[:-1] + b"!")
    with pytest.raises(BitstreamError, match=r"damaged header: CRC32 of bytes 0-43"):
        read(GOLDEN[:9] + b"\x19" + GOLDEN[10:])


def test_random_bytes_only_raise_bitstream_error():
    rng = random.Random(1)
    for i in range(2000):
        start = (b"", b"D", b"DHP", b"DHP\x01")[i % 4]
        with pytest.raises(BitstreamError):
            read(start + rng.randbytes(rng.randint(0, 120)), allow_truncated=bool(i % 3))


def test_random_fields_behind_a_right_crc():
    rng = random.Random(2)
    accepted = 0
    for _ in range(2000):
        offset, size = rng.choice([(4, 1), (5, 1), (6, 4), (10, 4), (22, 2), (32, 4), (36, 4), (40, 4)])
        field = rng.choice(
            [rng.randbytes(size), bytes(size), b"\xff" * size, rng.randrange(64).to_bytes(size, "big")]
        )
        try:
            file = read(with_header(GOLDEN, offset, field))
        except BitstreamError:
            continue
        accepted += 1
        assert file.z + file.y == Z + Y and file.height * file.width <= 100_000_000 and file.passes >= 1
    assert 0 < accepted < 1500  # both outcomes occur


@pytest.mark.parametrize(
    ("offset", "field", "message"),
    [
        (3, "02", r"unknown version 2 \(byte 3\).*reads 1"),
        (4, "02", r"reserved flag bits are set, 00000010 \(byte 4\)"),
        (4, "80", r"reserved flag bits are set, 10000000 \(byte 4\)"),
        (4, "01", r"y has 15 bytes \(byte 36\) but is not sent"),
        (5, "00", r"0 entropy passes \(byte 5\)"),
        (6, "0000000f", r"height 15 \(byte 6\)"),
        (10, "00000000", r"width 0 \(byte 10\)"),
        (22, "008b", r"lambda code 139 \(byte 22\), must be 140\.\.34157"),
        (22, "856e", r"lambda code 34158 \(byte 22\)"),
        (32, "00000000", r"z has 0 bytes \(byte 32\)"),
        (32, "00010000", r"truncated file: 73 of 65599 bytes"),
        (36, "00010000", r"truncated file: 73 of 65594 bytes"),
        (32, "ffffffff", r"z has 4294967295 bytes \(byte 32\), 291 x 24 pixels take 1\.\.1971072"),
        (36, "ffffffff", r"y has 4294967295 bytes \(byte 36\), 291 x 24 pixels take 0\.\.1971072"),
        (32, "001e1381", r"z has 1971073 bytes"),
        (32, "001e1380", r"truncated file: 73 of 1971135 bytes"),
        (36, "0000000e", r"unexpected bytes after the end \(byte 72\)"),
        (40, "00000000", r"damaged streams"),
    ],
)
def test_each_field_is_checked(offset, field, message):
    with pytest.raises(BitstreamError, match=message):
        read(with_header(GOLDEN, offset, bytes.fromhex(field)))


def test_too_large_pictures_are_refused_before_anything_is_allocated():
    huge = with_header(with_header(GOLDEN, 6, b"\xff" * 8), 32, b"\xff" * 8)
    tracemalloc.start()
    with pytest.raises(
        BitstreamError, match=r"4294967295 x 4294967295 = 18446744065119617025 pixels.*100000000"
    ):
        read(huge)
    with pytest.raises(BitstreamError, match="truncated"):
        read(huge, max_pixels=2**64)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50_000  # bytes


def test_a_header_alone_tells_a_picture_that_is_too_large():
    with pytest.raises(BitstreamError, match=r"6984 pixels, the limit is 6983"):
        announced_size(GOLDEN[:48], max_pixels=6983)
    assert announced_size(GOLDEN[:48], max_pixels=6984) == 73


def test_the_limit_can_be_moved():
    assert read(GOLDEN, max_pixels=24 * 291).height == 24
    with pytest.raises(
        BitstreamError, match=r"291 x 24 = 6984 pixels, the limit is 6983.*--max_megapixels 1"
    ):
        read(GOLDEN, max_pixels=24 * 291 - 1)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the file is empty"),
        (b"\x89PNG\r\n\x1a\n" + bytes(60), "a PNG picture"),
        (b"\xff\xd8\xff\xe0" + bytes(60), "a JPEG picture"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "a WebP picture"),
        (b"Dear reader,", "it starts with b'Dear', not b'DHP'"),
        (b"x", "it starts with b'x'"),
    ],
)
def test_foreign_files(data, message):
    with pytest.raises(BitstreamError, match=f"not a .dhp file: .*{message}.*dhp compress"):
        read(data)
    with pytest.raises(BitstreamError, match="not a .dhp file"):
        announced_size(data)


def test_the_limit_of_pixels_needs_the_header_alone():
    """So that nothing is read, be it from a pipe, of a file that would be refused."""
    assert announced_size(GOLDEN[:48], max_pixels=24 * 291) == len(GOLDEN)
    for refuse in (announced_size, read):
        with pytest.raises(BitstreamError, match=r"picture too large: 291 x 24 = 6984 pixels.*is 6983 \("):
            refuse(GOLDEN[:48], max_pixels=24 * 291 - 1)


def test_wrong_model_names_both():
    file = read(GOLDEN)
    check_model(file, MODEL)
    with pytest.raises(BitstreamError, match="0123456789abcdef.*ffffffffffffffff.*--model_path"):
        check_model(file, b"\xff" * 8)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"strings": [[Y, Y], [Z, Z], [SIDE, SIDE]]}, r"one picture.*\[2, 2, 2\]"),
        ({"strings": [[Y], [Z]]}, r"one picture.*\[1, 1\]"),
        ({"strings": [[None], [Z], [SIDE]]}, "y must be any number of bytes, got None"),
        ({"strings": [[Y], [b""], [SIDE]]}, "z has 0 bytes"),
        ({"strings": [[Y], [Z], [SIDE[:9]]]}, "side must be 10 bytes"),
        ({"strings": [[Y], [Z], [bytes(10)]]}, "lambda code 0"),
        ({"transmit": "z"}, "y has 15 bytes .* but is not sent"),
        ({"transmit": "y"}, "transmit must be one of .*'y'"),
        ({"passes": 0}, "0 entropy passes"),
        ({"passes": 256}, "256 entropy passes"),
        ({"shape": (15, 16)}, "height 15"),
        ({"shape": (16, 2**32)}, "width 4294967296"),
        ({"model_id": MODEL[:7]}, "model_id must be 8 bytes"),
        ({"model_id": "01234567"}, "model_id must be 8 bytes, got '01234567'"),
    ],
)
def test_write_refuses_what_the_format_cannot_hold(changes, message):
    with pytest.raises(ValueError, match=message) as caught:
        small(**changes)
    assert not isinstance(caught.value, BitstreamError)
