"""The usual networks, with weights of no worth, against torchmetrics and brute force."""

from __future__ import annotations

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

from dhp_lab.metrics import feature_networks
from dhp_lab.metrics.feature_distances import frechet_distance, kernel_distance
from dhp_lab.metrics.feature_networks import (
    CLIP_FILES,
    alexnet_lpips,
    clip,
    inception,
)
from dhp_lab.metrics.generative import clip_score, fid, inception_score, kid, lpips


def pictures(count, size=40, seed=0):
    return torch.rand(count, 3, size, size, generator=seeded(seed))


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
