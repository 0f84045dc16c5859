"""Measures of generated pictures through the first stage's own encoder, in the place of larger networks.

| function or class  | in the place of                                                                     |
|--------------------|-------------------------------------------------------------------------------------|
| `encoder_layers`   | LPIPS's AlexNet: the encoder's maps at each of its sizes                            |
| `encoder_features` | FID's Inception: means and standard deviations of the last maps, a vector a picture |
| `WordPredictor`    | CLIP: picture and caption in one space, but linearly                                |
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from dhp_lab.data.scenes import WORDS, batch, parse

CHUNK = 64  # pictures that the encoder is evaluated on at once


@torch.no_grad()
def encoder_layers(vae: AutoencoderKL, x: Tensor) -> list[Tensor]:
    """The maps (B, C, h, w) after each size of the encoder, large ones first, for pictures (B, 3, H, W) in
    [0, 1].
    """
    layers = [vae.encoder.conv_in(2 * x.to(vae.device) - 1)]
    for block in (*vae.encoder.down_blocks, vae.encoder.mid_block):
        layers.append(block(layers[-1]))
    return layers[1:]


def encoder_features(vae: AutoencoderKL, x: Tensor) -> Tensor:
    """Mean and standard deviation over the places of each of the encoder's last maps.

    Args:
        x: (B, 3, H, W) in [0, 1].

    Returns:
        (B, 2 C) on the CPU.
    """
    maps = [encoder_layers(vae, part)[-1].flatten(2).cpu() for part in x.split(CHUNK)]
    last = torch.cat(maps)  # (B, C, h w)
    return torch.cat([last.mean(2), last.std(2)], dim=1)


class WordPredictor:
    """Pictures and captions as vectors over the grammar's words: the words of a caption, and those that ridge
    regression on ``encoder_features`` predicts for a picture.

    Args:
        vae: whose encoder gives the features.
        count, seed: of the captioned scenes to fit.
        penalty: above 0, as a fraction of the features' mean power.
    """

    def __init__(
        self, vae: AutoencoderKL, *, count: int = 1500, seed: int = 2000, penalty: float = 1e-3
    ) -> None:
        pictures, captions = batch(count, seed)
        features = encoder_features(vae, pictures).double()
        words = torch.stack([self.words(caption) for caption in captions])
        self.vae = vae
        self.mean_features = features.mean(0)
        self.mean_words = words.mean(0)
        a, b = features - self.mean_features, words - self.mean_words
        power = a.T @ a
        ridge = penalty * power.diagonal().mean() * torch.eye(len(power))
        self.weights = torch.linalg.solve(power + ridge, a.T @ b)

    @staticmethod
    def words(caption: str) -> Tensor:
        """(18,) how often each of ``WORDS`` stands in a caption.

        Raises:
            ValueError: a caption outside the grammar.
        """
        parse(caption)
        return torch.tensor([caption.lower().split().count(word) for word in WORDS], dtype=torch.float64)

    def __call__(self, x: Tensor, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        """(B, 18) for pictures (B, 3, 64, 64) in [0, 1], and (B, 18) for captions, both minus the mean."""
        predicted = (encoder_features(self.vae, x).double() - self.mean_features) @ self.weights
        return predicted, torch.stack([self.words(caption) for caption in captions]) - self.mean_words
