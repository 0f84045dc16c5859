"""Blocks taken out of a U-Net: BK-SDM's own configurations, weights that stay, losses by hand, runs that
repeat themselves.
"""

from __future__ import annotations

import copy
import json
import math
import re

import pytest
import torch
from diffusers import UNet2DConditionModel
from oracles import largest
from torch import Tensor, nn
from untrained import same_weights, small_unet, unet_inputs

from dhp_lab.latent.block_removal import SIZES, smaller_config, smaller_unet, source
from dhp_lab.training.scene_models import load_scenes

pytestmark = pytest.mark.usefixtures("in_float32")

SMALLER = SIZES[1:]
CROSS, PLAIN = "CrossAttnDownBlock2D", "DownBlock2D"
PUBLISHED = {  # unet/config.json of BK-SDM made from Stable Diffusion v1.4: what all three share
    "act_fn": "silu",
    "attention_head_dim": 8,
    "center_input_sample": False,
    "class_embed_type": None,
    "class_embeddings_concat": False,
    "conv_in_kernel": 3,
    "conv_out_kernel": 3,
    "cross_attention_dim": 768,
    "cross_attention_norm": None,
    "downsample_padding": 1,
    "dual_cross_attention": False,
    "encoder_hid_dim": None,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "in_channels": 4,
    "layers_per_block": 1,
    "mid_block_only_cross_attention": None,
    "mid_block_scale_factor": 1,
    "norm_eps": 1e-05,
    "norm_num_groups": 32,
    "num_class_embeds": None,
    "only_cross_attention": False,
    "out_channels": 4,
    "projection_class_embeddings_input_dim": None,
    "resnet_out_scale_factor": 1.0,
    "resnet_skip_time_act": False,
    "resnet_time_scale_shift": "default",
    "sample_size": 64,
    "time_cond_proj_dim": None,
    "time_embedding_act_fn": None,
    "time_embedding_type": "positional",
    "timestep_post_act": None,
    "upcast_attention": False,
    "use_linear_projection": False,
}
FOUR = {
    "block_out_channels": [320, 640, 1280, 1280],
    "down_block_types": [CROSS, CROSS, CROSS, PLAIN],
    "up_block_types": ["UpBlock2D", *3 * ["CrossAttnUpBlock2D"]],
}
THREE = {
    "block_out_channels": [320, 640, 1280],
    "down_block_types": 3 * [CROSS],
    "up_block_types": 3 * ["CrossAttnUpBlock2D"],
}
BK_SDM = {
    "base": PUBLISHED | FOUR | {"mid_block_type": "UNetMidBlock2DCrossAttn"},
    "small": PUBLISHED | FOUR | {"mid_block_type": None},
    "tiny": PUBLISHED | THREE | {"mid_block_type": None},
}
BILLIONS = {
    "full": 0.86,
    "base": 0.58,
    "small": 0.49,
    "tiny": 0.33,
}  # U-Nets in BK-SDM's model card, rounded up


@torch.no_grad()
def predicted(unet: UNet2DConditionModel, count: int = 2) -> Tensor:
    z_t, t, context = unet_inputs(unet, count)
    return unet(z_t, t - 1, encoder_hidden_states=context).sample


def number(unet: nn.Module) -> int:
    return sum(p.numel() for p in unet.parameters())


@pytest.fixture(scope="module")
def full() -> UNet2DConditionModel:
    return small_unet()


@pytest.fixture(scope="module")
def stable_diffusion() -> UNet2DConditionModel:
    """Stable Diffusion v1.4's, without memory for its weights; but for these two it is diffusers' default."""
    with torch.device("meta"):
        return UNet2DConditionModel(sample_size=64, cross_attention_dim=768)


# structure


