"""The networks that generative models are usually measured with, and where their weights lie.

| function          | returns          | weights                                   | source              |
|-------------------|------------------|-------------------------------------------|---------------------|
| ``inception``     | features, logits | weights-inception-2015-12-05-6726825d.pth | Heusel et al. 2017  |
| ``alexnet_lpips`` | distances        | alexnet-owt-7be5be79.pth                  | Zhang et al. 2018   |
| ``clip``          | embeddings       | clip-vit-large-patch14/                   | Radford et al. 2021 |

The files have 91 MiB, 233 MiB and 1.6 GiB. One that is not there is fetched from its authors' site once,
resumed if need be: the first two to torch's folder of weights (``torch.hub.get_dir()``, TORCH_HOME moves it),
CLIP's to the folder of data sets (DHP_DATA). With HF_HUB_OFFLINE set nothing is fetched. The networks are
torch-fidelity's, torchmetrics' and transformers', each loaded once in a process and moved to the device of
its input. A file is used once its sha256 is that of ``ORIGINALS``. CLIP's weights are safetensors; of the
other two torch finds out first that they hold tensors alone, no code.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dhp_lab.core.download import DownloadError, fetch, sha256_of
from dhp_lab.core.paths import data_dir
from dhp_lab.metrics import network_files, perceptual
from dhp_lab.metrics.pixels import round_to_8_bits

TRUE_VALUES = ("1", "true", "yes", "on")  # of HF_HUB_OFFLINE, as huggingface_hub reads it
SMALLEST_SIDE = 31  # below it AlexNet's second pooling has nothing left to pool
CLIP_FOLDER = "clip-vit-large-patch14"
CLIP_URL = f"https://huggingface.co/openai/{CLIP_FOLDER}/resolve/32bd64288804d66eefd0ccbe215aa642df71cc41/"


class Original(NamedTuple):
    """What a file must be: its sha256, and the most bytes that are fetched."""

    sha256: str
    limit: int


ORIGINALS = {
    "weights-inception-2015-12-05-6726825d.pth": Original(
        "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2", 96_000_000
    ),
    "alexnet-owt-7be5be79.pth": Original(
        "7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02", 245_000_000
    ),
    # CLIP's
    "config.json": Original("8a09b467700c58138c29d53c605b34ebc69beaadd13274a8a2af8ad2c2f4032a", 100_000),
    "preprocessor_config.json": Original(
        "910e70b3956ac9879ebc90b22fb3bc8a75b6a0677814500101a4c072bd7857bd", 100_000
    ),
    "tokenizer_config.json": Original(
        "deef455e52fa5e8151e339add0582e4235f066009601360999d3a9cda83b1129", 100_000
    ),
    "tokenizer.json": Original(
        "a83e0809aa4c3af7208b2df632a7a69668c6d48775b3c3fe4e1b1199d1f8b8f4", 10_000_000
    ),
    "model.safetensors": Original(
        "a2bf730a0c7debf160f7a6b50b3aaf3703e7e88ac73de7a314903141db026dcb", 1_711_000_000
    ),
}
CLIP_FILES = tuple(ORIGINALS)[2:]


def obtain(url: str, folder: Path, original: Original, *, beside: Sequence[str] = ()) -> Path:
    """Return the path of a file in a folder, fetched if it is not there.

    Args:
        url: its address.
        folder: where it lies, or will; made if need be.
        original: what it must be.
        beside: names of other files of that site that are missing too, for the error message.

    Raises:
        DownloadError: it is not there and cannot be fetched, or is not the original; the message names the
            file and what to do. A site that does not answer is given ``download.TIMEOUT`` seconds.
    """
    path = folder / url.rpartition("/")[2]
    if path.exists():
        wrong = _mismatch(path, original)
        if wrong:
            raise DownloadError(f"{path} {wrong}; move it away, and it is fetched again")
        return path
    part = path.with_name(f"{path.name}.part")
    try:
        if os.environ.get("HF_HUB_OFFLINE", "").lower() in TRUE_VALUES:
            raise DownloadError("HF_HUB_OFFLINE is set, nothing is fetched")
        folder.mkdir(parents=True, exist_ok=True)
        fetch(url, part, limit=original.limit)
        wrong = _mismatch(part, original)
        if wrong:
            part.unlink()
            raise DownloadError(f"what {url} sent {wrong}, and was removed")
    except DownloadError as error:
        by_hand = f"lay {', '.join([url, *beside])} into {folder} by hand"
        raise DownloadError(
            f"{path} is missing: {error}; or {by_hand}, or give a network of your own"
        ) from None
    os.replace(part, path)
    return path


def _mismatch(path: Path, original: Original) -> str | None:
    """What is wrong with a file that is not the original."""
    found = sha256_of(path)
    if found == original.sha256:
        return None
    return f"is not the original: its sha256 is {found}, not {original.sha256}"


def _obtain_tensors(url: str) -> Path:
    """A file of weights in torch's folder that holds tensors and nothing else."""
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    path = obtain(url, folder, ORIGINALS[url.rpartition("/")[2]])
    # Raises if the file holds code; the libraries that open it later would run it.
    torch.hub.load_state_dict_from_url(url, str(folder), map_location="cpu", weights_only=True)
    return path


