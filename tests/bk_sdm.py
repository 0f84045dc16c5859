"""A random pipeline in BK-SDM's own layout, and codecs around it, that several tests share."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    PNDMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from dhp_lab.codec import DiffusionHyperprior, create_bk_sdm_compression_model

N, M = 8, 12
# the U-Net of BK-SDM-Small as its authors publish it, a sixty-fourth as wide; the VAE and text encoder of
# Stable Diffusion 1.4 likewise
UNET = {
    "act_fn": "silu",
    "attention_head_dim": 8,
    "block_out_channels": (8, 16, 16, 16),
    "center_input_sample": False,
    "cross_attention_dim": 16,
    "down_block_types": (*3 * ("CrossAttnDownBlock2D",), "DownBlock2D"),
    "downsample_padding": 1,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "in_channels": 4,
    "layers_per_block": 1,
    "mid_block_scale_factor": 1,
    "mid_block_type": None,
    "norm_eps": 1e-5,
    "norm_num_groups": 4,
    "out_channels": 4,
    "sample_size": 64,
    "up_block_types": ("UpBlock2D", *3 * ("CrossAttnUpBlock2D",)),
}
VAE = {
    "block_out_channels": (8, 8, 16, 16),
    "down_block_types": 4 * ("DownEncoderBlock2D",),
    "up_block_types": 4 * ("UpDecoderBlock2D",),
    "layers_per_block": 2,
    "latent_channels": 4,
    "norm_num_groups": 4,
    "sample_size": 512,
    "scaling_factor": 0.18215,
}


def written(folder: Path, prediction: str = "epsilon", **unet: object) -> Path:
    """A pipeline in Stable Diffusion's layout with random weights and a real CLIP tokenizer of few words."""
    words = ["a", "b", "a</w>", "b</w>", "<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        text = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(words),
                hidden_size=16,
                intermediate_size=32,
                num_hidden_layers=1,
                num_attention_heads=2,
                max_position_embeddings=77,
                bos_token_id=4,
                eos_token_id=5,
                pad_token_id=5,
            )
        )
        pipeline = StableDiffusionPipeline(
            vae=AutoencoderKL(**VAE),
            unet=UNet2DConditionModel(**UNET | unet),
            text_encoder=text,
            tokenizer=CLIPTokenizer(
                str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=77
            ),
            scheduler=PNDMScheduler(
                beta_start=0.00085,
                beta_end=0.012,
                beta_schedule="scaled_linear",
                skip_prk_steps=True,
                steps_offset=1,
                set_alpha_to_one=False,
                prediction_type=prediction,
            ),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    pipeline.save_pretrained(folder)
    return folder


def created(path: Path, **settings) -> DiffusionHyperprior:
    """A codec, always the same, with noise in what is its own."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = create_bk_sdm_compression_model(
            path, **{"N": N, "M": M, "diffusion_steps": 10} | settings
        ).eval()
        with torch.no_grad():
            for weight in model.parameters():
                if weight.ndim == 4 and weight.numel() > 16:
                    weight += 0.3 / weight[0].numel() ** 0.5 * torch.randn_like(weight)
        model.update(force=True)
    return model
