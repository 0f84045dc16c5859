"""Data sets from their authors' sites, resumed and checked.

A file is checked by the sha256 of its content (a picture's RGB bytes, an unpacked IDX file), so that any
lossless copy put there by hand is as good as the original file. ``core.download`` fetches.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from dhp_lab.core.download import CHUNK, DownloadError, fetch
from dhp_lab.core.files import is_disk_error
from dhp_lab.core.paths import data_dir


@dataclass(frozen=True)
class Dataset:
    """Files of one data set.

    Attributes:
        folder: its folder below the folder of data sets.
        url: the address of a file; ``{}`` stands for its name.
        content: (path, size) -> content as bytes, at most size + 1 of them; raises on a damaged file.
        files: name -> (content's length in bytes, sha256 of the content).
    """

    folder: str
    url: str
    content: Callable[[Path, int], bytes]
    files: dict[str, tuple[int, str]]


def _rgb_bytes(path: Path, size: int) -> bytes:
    with Image.open(path) as image:
        fits = image.mode == "RGB" and image.width * image.height * 3 == size
        return image.tobytes() if fits else b""


def _unpacked(path: Path, size: int) -> bytes:
    with gzip.open(path) as stream:
        return stream.read(size + 1)


_KODAK = [
    "a00210743353594464ac67e680a41710f484444ca5f9dfddeb570de25c428273",
    "ae5a495df4ec40e0941265440ccf98973915b4190ab803e37a23ca93dd43a07e",
    "234e61f585503f2a44400f5561131e8a512ef2c15328cd83d5cdbf10e2616cf2",
    "e88e788fca00e6c723bb66ff45edb8cb56091ee284dcb73e3909834f2c96eeb6",
    "ed3d1ee770909d3b27903b52ce19ee59a9bf24621a7bf1fb57b90677da880cb6",
    "7f45158999fa297d1cfbd292b3e2f3f5b27770701c3473155c211c3f512cc97f",
    "4e3664bf6fe865b49f15f7b554efa7dbecaf73ae0e8699f2e307bf07849f1264",
    "889c3740e4ed54ca53d11ae735a44d15fa24fe312b3bd1609a80618a4092c208",
    "f8453140e63a42301a6dbebb849a3cc40d34e4e59580eb1f372f7f5460df0dbe",
    "fabe11b5c4f028394e093a5b5907e5fabc8072da0d5334fb3a38547a7e1be842",
    "ab4dd9bf8431e717d33892b3ba03c63bfea3c7fa72c2610010de7df3c194c075",
    "f412db2168e599949aac26bd3264f111b23a684f30a21cfd320e9e95bc69bbae",
    "875703d56fb9396f478b5d7d3b18e2b77c17147a685c6dc2567e1c574aaf01e3",
    "2bd5029ee75ac1697542e5b05624e8afe186e3250abd7513d6a806b52084c2f0",
    "b5353e7511277009922ecbdebfc6418fec53aa1b2a08d44fc957a7540825697b",
    "ed21745fd32fce95cc2c6af7fc52b1b15e590c7a14ab18ab34bd65ecaf955ac7",
    "566bc866664e9b06dc86e2654051b454844efe17322dbf7e24156d8243f1943e",
    "3475af71066f3ca8206eb12cfc989ebe9c6e44820a96604e88ae018606e1f7bd",
    "7956408ef24222d37ac53f579bd24d5b2c3557b16c657e8b71c1b6ae9f18de1b",
    "666ce8f2db5566a123bb081e70618f6f4c4253df960f3b41bb9dcc3dd134f3cf",
    "2d6902daf7c4486b7c8c04d834091841a2b38c8f0c81cd7a963a6510b34a2a6a",
    "f430842120c108b67725ada96b8b7b2a914f6a0915eacd5595064c6c1a5d70a0",
    "81992a83592267e69125666f3e3e04c1819529b4c4c1e55fde0a6a741bac4219",
    "e3e3ccc3e795b82a3da66934409dfe98ce0f5aadc6d7767543c506453599bb98",
]

DATASETS = {
    # Kodak Lossless True Color Image Suite, free for any use.
    "kodak": Dataset(
        "kodak",
        "https://r0k.us/graphics/kodak/kodak/{}",
        _rgb_bytes,
        {f"kodim{i:02d}.png": (768 * 512 * 3, digest) for i, digest in enumerate(_KODAK, 1)},
    ),
    # Xiao, Rasul, Vollgraf 2017, "Fashion-MNIST: a novel image dataset for benchmarking machine learning",
    # MIT licence.
    "fashion-mnist": Dataset(
        "fashion_mnist",
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/{}",
        _unpacked,
        {
            "train-images-idx3-ubyte.gz": (
                47040016,
                "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            ),
            "train-labels-idx1-ubyte.gz": (
                60008,
                "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            ),
            "t10k-images-idx3-ubyte.gz": (
                7840016,
                "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            ),
            "t10k-labels-idx1-ubyte.gz": (
                10008,
                "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
            ),
        },
    ),
}


def download(
    name: str, *, root: Path | None = None, report: Callable[[str], None] = lambda line: None
) -> Path:
    """Fetch a data set, or find it complete: each file is resumed where it stopped and checked by its
    content's sha256.

    Args:
        name: a key of ``DATASETS``.
        root: the folder of data sets; ``data_dir()`` (DHP_DATA) when None.
        report: called with one line of text for each file.

    Returns:
        The data set's folder.

    Raises:
        ValueError: there is no such data set.
        DownloadError: the site cannot be reached, broke off, or sent something else; or a file found there is
            wrong.
        OSError: the disk's own trouble.
    """
    if name not in DATASETS:
        raise ValueError(f"no data set {name!r}; choose one of {', '.join(DATASETS)}")
    dataset = DATASETS[name]
    folder = (root or data_dir()) / dataset.folder
    folder.mkdir(parents=True, exist_ok=True)
    for number, file in enumerate(dataset.files, 1):
        how = _obtain(dataset, folder / file)
        report(f"{folder / file} ({number} of {len(dataset.files)}) {how}, checked")
    return folder


def _obtain(dataset: Dataset, path: Path) -> str:
    """Check the file at its place, or fetch it beside its place, check it, and move it there."""
    size, expected = dataset.files[path.name]
    if path.exists():
        found = _digest(dataset, path, size)
        if found != expected:
            wrong = _mismatch(path, found, expected)
            raise DownloadError(f"{wrong}; move it away and run the download again")
        return "was there"
    part = path.with_name(f"{path.name}.part")
    url = dataset.url.format(path.name)
    try:
        fetch(url, part, limit=size + CHUNK)
    except DownloadError as error:
        first, *_, last = dataset.files
        raise DownloadError(
            f"{error}; or copy {first} .. {last} by hand to {path.parent}, "
            f"or point DHP_DATA at the folder that holds {dataset.folder}/"
        ) from None
    found = _digest(dataset, part, size)
    if found != expected:
        part.unlink()
        wrong = _mismatch(url, found, expected)
        raise DownloadError(f"{wrong}; what came was removed, run the download again")
    os.replace(part, path)
    return "fetched"


def _mismatch(where: Path | str, found: str, expected: str) -> str:
    return f"{where} is not the original: the sha256 of its content is {found}, expected {expected}"


def _digest(dataset: Dataset, path: Path, size: int) -> str:
    """sha256 of a file's content, or, if the file is damaged, why there is none."""
    try:
        content = dataset.content(path, size)
    except (OSError, EOFError, SyntaxError, zlib.error) as error:
        if is_disk_error(error):
            raise
        return f"none ({error})"
    return hashlib.sha256(content).hexdigest()