@pytest.mark.parametrize("size", SMALLER)
def test_stable_diffusions_layout_gives_the_published_configurations(stable_diffusion, size):
    found = json.loads(json.dumps(smaller_config(stable_diffusion.config, size)))
    assert {name: found[name] for name in BK_SDM[size]} == BK_SDM[size]
    rest = {name: value for name, value in found.items() if name not in BK_SDM[size]}
    assert rest == {name: stable_diffusion.config[name] for name in rest} and not any(
        name.startswith("_") for name in rest
    )


def test_settings_with_a_value_for_each_stage_lose_the_innermost(stable_diffusion):
    """As in Stable Diffusion v2 and BK-SDM-v2-Tiny."""
    second = {**stable_diffusion.config, "attention_head_dim": [5, 10, 20, 20], "cross_attention_dim": 1024}
    found = smaller_config(second, "tiny")
    assert found["attention_head_dim"] == [5, 10, 20] and found["cross_attention_dim"] == 1024
    assert smaller_config(second, "small")["attention_head_dim"] == [5, 10, 20, 20]


@pytest.mark.slow
def test_the_numbers_of_parameters_are_the_published_ones(stable_diffusion):
    found = {size: math.ceil(number(smaller_unet(stable_diffusion, size)) / 1e7) / 100 for size in SIZES}
    assert found == BILLIONS


def removed_by_hand(unet: UNet2DConditionModel, size: str) -> UNet2DConditionModel:
    """A copy with modules deleted in place; diffusers' forward then walks what is left."""
    unet = copy.deepcopy(unet)
    for block in unet.down_blocks:
        for layers in (block.resnets, getattr(block, "attentions", None)):
            if layers is not None:
                del layers[1]
    for block in unet.up_blocks:
        for layers in (block.resnets, getattr(block, "attentions", None)):
            if layers is not None:
                del layers[1]
    if size != "base":
        unet.mid_block = None
    if size == "tiny":
        del unet.down_blocks[-1], unet.up_blocks[0]
        unet.down_blocks[-1].downsamplers, unet.num_upsamplers = None, unet.num_upsamplers - 1
    return unet


@pytest.mark.parametrize("size", SMALLER)
def test_the_smaller_one_is_the_full_one_with_blocks_deleted(full, size):
    found = smaller_unet(full, size)
    assert number(found) == number(removed_by_hand(full, size)) < number(full)
    assert (
        largest(predicted(found) - predicted(removed_by_hand(full, size)))
        < 1e-6
        < 1e-3
        < largest(predicted(found) - predicted(full))
    )


@pytest.mark.parametrize("size", SMALLER)
def test_kept_weights_are_the_teachers(full, size):
    """Of an up stage's three layers the first and the third stay; in tiny its stages count from one further
    out.
    """
    weights, shift = full.state_dict(), int(size == "tiny")
    for name, value in smaller_unet(full, size).state_dict().items():
        where = re.fullmatch(r"up_blocks\.(\d)\.(.*)", name)
        known = (
            name
            if where is None
            else f"up_blocks.{int(where[1]) + shift}."
            + re.sub(
                r"^(resnets|attentions)\.1\.",
                r"\1.2.",
                where[2],
            )
        )
        assert torch.equal(value, weights[known]) and source(name, full.config, size) == known, name


def test_the_teachers_own_size_is_the_teacher(full):
    found = smaller_unet(full, "full")
    assert same_weights(found, full) and torch.equal(predicted(found), predicted(full))


def test_nothing_is_shared_and_nothing_is_drawn(full):
    state, before = torch.get_rng_state(), copy.deepcopy(full)
    found = smaller_unet(full, "small")
    assert torch.equal(torch.get_rng_state(), state)
    with torch.no_grad():
        for p in found.parameters():
            p += 1
    assert same_weights(full, before) and all(p.requires_grad for p in found.parameters())


def test_dtype_and_mode_follow_the_teacher(full):
    for unet in (copy.deepcopy(full).double(), copy.deepcopy(full).train()):
        found = smaller_unet(unet, "base")
        assert found.dtype == unet.dtype and found.training == unet.training


