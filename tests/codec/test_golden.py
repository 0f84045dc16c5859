"""Files that earlier versions wrote decode for ever: to the same symbols, and to the same pictures within one
level.
"""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dhp_lab.codec import DiffusionHyperprior
from dhp_lab.codec.bits import bitstream
from dhp_lab.codec.bits.rans import symbol_crc
from dhp_lab.codec.entropy_coding import SIDE, decode_latents
from dhp_lab.data.images import to_pixels

sys.path.insert(0, str(Path(__file__).parents[1] / "golden"))
import make

each_file = pytest.mark.parametrize("name", sorted(make.FILES))


@pytest.fixture(scope="module")
def models():
    return {name: DiffusionHyperprior.from_pretrained(make.CHECKPOINTS / name) for name in make.FILES}


def levels_apart(x, name):
    golden = np.asarray(Image.open(make.FOLDER / f"{name}.png")).astype(int)
    return np.abs(to_pixels(x) - golden).max()


@each_file
def test_the_pictures_are_those_of_the_first_decoder(name, models, in_float32):
    file = bitstream.read((make.FOLDER / f"{name}.dhp").read_bytes())
    bitstream.check_model(file, models[name].model_id)
    for label, settings in make.DECODES.items():
        decoded = models[name].decompress(file.strings, file.shape, **settings)["x_hat"]
        assert levels_apart(decoded, f"{name}_{label}") <= 1, label
    preview = models[name].decompress([[None], [file.z], [file.side]], file.shape, steps=2, seed=3)["x_hat"]
    assert levels_apart(preview, f"{name}_preview") <= 1


@each_file
def test_the_symbols_are_those_that_were_sent(name, models):
    file = bitstream.read((make.FOLDER / f"{name}.dhp").read_bytes())
    decoder_state = decode_latents(models[name], file.strings, file.shape)
    _, z_crc, y_crc = SIDE.unpack(file.side)
    assert z_crc and (y_crc != 0) == (file.transmit == "z+y")
    assert symbol_crc(decoder_state.symbols) == CRC.get(name)


CRC = {
    "diffusion-hyperprior": 3617841069,
    "scenes-codec": 148319640,
    "z-only": 2177667915,
}  # of all symbols of y, in the order of memory
