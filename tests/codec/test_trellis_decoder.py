"""The decoder of trellis-coded levels, against CompressAI's coder and decoder."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dhp_lab.codec.bits.rans import coder_tables, rans_decode, rans_encode
from dhp_lab.codec.bits.scales import LEVELS, SCALES
from dhp_lab.codec.bits.trellis import path_of_values, values_of_path
from dhp_lab.codec.bits.trellis_decoder import TableArrays, TrellisDecoder
from dhp_lab.codec.networks.trellis_tables import TrellisConditional


@pytest.fixture(scope="module")
def tables():
    model = TrellisConditional(SCALES, scale_bound=SCALES[0])
    model.update()
    return coder_tables(model)


def drawn(count: int, seed: int = 0, far: bool = False) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Levels with scales of any row, some far outside the tables; rows of the scales, and of the tables."""
    draw = np.random.default_rng(seed)
    indexes = draw.integers(1, LEVELS, count)
    levels = (np.array(SCALES)[indexes] * draw.standard_normal(count)).round().astype(np.int32)
    if far:
        levels[::50] = draw.integers(-(2**26), 2**26, len(levels[::50]))
    _, quantisers = path_of_values(
        values_of_path(np.sign(levels) * (np.abs(levels) % 2**20))
    )  # float32 holds it
    rows = indexes + LEVELS * quantisers.astype(np.int64)
    return torch.from_numpy(levels), torch.from_numpy(indexes).int(), torch.from_numpy(rows).int()


@pytest.mark.parametrize("count", [1, 2, 3, 5000])
@pytest.mark.parametrize("far", [False, True])
def test_it_reads_what_compressais_encoder_wrote(tables, count, far):
    levels, indexes, rows = drawn(count, far=far)
    data = rans_encode(levels, rows, tables)
    found = TrellisDecoder(data, TableArrays.of(tables)).decode(indexes)
    assert torch.equal(found, levels) and found.dtype == torch.int32
    assert torch.equal(rans_decode(data, rows, tables), levels), "and so does its decoder"


def test_each_pass_has_a_trellis_of_its_own(tables):
    passes = [drawn(count, seed) for seed, count in enumerate((700, 1, 300))]
    levels, _, rows = (torch.cat(part) for part in zip(*passes, strict=True))
    decoder = TrellisDecoder(rans_encode(levels, rows, tables), TableArrays.of(tables))
    for expected, indexes, _ in passes:
        assert torch.equal(decoder.decode(indexes), expected)


@pytest.mark.parametrize("damage", ["empty", "short", "cut", "noise", "ones"])
def test_damaged_streams_give_wrong_levels_and_no_error(tables, damage):
    levels, indexes, rows = drawn(3000, far=True)
    data = rans_encode(levels, rows, tables)
    broken = {
        "empty": b"",
        "short": data[:3],
        "cut": data[: len(data) // 2],
        "noise": bytes(np.random.default_rng(1).integers(0, 256, len(data), dtype=np.uint8)),
        "ones": b"\xff" * len(data),
    }[damage]
    found = TrellisDecoder(broken, TableArrays.of(tables)).decode(indexes)
    assert len(found) == len(levels) and not torch.equal(found, levels)
    assert found.abs().max() < 2**30
