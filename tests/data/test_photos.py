"""The photos that packages bring, as pictures to measure codecs on."""

from pathlib import Path

import numpy as np
import pytest
import skimage

from dhp_lab.data.images import save_image, to_pixels
from dhp_lab.data.photos import OFFLINE, PHOTOS, load_photo, offline_photos
from dhp_lab.evaluation.evaluate import pictures_of


def test_they_are_the_middles_of_the_files():
    found = dict(offline_photos(64))
    assert tuple(found) == PHOTOS
    for name, x in found.items():
        assert x.shape == (1, 3, 64, 64), name
    coffee = skimage.data.coffee()[(400 - 64) // 2 :, (600 - 64) // 2 :][:64, :64]
    assert np.array_equal(to_pixels(found["coffee"]), coffee)


def test_another_name_is_an_error():
    with pytest.raises(ValueError, match="there is no photo 'lena'; choose one of astronaut, "):
        load_photo("lena")


def test_their_name_is_a_data_path_unless_a_folder_has_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert [name for name, _ in pictures_of(Path(OFFLINE), [], str)] == list(PHOTOS)
    (tmp_path / OFFLINE).mkdir()
    save_image(load_photo("coffee", 64), tmp_path / OFFLINE / "mine.png")
    assert [name for name, _ in pictures_of(Path(OFFLINE), [], str)] == ["mine.png"]
    with pytest.raises(ValueError, match="missing is not a folder"):
        pictures_of(Path("missing"), [], str)
