"""The usual networks, with weights of no worth, against torchmetrics and brute force; and their weights where
they are missing.
"""

from __future__ import annotations

import hashlib
import http.server
import re
import socket
import threading
import time
from functools import partial
from pathlib import Path

import pytest
import torch
import torchmetrics
import torchvision
from oracles import largest, seeded
from torch.nn.functional import cosine_similarity
from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3, FeatureExtractorInceptionV3
from torchmetrics.functional.multimodal.clip_score import _clip_score_update as torchmetrics_update
from torchmetrics.image.fid import NoTrainInceptionV3

from dhp_lab.core import download
from dhp_lab.core.download import DownloadError
from dhp_lab.metrics import feature_networks
from dhp_lab.metrics.feature_distances import frechet_distance, kernel_distance
from dhp_lab.metrics.feature_networks import (
    CLIP_FILES,
    ORIGINALS,
    Original,
    alexnet_lpips,
    clip,
    inception,
    obtain,
)
from dhp_lab.metrics.generative import clip_score, fid, improved_precision_recall, inception_score, kid, lpips


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Empty folders for weights, and no network loaded before or after."""
    caches = (feature_networks._inception_network, feature_networks._alexnet, feature_networks._clip_parts)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("DHP_DATA", str(tmp_path / "data"))
    for cache in caches:
        cache.cache_clear()
    yield tmp_path / "hub" / "checkpoints"
    for cache in caches:
        cache.cache_clear()


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A site on this machine that serves the folder ``site``; yields the folder and its address."""
    folder = tmp_path / "site"
    folder.mkdir()
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=folder)
    monkeypatch.setattr(http.server.SimpleHTTPRequestHandler, "log_message", lambda *args: None)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(download, "SCHEME", "http://")  # this machine's own sites have no certificate
    yield folder, f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


def pictures(count, size=40, seed=0):
    return torch.rand(count, 3, size, size, generator=seeded(seed))


def named(data):
    return f"some-weights-{hashlib.sha256(data).hexdigest()[:8]}.pth"


def original(data, limit=100_000):
    return Original(hashlib.sha256(data).hexdigest(), limit)


# the networks


@pytest.mark.slow
def test_inception_is_that_of_torchmetrics(hub, monkeypatch):
    """With random weights, in the place and under the name that the real ones have."""
    hub.mkdir(parents=True)
    path = hub / URL_INCEPTION_V3.rpartition("/")[2]
    torch.save({}, path)
    with monkeypatch.context() as patch:
        patch.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda self, weights: None)
        random = FeatureExtractorInceptionV3(
            "inception-v3-compat", ["2048"], feature_extractor_weights_path=path
        )
    weights = random.state_dict()
    weights |= {
        name: value / 6 for name, value in weights.items() if name.endswith("running_var")
    }  # keeps each layer's size
    torch.save(weights, path)
    monkeypatch.setattr(feature_networks, "_mismatch", lambda path, original: None)
    x = pictures(4)
    features, logits = inception(x)
    theirs = NoTrainInceptionV3("inception-v3-compat", ["2048"], str(path), antialias=False)
    expected = theirs((255 * x).round().byte())
    assert features.shape == (4, 2048) and largest(features - expected) < 1e-5 * expected.std()
    assert logits.shape == (4, 1008) and largest(logits - expected @ random.fc.weight.T) < 1e-5 * logits.std()
    halves = kernel_distance(features[:2], features[2:], subsets=1, subset_size=2)
    assert kid(x[:2], x[2:], subsets=1, subset_size=2) == pytest.approx(halves, rel=1e-4)
    p = logits.double().softmax(1)
    score = (p * (p / p.mean(0)).log()).sum(1).mean().exp().item()
    assert inception_score(x, splits=1) == pytest.approx((score, 0), rel=1e-6)


def test_fid_looks_through_inception(monkeypatch):
    monkeypatch.setattr(feature_networks, "inception", lambda x: (x.mean((2, 3)), None))
    x, y = pictures(9), pictures(9, seed=1)
    assert fid(x, y) == pytest.approx(frechet_distance(x.mean((2, 3)), y.mean((2, 3))), rel=1e-6)