@pytest.mark.parametrize("layers, expected", [(3, (2, 2, 2, 2)), ((2, 2, 3, 4), (1, 1, 2, 3))])
def test_each_stage_loses_one_layer_however_many_it_has(layers, expected):
    unet = small_unet(layers_per_block=layers)
    for size in SMALLER:
        found = smaller_unet(unet, size)
        left = expected[:-1] if size == "tiny" else expected
        assert tuple(len(block.resnets) for block in found.down_blocks) == left
        assert tuple(len(block.resnets) for block in found.up_blocks) == tuple(
            count + 1 for count in left[::-1]
        )
        assert predicted(found).isfinite().all()


def test_one_layer_a_stage_leaves_the_mid_block_and_the_innermost_stage():
    unet = small_unet(layers_per_block=1)
    small, tiny = smaller_unet(unet, "small"), smaller_unet(unet, "tiny")
    assert small.mid_block is None and number(small) == number(unet) - number(unet.mid_block)
    assert [len(block.resnets) for block in small.up_blocks] == [2, 2, 2, 2]
    inner = (
        number(unet.down_blocks[-1]) + number(unet.up_blocks[0]) + number(unet.down_blocks[-2].downsamplers)
    )
    assert number(tiny) == number(small) - inner and predicted(tiny).shape == predicted(unet).shape


@pytest.mark.parametrize(
    "changes, size, message",
    [
        ({}, "micro", "size must be one of full, base, small, tiny, got 'micro'"),
        (
            {"layers_per_block": 1},
            "base",
            "needs 2 of them, got layers_per_block 1; choose 'small' or 'tiny'",
        ),
        ({"layers_per_block": (2, 1, 2, 2)}, "base", "got layers_per_block 1"),
        ({"mid_block_type": None}, "small", "got a U-Net with mid_block_type None; choose 'tiny'"),
        (
            {"block_out_channels": (8, 8, 8, 16)},
            "tiny",
            r"got block_out_channels \(8, 8, 8, 16\); choose 'small'",
        ),
        (
            {
                "block_out_channels": (8,),
                "down_block_types": (CROSS,),
                "up_block_types": ("CrossAttnUpBlock2D",),
            },
            "tiny",
            r"got block_out_channels \(8,\)",
        ),
    ],
)
def test_what_cannot_be_taken_out_is_refused(changes, size, message):
    with pytest.raises(ValueError, match=message):
        smaller_unet(small_unet(**changes), size)


def test_attentions_of_different_depths_are_refused(full):
    config = {**full.config, "reverse_transformer_layers_per_block": [[1, 2, 3]]}
    with pytest.raises(
        ValueError, match=r"not supported, got reverse_transformer_layers_per_block \[\[1, 2, 3\]\]"
    ):
        smaller_config(config, "base")


@pytest.mark.parametrize("size", SMALLER)
def test_plain_diffusers_loads_and_runs_the_saved_student(full, tmp_path, size):
    found = smaller_unet(full, size)
    found.save_pretrained(tmp_path)
    again = UNet2DConditionModel.from_pretrained(tmp_path)
    assert same_weights(again, found) and torch.equal(predicted(again), predicted(found))


# what is shipped


def test_the_shipped_u_net_loses_its_mid_block_and_its_innermost_stage():
    unet = load_scenes(4).unet
    small, tiny = smaller_unet(unet, "small"), smaller_unet(unet, "tiny")
    assert number(small) == number(unet) - number(unet.mid_block) and tuple(
        tiny.config.block_out_channels
    ) == (64, 96)
    with pytest.raises(ValueError, match="'base' takes a layer out of each stage"):
        smaller_unet(unet, "base")
    with pytest.raises(ValueError, match=r"got block_out_channels \(64, 96\)"):
        smaller_unet(load_scenes(8).unet, "tiny")
