"""Symbols to bytes and back: CompressAI's bytes, the ideal code's length, and what becomes of odd input."""

from __future__ import annotations

import math
import zlib

import numpy as np
import pytest
import torch
from compressai.entropy_models import EntropyBottleneck, GaussianConditional
from models import untrained
from scipy.stats import norm

import dhp_lab  # noqa: F401  (stands in line before compressai, which imports torchvision)
from dhp_lab.codec.bits.bitstream import BitstreamError
from dhp_lab.codec.bits.rans import (
    SYMBOL_LIMIT,
    CoderTables,
    check_symbols,
    coder_tables,
    rans_decode,
    rans_encode,
    symbol_crc,
)
from dhp_lab.codec.bits.scales import LEVELS, SCALES, is_coded, log2_scale_in_steps, scale_indexes


@pytest.fixture(scope="module")
def gaussian() -> GaussianConditional:
    model = GaussianConditional(SCALES, scale_bound=SCALES[0])
    model.update()
    return model


@pytest.fixture(scope="module")
def tables(gaussian) -> CoderTables:
    return coder_tables(gaussian)


def drawn(levels: torch.Tensor, seed: int = 0) -> torch.Tensor:
    """Rounded Gaussian numbers with the scales of these rows of the table."""
    noise = torch.randn(levels.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (noise * torch.tensor(SCALES, dtype=torch.float64)[levels]).round().int()


def any_levels(count: int) -> torch.Tensor:
    return torch.randint(LEVELS, (count,), generator=torch.Generator().manual_seed(1), dtype=torch.int32)


# pack and unpack


def test_round_trip(tables):
    levels = any_levels(20_000)
    symbols = drawn(levels)
    back = rans_decode(rans_encode(symbols, levels, tables), levels, tables)
    assert torch.equal(back, symbols) and back.dtype == torch.int32


def test_round_trip_of_symbols_far_outside_the_tables(tables):
    """The table's rows end at 6.1 scales: everything beyond is escaped."""
    far = [sign * (2**power + more) for power in range(26) for more in (-1, 0) for sign in (-1, 1)] + [
        SYMBOL_LIMIT,
        -SYMBOL_LIMIT,
    ]
    symbols = torch.tensor(far * 3, dtype=torch.int32)
    levels = torch.tensor([0, 40, LEVELS - 1], dtype=torch.int32).repeat_interleave(len(far))
    assert torch.equal(rans_decode(rans_encode(symbols, levels, tables), levels, tables), symbols)


@pytest.mark.parametrize("symbol", [SYMBOL_LIMIT + 1, -SYMBOL_LIMIT - 1, 2**31 - 1, -(2**31)])
def test_symbols_that_the_coder_cannot_escape_are_refused(tables, symbol):
    """A pixel or weight that is not a number becomes -2^31, on which CompressAI's coder never returns."""
    with pytest.raises(ValueError, match=f"{symbol}.*finite"):
        rans_encode(torch.tensor([0, symbol], dtype=torch.int32), torch.tensor([40, 40]), tables)


def test_bytes_are_those_of_compressai(tables, gaussian):
    levels = any_levels(5000)
    symbols = drawn(levels)
    symbols[::500] *= 1000
    ours = rans_encode(symbols, levels, tables)
    assert [ours] == gaussian.compress(symbols[None].float(), levels[None])
    assert torch.equal(gaussian.decompress([ours], levels[None])[0].int(), symbols)


@pytest.mark.parametrize("level", [4, 16, 24, 40, 64, LEVELS - 1, None])
def test_code_length_is_the_entropy(tables, level):
    """Within 1 % and 8 bytes of the ideal code for the true Gaussian, from 1/6 of a quantiser step up; None
    mixes all rows.
    """
    levels = any_levels(50_000) if level is None else torch.full((50_000,), level, dtype=torch.int32)
    symbols = drawn(levels)
    q, scale = np.abs(symbols.numpy()), np.array(SCALES)[levels.numpy()]
    ideal = -np.log2(norm.cdf((0.5 - q) / scale) - norm.cdf((-0.5 - q) / scale)).sum() / 8
    assert ideal - 8 < len(rans_encode(symbols, levels, tables)) < 1.01 * ideal + 8


def test_nothing_takes_no_bytes(tables):
    nothing = torch.zeros(0, dtype=torch.int32)
    assert rans_encode(nothing, nothing, tables) == b"" and torch.equal(
        rans_decode(b"", nothing, tables), nothing
    )


def test_a_stream_that_ends_early_reads_zeros_and_nothing_else(tables):
    """The coder does not look for the end of its input, so the input must not end before the symbols do."""
    levels = any_levels(20_000)
    stream = rans_encode(drawn(levels), levels, tables)
    for short in (b"", b"\xff" * 44, stream[:100], stream[:101]):
        assert torch.equal(
            rans_decode(short, levels, tables),
            rans_decode(short + bytes(-len(short) % 4 + 200_000), levels, tables),
        )


def test_damage_changes_the_symbols_and_raises_nothing(tables):
    levels = any_levels(500)
    symbols = drawn(levels)
    stream = rans_encode(symbols, levels, tables)
    for place in range(0, len(stream), 7):
        damaged = stream[:place] + bytes([stream[place] ^ 0x10]) + stream[place + 1 :]
        assert symbol_crc(rans_decode(damaged, levels, tables)) != symbol_crc(symbols)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("value", [0, 1, -9, 70000])
def test_a_few_symbols_are_coded_without_harm(tables, count, value):
    """The coder reserves a word a symbol and writes two at its end: one alone once ended the process."""
    symbols, levels = (
        torch.full((count,), value, dtype=torch.int32),
        torch.full((count,), 1, dtype=torch.int32),
    )
    for _ in range(20):
        assert torch.equal(rans_decode(rans_encode(symbols, levels, tables), levels, tables), symbols)


def test_what_is_sent_is_what_has_a_row_above_zero():
    log2_scale = torch.cat(
        [
            torch.linspace(-5, 7, 4001),
            -3 + torch.tensor([1 / 16]),
            torch.nextafter(torch.tensor([-3 + 1 / 16]), torch.tensor([-4.0])),
        ]
    )
    assert torch.equal(is_coded(log2_scale), scale_indexes(log2_scale) > 0) and not is_coded(log2_scale)[-1]


# the tables


def test_a_coder_without_tables_says_what_to_do():
    with pytest.raises(ValueError, match=r"call model.update\(\) first"):
        coder_tables(EntropyBottleneck(2))


def test_new_tables_are_seen_after_loading_and_after_an_update():
    weights = [untrained().state_dict() for _ in range(2)]
    name = "entropy_bottleneck._quantized_cdf"
    weights[1] = weights[1] | {name: weights[1][name].flip(0)}
    model = untrained()
    for turn in range(4):
        model.load_state_dict(weights[turn % 2])
        assert model.tables.z.cdfs == weights[turn % 2][name].tolist()
    with torch.no_grad():
        model.entropy_bottleneck.quantiles *= 3  # a wider prior
    before = model.tables.z
    assert model.tables.z is before, "tables are made once"
    model.update(force=True)
    assert model.tables.z.lengths != before.lengths


def test_scales_are_eight_to_the_octave():
    assert SCALES[0] == 1 / 8 and SCALES[-1] == 64 and len(SCALES) == LEVELS
    assert np.abs(np.diff(np.log2(SCALES)) - 1 / 8).max() < 1e-12


def test_row_zero_is_almost_surely_zero():
    """Up to the border with row one, a sixteenth of an octave above its own scale."""
    assert 2 * norm.sf(0.5 / (SCALES[0] * 2 ** (1 / 16))) < 1.3e-4


# scale indexes


def test_scale_indexes_are_the_nearest_rows():
    generator = torch.Generator().manual_seed(0)
    log2_scale = torch.randint(-6000, 6000, (2, 5, 8, 9), generator=generator, dtype=torch.float64) / 1024
    spread, delta = torch.randn(5, generator=generator), -217_531
    reference = (log2_scale + spread.double().view(-1, 1, 1) - delta / 2**16 + 3) * 8
    clear = (reference - reference.floor() - 0.5).abs() > 2**-10  # spreads are rounded to 2^-16 octaves
    found = scale_indexes(log2_scale_in_steps(log2_scale, spread, delta))
    assert clear.double().mean() > 0.99 and found.dtype == torch.int32
    assert torch.equal(found[clear], reference.round().clamp(0, LEVELS - 1).int()[clear])
    assert found.min() == 0 and found.max() == LEVELS - 1


def test_ties_go_up():
    log2_scale = torch.tensor([1 / 16, 3 / 16, -1 / 16], dtype=torch.float64).view(1, 1, 1, 3)
    assert scale_indexes(log2_scale_in_steps(log2_scale, torch.zeros(1), -3 * 2**16)).flatten().tolist() == [
        49,
        50,
        48,
    ]
    below = log2_scale - 2.0**-10
    assert scale_indexes(log2_scale_in_steps(below, torch.zeros(1), -3 * 2**16)).flatten().tolist() == [
        48,
        49,
        47,
    ]


# the CRC


def test_crc_is_zlibs_over_little_endian_numbers_in_logical_order():
    symbols = drawn(any_levels(2 * 3 * 4 * 5)).view(2, 3, 4, 5)
    expected = zlib.crc32(b"".join(int(v).to_bytes(4, "little", signed=True) for v in symbols.flatten()))
    assert (
        symbol_crc(symbols) == symbol_crc(symbols.contiguous(memory_format=torch.channels_last)) == expected
    )
    assert symbol_crc(symbols.long()) == expected and symbol_crc(symbols[:0]) == 0


def test_crc_sees_one_symbol():
    symbols = torch.zeros(1000, dtype=torch.int32)
    assert (
        len(
            {
                symbol_crc(symbols.index_fill(0, torch.tensor(i), math.copysign(1, i - 500)))
                for i in range(0, 1000, 50)
            }
        )
        == 20
    )


def test_symbols_that_are_not_those_that_were_coded_are_named():
    symbols = drawn(any_levels(100))
    check_symbols("y", symbols, zlib.crc32(symbols.numpy().astype("<i4").tobytes()))
    with pytest.raises(BitstreamError, match="symbols of y .*damaged or was made by another model"):
        check_symbols("y", symbols + 1, symbol_crc(symbols))