@pytest.mark.slow
def test_lpips_is_its_equation_on_alexnet(hub, monkeypatch):
    """With random weights in AlexNet, and the layers' weights that torchmetrics ships."""
    hub.mkdir(parents=True)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = torchvision.models.alexnet().features.eval()
    weights = {f"features.{name}": value for name, value in layers.state_dict().items()}
    for name, shape in {
        "1": (4096, 9216),
        "4": (4096, 4096),
        "6": (1000, 4096),
    }.items():  # zeros that take no room
        weights |= {
            f"classifier.{name}.weight": torch.zeros(1, 1).expand(shape),
            f"classifier.{name}.bias": torch.zeros(shape[0]),
        }
    torch.save(weights, hub / torchvision.models.AlexNet_Weights.DEFAULT.url.rpartition("/")[2])
    monkeypatch.setattr(feature_networks, "_mismatch", lambda path, original: None)

    a, b = pictures(3, 40), pictures(3, 40, seed=1)
    shipped = Path(torchmetrics.__file__).parent / "functional/image/lpips_models/alex.pth"
    shares = list(torch.load(shipped, map_location="cpu", weights_only=True).values())
    mean, deviation = (
        torch.tensor([0.485, 0.456, 0.406]),
        torch.tensor([0.229, 0.224, 0.225]),
    )  # of ImageNet's pixels
    x, y = (((picture - mean[:, None, None]) / deviation[:, None, None]) for picture in (a, b))
    expected = torch.zeros(3)
    for number, layer in enumerate(layers[:12]):
        x, y = layer(x), layer(y)
        if number in (1, 4, 7, 9, 11):
            gap = (
                x / (x.square().sum(1, keepdim=True) + 1e-8).sqrt()
                - y / (y.square().sum(1, keepdim=True) + 1e-8).sqrt()
            )
            expected += (shares.pop(0) * gap.square()).sum(1).mean((1, 2))
    assert shares == [] and largest(lpips(a, b) - expected) < 1e-5 * expected.min()
    assert largest(lpips(a, b) - alexnet_lpips(a, b)) == 0 and largest(lpips(a, a)) == 0
    assert lpips(a[..., :31, :31], b[..., :31, :31]).min() > 0, "the smallest pictures"
    with pytest.raises(ValueError, match="at least 31 x 31 pixels, got 40 x 30"):
        lpips(a[..., :30], b[..., :30])


@pytest.mark.slow
def test_clip_score_is_that_of_torchmetrics(hub, tmp_path, monkeypatch):
    """A small CLIP of random weights, saved as the real one is."""
    monkeypatch.setattr(feature_networks, "_mismatch", lambda path, original: None)
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTokenizer

    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    words = {
        "vocab_size": 30,
        "max_position_embeddings": 12,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 1,
    }
    config = CLIPConfig(
        text_config=sizes | words, vision_config=sizes | {"image_size": 32, "patch_size": 8}, projection_dim=8
    )
    letters = {
        name: i
        for i, name in enumerate(["<|startoftext|>", "<|endoftext|>", *(f"{c}</w>" for c in "abcdefgh")])
    }
    look = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=32)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        parts = (CLIPModel(config).eval(), look, CLIPTokenizer(letters, []))
    for part in parts:
        part.save_pretrained(tmp_path / "data/clip-vit-large-patch14")
    for file in (tmp_path / "data/clip-vit-large-patch14").iterdir():
        if file.name not in CLIP_FILES:
            file.unlink()
    x, captions = pictures(4, 48), ["a b c", "d", "a a h g f e", "b"]
    seen, read = clip(x, captions)
    assert seen.shape == read.shape == (4, 8) and clip(x, ["a " * 99] * 4)[1].shape == (4, 8), (
        "a long caption is cut"
    )

    class Old:
        """As transformers 4 answered."""

        config = parts[0].config

        def to(self, device):
            return self

        def get_image_features(self, *args):
            return parts[0].get_image_features(*args).pooler_output

        def get_text_features(self, *args):
            return parts[0].get_text_features(*args).pooler_output

    def processor(images=None, text=None, return_tensors=None, padding=None):
        return (
            parts[2](text, return_tensors="pt", padding=True)
            if images is None
            else parts[1](images, return_tensors="pt")
        )

    expected, _ = torchmetrics_update(list((255 * x).round().byte()), captions, Old(), processor)
    assert (
        expected.min() < 0 < expected.max() and largest(100 * cosine_similarity(seen, read) - expected) < 1e-4
    )
    assert largest(clip_score(x, captions) - expected.clamp(min=0)) < 1e-4


# their weights


@pytest.mark.parametrize(
    "call, file, address",
    [
        (
            lambda x: fid(x, x),
            "hub/checkpoints/weights-inception-2015-12-05-6726825d.pth",
            "https://github.com/toshas/torch-fidelity",
        ),
        (
            lambda x: kid(x, x),
            "hub/checkpoints/weights-inception-2015-12-05-6726825d.pth",
            "https://github.com/toshas/torch-fidelity",
        ),
        (
            lambda x: improved_precision_recall(x, x),
            "hub/checkpoints/weights-inception-",
            "https://github.com/toshas",
        ),
        (
            lambda x: inception_score(x, splits=1),
            "hub/checkpoints/weights-inception-",
            "https://github.com/toshas",
        ),
        (
            lambda x: lpips(x, x),
            "hub/checkpoints/alexnet-owt-7be5be79.pth",
            "https://download.pytorch.org/models/alexnet",
        ),
        (
            lambda x: clip_score(x, ["a", "b"]),
            "data/clip-vit-large-patch14/config.json",
            "https://huggingface.co/openai/clip-vit",
        ),
    ],
    ids=["fid", "kid", "precision", "inception_score", "lpips", "clip"],
)
def test_offline_a_missing_file_is_named_with_its_place_and_address(hub, tmp_path, call, file, address):
    with pytest.raises(DownloadError) as error:
        call(pictures(2))
    text = str(error.value)
    assert (
        text.startswith(f"{tmp_path}/{file}") and f"lay {address}" in text and "network of your own" in text
    )
    assert f" into {(tmp_path / file).parent} by hand" in text and "\n" not in text
    assert "is missing: HF_HUB_OFFLINE is set, nothing is fetched" in text