@lru_cache(maxsize=1)
def _inception_network() -> nn.Module:
    from torch_fidelity.feature_extractor_inceptionv3 import (
        URL_INCEPTION_V3,
        FeatureExtractorInceptionV3,
    )

    path = str(_obtain_tensors(URL_INCEPTION_V3))
    outputs = ["2048", "logits_unbiased"]
    return FeatureExtractorInceptionV3("inception-v3-compat", outputs, feature_extractor_weights_path=path)


@torch.no_grad()
def inception(pictures: Tensor) -> tuple[Tensor, Tensor]:
    """The Inception network of the first FID, by torch-fidelity; pictures are resized as TensorFlow 1 did it.

    Args:
        pictures: (B, 3, H, W) in [0, 1], rounded to 8 bits.

    Returns:
        (B, 2048) the features before the last layer, and (B, 1008) the logits of its classes, without their
        bias.

    Raises:
        DownloadError: the weights are missing and cannot be had.
    """
    network = _inception_network().to(pictures.device)
    return network(_bytes(pictures))


@lru_cache(maxsize=1)
def _alexnet() -> nn.Module:
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity
    from torchvision.models import AlexNet_Weights

    _obtain_tensors(AlexNet_Weights.DEFAULT.url)
    return LearnedPerceptualImagePatchSimilarity("alex", normalize=True).net


@torch.no_grad()
def alexnet_lpips(a: Tensor, b: Tensor) -> Tensor:
    """LPIPS of each pair, version 0.1 on AlexNet, by torchmetrics (Zhang et al. 2018, eq. 1).

    Where torchvision's file is missing and `dhp download metric-networks` was called, by `perceptual.LPIPS`.

    Args:
        a, b: (B, 3, H, W) pictures in [0, 1], H and W at least 31.

    Returns:
        (B,) distances, 0 for equal pictures.

    Raises:
        ValueError: a side below 31 pixels.
        DownloadError: the weights are missing and cannot be had.
    """
    if min(a.shape[-2:]) < SMALLEST_SIDE:
        raise ValueError(
            f"LPIPS on AlexNet needs pictures of at least {SMALLEST_SIDE} x {SMALLEST_SIDE} pixels, got "
            f"{a.shape[-2]} x {a.shape[-1]}; enlarge both alike, or give a network of your own"
        )
    if network_files.is_there("lpips-alexnet") and not network_files.usual_path("lpips-alexnet").exists():
        return perceptual.lpips_network("alexnet").to(a.device)(a.float(), b.float())
    try:
        network = _alexnet().to(a.device)
    except DownloadError as error:
        raise DownloadError(f"{error}; or run `{network_files.COMMAND}`") from None
    return network(a.float(), b.float(), normalize=True).flatten()  # (B, 1, 1, 1) -> (B,)


@lru_cache(maxsize=1)
def _clip_parts() -> tuple:
    folder = data_dir() / CLIP_FOLDER
    missing = [name for name in CLIP_FILES if not (folder / name).exists()]
    for name in CLIP_FILES:
        later = missing[missing.index(name) + 1 :] if name in missing else ()
        obtain(CLIP_URL + name, folder, ORIGINALS[name], beside=later)
    from transformers import CLIPImageProcessor, CLIPModel, CLIPTokenizer

    model = CLIPModel.from_pretrained(folder, local_files_only=True, use_safetensors=True).eval()
    processor = CLIPImageProcessor.from_pretrained(folder, local_files_only=True)
    tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    return model, processor, tokenizer


@torch.no_grad()
def clip(pictures: Tensor, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Embed pictures and captions in the common space of CLIP ViT-L/14, by transformers.

    Args:
        pictures: (B, 3, H, W) in [0, 1], rounded to 8 bits and resized to the network's 224 pixels.
        captions: B sentences, each truncated to 77 tokens.

    Returns:
        (B, 768) for the pictures and (B, 768) for the captions, not normalised.

    Raises:
        DownloadError: the weights are missing and cannot be had.
    """
    model, processor, tokenizer = _clip_parts()
    model = model.to(pictures.device)
    pixels = processor(images=list(_bytes(pictures)), return_tensors="pt").to(pictures.device)
    tokens = tokenizer(
        list(captions),
        padding=True,
        truncation=True,
        max_length=model.config.text_config.max_position_embeddings,
        return_tensors="pt",
    ).to(pictures.device)
    picture_embeddings = model.get_image_features(**pixels).pooler_output
    caption_embeddings = model.get_text_features(**tokens).pooler_output
    return picture_embeddings, caption_embeddings


def _bytes(pictures: Tensor) -> Tensor:
    """[0, 1] -> uint8, as an 8-bit file would hold it."""
    return (255 * round_to_8_bits(pictures)).round().to(torch.uint8)
