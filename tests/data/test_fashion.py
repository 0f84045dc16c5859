"""The pictures of Fashion-MNIST: what they must be, how they are packed, and files that are not they."""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from dhp_lab.data import fashion as module
from dhp_lab.data.fashion import CLASSES, FILE, NAMES, FashionError, load_fashion, round_to_levels


def pixel_sets(*parts: torch.Tensor) -> list[set[bytes]]:
    return [{bytes(x) for x in (127.5 * (p + 1)).round().byte().flatten(1).numpy()} for p in parts]


def test_the_pictures_have_the_range_of_bytes_and_each_class_equally_often():
    fashion = load_fashion()
    assert fashion.train.shape == (10_000, 1, 28, 28) and fashion.test.shape == (2_000, 1, 28, 28)
    for pictures, labels, count in (
        (fashion.train, fashion.train_labels, 1000),
        (fashion.test, fashion.test_labels, 200),
    ):
        assert pictures.dtype == torch.float32 and labels.shape == pictures.shape[:1]
        assert pictures.min() == -1 and pictures.max() == 1 and len(pictures.unique()) == 256
        assert labels.bincount().tolist() == [count] * CLASSES
        assert torch.equal(round_to_levels(pictures), pictures)
    assert len(fashion.names) == CLASSES and fashion.names[9] == "ankle boot"


def test_no_picture_is_held_out_and_trained_on_and_none_comes_twice():
    train, test = pixel_sets(load_fashion().train, load_fashion().test)
    assert (len(train), len(test), len(train & test)) == (10_000, 2_000, 0)


def test_the_classes_are_what_their_names_say():
    """Shapes that the mean pictures must show: where each class has light, and where it has none."""
    fashion = load_fashion()
    pictures = (fashion.test + 1) / 2
    mean = {
        name: pictures[fashion.test_labels == number].mean(0)[0] for number, name in enumerate(NAMES)
    }  # (28, 28) each
    gap = {name: value[18:27, 13:15].mean() / value[18:27, 8:20].mean() for name, value in mean.items()}
    assert min(gap, key=gap.get) == "trousers", "between the legs it is dark"
    sleeves = {name: value[12:24, [3, 4, 23, 24]].mean().item() for name, value in mean.items()}
    assert min(sleeves["pullover"], sleeves["coat"]) > 2 * max(sleeves["dress"], sleeves["trousers"])
    top = {name: value[:8].mean().item() for name, value in mean.items()}
    assert sorted(top, key=top.get)[:2] in (["sandal", "sneaker"], ["sneaker", "sandal"])
    shaft = {
        name: (value[4:10, 14:22].mean() - value[4:10, 2:10].mean()).item() for name, value in mean.items()
    }
    assert max(shaft, key=shaft.get) == "ankle boot", "its shaft stands on the right, its toe on the left"


def test_rounding_leaves_256_levels():
    x = torch.linspace(-3, 3, 9999)
    levels = round_to_levels(x)
    assert len(levels.unique()) == 256 and (levels - x.clamp(-1, 1)).abs().max() <= 1 / 255 + 1e-6


def test_a_caller_that_changes_its_pictures_changes_nobody_elses():
    first = load_fashion()
    expected = first.test.clone()
    first.test.mul_(0)
    first.test_labels.fill_(3)
    assert torch.equal(load_fashion().test, expected) and len(load_fashion().test_labels.unique()) == CLASSES


# the file


def test_the_script_takes_the_first_of_each_class_and_the_loader_reads_what_it_wrote(tmp_path, monkeypatch):
    """Four small IDX files, 3 and 2 pictures of each class wanted; the oracle picks them one by one."""
    monkeypatch.setattr(module, "TRAIN", 30)
    monkeypatch.setattr(module, "TEST", 20)
    monkeypatch.setattr(module, "COLUMNS", 10)
    monkeypatch.setattr(module, "ROWS", 5)
    monkeypatch.setattr(module, "FILE", tmp_path / "pictures.png")
    numbers, wanted = np.random.default_rng(0), {}
    for part, count in (("train", 3), ("t10k", 2)):
        labels = numbers.permutation(np.repeat(np.arange(10), 4)).astype(np.uint8)
        images = numbers.integers(0, 256, (40, 28, 28), dtype=np.uint8)
        head = [2051, 40, 28, 28], [2049, 40]
        for kind, values, ints in (("images-idx3", images, head[0]), ("labels-idx1", labels, head[1])):
            data = b"".join(number.to_bytes(4, "big") for number in ints) + values.tobytes()
            (tmp_path / f"{part}-{kind}-ubyte.gz").write_bytes(gzip.compress(data))
        wanted[part] = [
            images[[i for i in range(40) if labels[i] == number][k]]
            for number in range(10)
            for k in range(count)
        ]
    spec = importlib.util.spec_from_file_location("make_fashion", FILE.parent / "make.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    monkeypatch.setattr(sys, "argv", ["make.py", "--source", str(tmp_path), "--output", str(module.FILE)])
    script.main()
    pixels = np.array(wanted["train"] + wanted["t10k"])
    with Image.open(module.FILE) as image:
        monkeypatch.setattr(module, "SHA256", hashlib.sha256(image.tobytes()).hexdigest())
    found = load_fashion()
    both = torch.cat([found.train, found.test])[:, 0]
    assert (127.5 * (both.double() + 1) - torch.from_numpy(pixels)).abs().max() < 1e-4
    assert found.train_labels.tolist() == [i // 3 for i in range(30)]
    assert found.test_labels.tolist() == [i // 2 for i in range(20)]


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda path: path.unlink(), r"are not at .*pictures.png: take it .*git checkout data/fashion_mnist"),
        (lambda path: path.write_bytes(b"no picture"), "cannot be read: cannot identify image file.*take it"),
        (lambda path: path.write_bytes(FILE.read_bytes()[:100_000]), "cannot be read.*take it"),
        (lambda path: Image.new("L", (2800, 3360)).save(path), "does not hold the pictures.*take it"),
        (lambda path: Image.new("RGB", (28, 28)).save(path), "does not hold the pictures.*take it"),
    ],
)
def test_another_file_is_refused_in_one_line(tmp_path, monkeypatch, spoil, message):
    path = tmp_path / "pictures.png"
    path.touch()
    spoil(path)
    monkeypatch.setattr(module, "FILE", path)
    with pytest.raises(FashionError, match=message) as caught:
        load_fashion()
    assert "\n" not in str(caught.value)