def test_every_original_has_a_digest_and_what_its_name_says_of_it():
    for name, (sha256, limit) in ORIGINALS.items():
        assert re.fullmatch("[0-9a-f]{64}", sha256) and 0 < limit < 2**31
        if name.endswith(".pth"):  # the authors' name ends in the first digits
            assert name.removesuffix(".pth").endswith(f"-{sha256[:8]}")
    assert set(CLIP_FILES) == {name for name in ORIGINALS if not name.endswith(".pth")}


def test_another_clip_is_not_used(hub, tmp_path):
    folder = tmp_path / "data/clip-vit-large-patch14"
    folder.mkdir(parents=True)
    (folder / CLIP_FILES[0]).write_text("{}")
    with pytest.raises(DownloadError, match=rf"{CLIP_FILES[0]} is not the original: its sha256 is 44136fa3"):
        clip(pictures(1), ["a"])


def test_of_several_missing_files_all_are_named(hub, tmp_path, monkeypatch):
    empty = {CLIP_FILES[i]: original(b"") for i in (0, 2)}
    monkeypatch.setattr(feature_networks, "ORIGINALS", ORIGINALS | empty)
    folder = tmp_path / "data/clip-vit-large-patch14"
    folder.mkdir(parents=True)
    (folder / CLIP_FILES[0]).touch()
    (folder / CLIP_FILES[2]).touch()
    with pytest.raises(DownloadError) as error:
        clip(pictures(1), ["a"])
    assert str(error.value).startswith(str(folder / CLIP_FILES[1]))
    assert f"/{CLIP_FILES[1]}, {CLIP_FILES[3]}, {CLIP_FILES[4]} into {folder} by hand" in str(error.value)


def test_a_site_that_cannot_be_reached_is_one_clear_error(tmp_path, site):
    with pytest.raises(
        DownloadError,
        match=rf"^{tmp_path}/a/b.bin is missing: cannot reach http://127.0.0.1:9/b.bin \(.*refused",
    ):
        obtain("http://127.0.0.1:9/b.bin", tmp_path / "a", original(b""))
    with pytest.raises(DownloadError, match=r"b.bin is missing: http://127.*: the site answers 404"):
        obtain(f"{site[1]}b.bin", tmp_path / "a", original(b""))


def test_a_site_that_never_answers_is_not_waited_for(tmp_path, site, monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        start = time.monotonic()
        with pytest.raises(
            DownloadError, match=r"b.bin is missing: cannot reach http://127\S+/b.bin \(timed out\)"
        ):
            obtain(f"http://127.0.0.1:{silent.getsockname()[1]}/b.bin", tmp_path, original(b""))
        assert 0.2 <= time.monotonic() - start < 5


def test_a_missing_file_is_fetched_once_and_checked_by_its_sha256(tmp_path, site):
    data = b"weights" * 999
    (site[0] / "a.pth").write_bytes(data)
    path = obtain(f"{site[1]}a.pth", tmp_path / "new", original(data))
    assert path == tmp_path / "new" / "a.pth" and path.read_bytes() == data
    (site[0] / "a.pth").unlink()
    assert obtain(f"{site[1]}a.pth", tmp_path / "new", original(data)) == path, "it is not fetched again"

    (site[0] / "b.pth").write_bytes(data)
    with pytest.raises(DownloadError, match="sent is not the original: its sha256 is .*, and was removed"):
        obtain(f"{site[1]}b.pth", tmp_path / "new", original(b"other"))
    with pytest.raises(DownloadError, match="would have 6993 bytes, at most 6992 are expected"):
        obtain(f"{site[1]}b.pth", tmp_path / "new", original(data, limit=6992))
    assert list((tmp_path / "new").iterdir()) == [path], "nothing is left of it"
    path.write_bytes(data[:-1])
    with pytest.raises(
        DownloadError, match=rf"{path} is not the original: .*; move it away, and it is fetched again"
    ):
        obtain(f"{site[1]}a.pth", tmp_path / "new", original(data))


class Trap:
    """What pickle would carry out on loading."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_code_in_a_file_of_weights_is_not_run(hub, tmp_path, monkeypatch):
    hub.mkdir(parents=True)
    torch.save({"weight": torch.zeros(2), "trap": Trap(tmp_path / "sprung")}, tmp_path / "trap")
    name = named((tmp_path / "trap").read_bytes())
    monkeypatch.setitem(ORIGINALS, name, original((tmp_path / "trap").read_bytes()))
    (tmp_path / "trap").rename(hub / name)
    with pytest.raises(Exception, match="Weights only load failed"):
        feature_networks._obtain_tensors(f"https://example.com/{name}")
    assert not (tmp_path / "sprung").exists()
    torch.load(hub / name, weights_only=False)
    assert (tmp_path / "sprung").exists(), "the trap works"
