"""Changed files: the short form of `make trust`'s run, and proofs that what judges them sees a fault."""

from __future__ import annotations

import random
import struct
import zlib

import hostile_files
import pytest
import torch
from hostile import Codec, Fault, Outcome, forged, judge, mended, mutate
from hypothesis import given, settings
from hypothesis import strategies as st
from models import picture, woken

from dhp_lab.codec import dhp_file
from dhp_lab.codec.bits import bitstream
from dhp_lab.codec.bits.bitstream import BitstreamError, read
from dhp_lab.codec.bits.lambdas import lambda_code

KINDS = {"one pass": {}, "four passes": {"passes": 4}, "z alone": {"transmit": "z"}}
TREATMENTS = {
    "as it is": lambda codec, data: data,
    "mended": lambda codec, data: mended(data),
    "forged": forged,
}
few = settings(max_examples=100, deadline=None, derandomize=True, database=None)


@pytest.fixture(scope="module", params=KINDS, ids=lambda name: name.replace(" ", "-"))
def codec(request, tmp_path_factory) -> Codec:
    model = woken(N=4, M=4, **KINDS[request.param])
    folder = tmp_path_factory.mktemp("checkpoint")
    model.save_pretrained(folder)
    model.model_id = b"model-id"
    sizes = (16, 16), (40, 33)
    files = [dhp_file.encode(model, picture(*size, seed=n), lambda_rate=1e-2) for n, size in enumerate(sizes)]
    return Codec(model, files, folder)


def with_header(data: bytes, offset: int, field: bytes) -> bytes:
    """The file with one field replaced, and its checksums mended."""
    return mended(data[:offset] + field + data[offset + len(field) :])


# only a BitstreamError, or the picture that was sent


@pytest.mark.slow
@pytest.mark.parametrize("treatment", TREATMENTS)
def test_a_changed_file_is_refused_or_shows_what_was_sent(codec, treatment):
    seen = set()

    @few
    @given(st.integers(0, 2**32), st.sampled_from((0, 1)), st.booleans())
    def check(seed: int, steps: int, preview: bool) -> None:
        rng = random.Random(seed)
        changed = TREATMENTS[treatment](codec, mutate(rng.choice(codec.files), rng))
        seen.add(judge(codec, changed, steps=steps, preview=preview))

    check()
    forgeries = {Outcome.ALL_FORGED, Outcome.HEADER_FORGED}
    assert Outcome.CONTAINER in seen
    assert not (seen & forgeries) if treatment == "as it is" else treatment == "mended" or seen & forgeries


@few
@given(st.binary(max_size=200), st.sampled_from((b"", b"DHP", b"DHP\x01\x00\x01")), st.booleans())
def test_bytes_of_any_kind_are_refused(data, start, truncated):
    for changed in (start + data, mended(start + data)):
        try:
            file = read(changed, allow_truncated=truncated)
        except BitstreamError as error:
            assert "\n" not in str(error) and len(str(error)) < 300
        else:  # a header that hypothesis made up, checksums mended: it must agree with the file
            assert len(changed) == 48 + len(file.z) + len(file.y or b"") or file.y is None


# the judge sees what it must see


def test_an_unchanged_file_shows_what_was_sent(codec):
    for data in codec.files:
        for settings_ in ({"steps": 0}, {"steps": 1}, {"preview": True}):
            assert judge(codec, data, **settings_) is Outcome.SAME


def test_each_checksum_is_told_from_the_others(codec):
    data = codec.files[0]
    assert judge(codec, data[:-1] + bytes([data[-1] ^ 1])) is Outcome.CONTAINER
    assert judge(codec, with_header(data, 14, b"another!")) is Outcome.MODEL
    assert judge(codec, with_header(data, 24, bytes(4))) is Outcome.SYMBOLS
    assert judge(codec, with_header(data, 6, struct.pack(">I", 15))) is Outcome.CONTAINER
    assert judge(codec, with_header(data, 6, struct.pack(">I", 10**6))) is Outcome.CONTAINER, "too large"
    damaged = data[:48] + bytes(byte ^ 255 for byte in data[48:56]) + data[56:]
    assert judge(codec, mended(damaged)) is Outcome.SYMBOLS
    assert judge(codec, forged(codec, damaged)) is Outcome.ALL_FORGED


