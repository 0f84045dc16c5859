"""A small checkpoint, a picture, and the file that the program makes of both."""

import numpy as np
import pytest
from PIL import Image
from programs import dhp, small_checkpoint


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    return small_checkpoint(tmp_path_factory.mktemp("small_model"), 0)


@pytest.fixture(scope="session")
def picture(tmp_path_factory):
    rows, columns = np.mgrid[0:40, 0:56]
    pixels = np.stack([rows * 6, columns * 4, 128 + 60 * np.sin(rows / 3) * np.cos(columns / 5)], -1).astype(
        np.uint8
    )
    path = tmp_path_factory.mktemp("picture") / "photo.png"
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture(scope="session")
def coded(tmp_path_factory, checkpoint, picture):
    path = tmp_path_factory.mktemp("coded") / "photo.dhp"
    result = dhp("compress", picture, path, "--model_path", checkpoint, "--device", "cpu")
    assert result.exit_code == 0, result.stderr
    return path
