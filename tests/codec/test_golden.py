"""Files that earlier versions wrote decode for ever: to the same symbols, and to the same pictures within one
level.
"""

import hashlib
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dhp_lab.codec import DiffusionHyperprior, dhp_file
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


@each_file
def test_the_golden_files_never_change(name):
    digest = hashlib.sha256()
    for path in sorted(make.FOLDER.glob(f"{name}[._]*")):
        digest.update(path.read_bytes())
    assert digest.hexdigest()[:16] == SHA256.get(name)


def test_files_of_a_codec_that_is_no_longer_shipped_are_refused_with_both_names(models):
    old = make.FOLDER / "fef5cbe7e8954d84.dhp"
    assert hashlib.sha256(old.read_bytes()).hexdigest()[:16] == "e2c76a581fd641c9"
    both = "written by model fef5cbe7e8954d84 .* this one is " + models["diffusion-hyperprior"].model_id.hex()
    with pytest.raises(bitstream.BitstreamError, match=both):
        dhp_file.decode(models["diffusion-hyperprior"], old.read_bytes())


CRC = {
    "diffusion-hyperprior": 96779901,
    "scenes-codec": 148319640,
    "z-only": 2177667915,
}  # of all symbols of y, in the order of memory
SHA256 = {
    "diffusion-hyperprior": "9c3a43b84be780f4",
    "scenes-codec": "ed3f4342758f1e7a",
    "z-only": "0c736590a0f9b772",
}  # of the file and its pictures, one after the other; the first 16 digits