def test_a_size_is_guarded_by_the_headers_checksum_alone(codec):
    """15 pixels less: the same latents, so that the symbols' checksums are right for both."""
    smaller = with_header(codec.files[1], 6, struct.pack(">I", 39))
    assert judge(codec, smaller) is Outcome.HEADER_FORGED


def test_a_file_that_was_cut_shows_its_preview_or_is_refused(codec):
    if codec.sent[1].y:
        assert judge(codec, codec.files[1][:-1]) is Outcome.CONTAINER
        assert judge(codec, codec.files[1][:-1], preview=True) is Outcome.SAME


def test_a_wrong_picture_is_a_fault(codec):
    wrong = Codec(codec.model, codec.files, codec.folder)
    wrong.pictures[0, 1, False] = codec.picture(0, 1, False) + 1e-3
    with pytest.raises(Fault, match="another picture than that of file 0"):
        judge(wrong, codec.files[0])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.1, 1.1])
def test_numbers_that_are_no_picture_are_a_fault(codec, monkeypatch, value):
    monkeypatch.setattr(dhp_file, "decode", lambda *_, **__: torch.full((1, 3, 16, 16), value))
    with pytest.raises(Fault, match="not a picture"):
        judge(codec, codec.files[0])


def test_another_error_is_not_swallowed(codec, monkeypatch):
    def breaks(*_, **__):
        raise IndexError("out of range")

    monkeypatch.setattr(dhp_file, "decode", breaks)
    with pytest.raises(IndexError):
        judge(codec, codec.files[0])


# forgery


def test_mended_checksums_are_those_of_zlib(codec):
    data = codec.files[0]
    assert mended(data) == data and mended(data[:47]) == data[:47]
    changed = mended(data[:50] + b"??" + data[52:])
    assert changed[40:44] == struct.pack(">I", zlib.crc32(changed[48:]))
    assert changed[44:48] == struct.pack(">I", zlib.crc32(changed[:44])) and changed != data


def test_a_forged_file_is_decoded_with_the_symbols_that_it_has(codec):
    data = codec.files[1]
    assert forged(codec, data) == data
    foreign = b"XYZ\x07\xff\x09" + data[6:14] + b"stranger" + data[22:]
    assert forged(codec, foreign) == data
    noise = random.Random(0).randbytes(len(data) - 48)
    assert dhp_file.decode(codec.model, forged(codec, data[:48] + noise)).shape == (1, 3, 40, 33)


def test_changes_are_drawn_from_the_seed_alone(codec):
    twice = [[mutate(codec.files[0], random.Random(seed)) for seed in range(99)] for _ in range(2)]
    assert twice[0] == twice[1] and len(set(twice[0])) > 60
    assert all(mutate(b"", random.Random(seed)) is not None for seed in range(99))


# what a small picture may cost


def test_a_small_picture_never_announces_a_large_file(codec):
    small = codec.files[0]
    for offset in (32, 36):
        with pytest.raises(BitstreamError, match="16 x 16 pixels take"):
            bitstream.announced_size(with_header(small, offset, struct.pack(">I", 2**30))[:48])


def test_extreme_symbols_still_make_a_picture(codec):
    """A stream of ones makes the coder escape to its largest symbols."""
    for fill in (b"\xff", b"\x00", b"\x7f"):
        data = codec.files[1]
        extreme = data[:22] + struct.pack(">H", lambda_code(1e-1)) + data[24:48] + fill * (len(data) - 48)
        assert judge(codec, forged(codec, extreme)) is Outcome.ALL_FORGED


def test_the_counts_of_several_processes_are_added():
    first = {
        "environment": {"peak_memory_mb": 700.0, "threads": 1},
        "inputs": 5,
        "checksums_mended": {"none": 3, "container": 2},
        "outcomes": {"same": 1, "container": 4},
        "slowest_cpu_seconds": 0.2,
        "seconds": 7,
    }
    second = first | {
        "environment": {"peak_memory_mb": 800.0, "threads": 1},
        "inputs": 2,
        "outcomes": {"symbols": 2},
        "slowest_cpu_seconds": 0.1,
    }
    found = hostile_files.together([first, second])
    assert (found["inputs"], found["processes"], found["seconds"]) == (7, 2, 14)
    assert found["outcomes"] == {"container": 4, "same": 1, "symbols": 2}
    assert found["checksums_mended"] == {"none": 6, "container": 4}
    assert found["environment"] == {"peak_memory_mb": 800.0, "threads": 1}
    assert found["slowest_cpu_seconds"] == 0.2
