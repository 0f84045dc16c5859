"""Blocks taken out of a U-Net: BK-SDM's own configurations, weights that stay, losses by hand, runs that
repeat themselves.
"""

from __future__ import annotations

import copy
import json
import math
import re
from dataclasses import replace

import pytest
import torch
from diffusers import DDPMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from oracles import largest, seeded
from torch import Tensor, nn

from dhp_lab.data.scenes import batch
from dhp_lab.latent.autoencoders import encode, kl_autoencoder
from dhp_lab.latent.block_removal import SIZES, smaller_config, smaller_unet, source
from dhp_lab.latent.pipeline import EPSILON, LatentDiffusion, V_PREDICTION
from dhp_lab.training import distillation
from dhp_lab.training.distillation import LOSSES, DistilConfig, distil, distillation_losses
from dhp_lab.training.latent_diffusion import LatentConfig, new_latent_diffusion
from dhp_lab.training.optimisation import optimizer_step
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

TINY = DistilConfig(scenes=12, training_steps=3, batch_size=4, lr=1e-3)


def drawn(seed: int = 0, **changes) -> UNet2DConditionModel:
    """A narrow U-Net with Stable Diffusion's layout and random weights."""
    shape = {
        "sample_size": 16,
        "block_out_channels": (8, 8, 16, 16),
        "cross_attention_dim": 8,
        "attention_head_dim": 2,
        "norm_num_groups": 4,
    }
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return UNet2DConditionModel(**shape | changes).eval()


def asked(unet: UNet2DConditionModel, count: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    """Latents, times and contexts for it."""
    z_t = torch.randn(count, 4, unet.config.sample_size, unet.config.sample_size, generator=seeded(1))
    return (
        z_t,
        torch.linspace(3.0, 900.0, count),
        torch.randn(count, 5, unet.config.cross_attention_dim, generator=seeded(2)),
    )


@torch.no_grad()
def told(unet: UNet2DConditionModel, count: int = 2) -> Tensor:
    z_t, t, context = asked(unet, count)
    return unet(z_t, t - 1, encoder_hidden_states=context).sample


def number(unet: nn.Module) -> int:
    return sum(p.numel() for p in unet.parameters())


def equal(a: nn.Module, b: nn.Module) -> bool:
    pairs = zip(a.state_dict().items(), b.state_dict().items(), strict=True)
    return all(x == y and torch.equal(v, w) for (x, v), (y, w) in pairs)


@pytest.fixture(scope="module")
def full() -> UNet2DConditionModel:
    return drawn()


@pytest.fixture(scope="module")
def stable_diffusion() -> UNet2DConditionModel:
    """Stable Diffusion v1.4's, without memory for its weights; but for these two it is diffusers' default."""
    with torch.device("meta"):
        return UNet2DConditionModel(sample_size=64, cross_attention_dim=768)


def made(prediction: str = V_PREDICTION) -> LatentDiffusion:
    """A pipeline of the shipped kind, little and untrained, that looks at captions in its inner stage."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        vae = kl_autoencoder(8, widths=(8, 8, 8, 8)).eval().requires_grad_(False)
        vae.register_to_config(scaling_factor=1.7)
        config = LatentConfig(widths=(16, 16), attention=(True, True), text_width=8, text_layers=1)
        model = replace(new_latent_diffusion(config, vae), prediction=prediction)
    for part in (model.unet, model.text_encoder):
        part.eval()
    return model


@pytest.fixture(scope="module")
def teacher() -> LatentDiffusion:
    return made()


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
        largest(told(found) - told(removed_by_hand(full, size)))
        < 1e-6
        < 1e-3
        < largest(told(found) - told(full))
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
    assert equal(found, full) and torch.equal(told(found), told(full))


def test_nothing_is_shared_and_nothing_is_drawn(full):
    state, before = torch.get_rng_state(), copy.deepcopy(full)
    found = smaller_unet(full, "small")
    assert torch.equal(torch.get_rng_state(), state)
    with torch.no_grad():
        for p in found.parameters():
            p += 1
    assert equal(full, before) and all(p.requires_grad for p in found.parameters())


def test_dtype_and_mode_follow_the_teacher(full):
    for unet in (copy.deepcopy(full).double(), copy.deepcopy(full).train()):
        found = smaller_unet(unet, "base")
        assert found.dtype == unet.dtype and found.training == unet.training


@pytest.mark.parametrize("layers, expected", [(3, (2, 2, 2, 2)), ((2, 2, 3, 4), (1, 1, 2, 3))])
def test_each_stage_loses_one_layer_however_many_it_has(layers, expected):
    unet = drawn(layers_per_block=layers)
    for size in SMALLER:
        found = smaller_unet(unet, size)
        left = expected[:-1] if size == "tiny" else expected
        assert tuple(len(block.resnets) for block in found.down_blocks) == left
        assert tuple(len(block.resnets) for block in found.up_blocks) == tuple(
            count + 1 for count in left[::-1]
        )
        assert told(found).isfinite().all()


def test_one_layer_a_stage_leaves_the_mid_block_and_the_innermost_stage():
    unet = drawn(layers_per_block=1)
    small, tiny = smaller_unet(unet, "small"), smaller_unet(unet, "tiny")
    assert small.mid_block is None and number(small) == number(unet) - number(unet.mid_block)
    assert [len(block.resnets) for block in small.up_blocks] == [2, 2, 2, 2]
    inner = (
        number(unet.down_blocks[-1]) + number(unet.up_blocks[0]) + number(unet.down_blocks[-2].downsamplers)
    )
    assert number(tiny) == number(small) - inner and told(tiny).shape == told(unet).shape


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
def test_what_cannot_be_taken_out_is_told(changes, size, message):
    with pytest.raises(ValueError, match=message):
        smaller_unet(drawn(**changes), size)


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
    assert equal(again, found) and torch.equal(told(again), told(found))


# losses


@torch.no_grad()
def walk(
    unet: UNet2DConditionModel, z_t: Tensor, t: Tensor, context: Tensor, downs: int
) -> tuple[list[Tensor], Tensor]:
    """The forward pass block by block: the ends of the first down and last up stages, and the output."""
    time = unet.time_embedding(unet.time_proj(t - 1))
    x, ends = unet.conv_in(z_t), []
    skips = [x]
    for stage, block in enumerate(unet.down_blocks):
        extra = {"encoder_hidden_states": context} if hasattr(block, "attentions") else {}
        x, states = block(hidden_states=x, temb=time, **extra)
        skips += states
        if stage < downs:
            ends.append(states[len(block.resnets) - 1] if stage == downs - 1 else x)
    if unet.mid_block is not None:
        x = unet.mid_block(x, time, encoder_hidden_states=context)
    for stage, block in enumerate(unet.up_blocks):
        extra = {"encoder_hidden_states": context} if hasattr(block, "attentions") else {}
        count = len(block.resnets)
        x = block(hidden_states=x, temb=time, res_hidden_states_tuple=tuple(skips[-count:]), **extra)
        skips = skips[:-count]
        if stage >= len(unet.up_blocks) - downs:
            ends.append(x)
    return ends, unet.conv_out(unet.conv_act(unet.conv_norm_out(x)))


@pytest.mark.parametrize("size, ends", [("base", 8), ("small", 8), ("tiny", 6)])
def test_the_losses_are_those_by_hand(full, size, ends):
    student = smaller_unet(drawn(seed=7), size)  # of another teacher: nothing is equal
    (z_t, t, context), target = asked(full, 3), torch.randn(3, 4, 16, 16, generator=seeded(9))
    (a, out_a), (b, out_b) = (walk(unet, z_t, t, context, ends // 2) for unet in (full, student))
    found = distillation_losses(full, student, z_t, t, context, target)
    assert len(a) == len(b) == ends and tuple(found) == LOSSES
    assert found["task"].item() == pytest.approx((out_b - target).square().mean().item(), rel=1e-5)
    assert found["output"].item() == pytest.approx((out_b - out_a).square().mean().item(), rel=1e-5)
    expected = sum((x - y).square().mean().item() for x, y in zip(a, b, strict=True))
    assert found["feature"].item() == pytest.approx(expected, rel=1e-5)


def test_the_teacher_itself_has_only_the_task_left(full):
    found = distillation_losses(full, smaller_unet(full, "full"), *asked(full), torch.zeros(2, 4, 16, 16))
    assert found["output"] == found["feature"] == 0 < found["task"] and not any(
        m._forward_hooks for m in full.modules()
    )


@pytest.mark.parametrize("name", LOSSES)
def test_the_gradient_is_the_slope_and_the_students_alone(full, name):
    student, target = smaller_unet(full, "tiny"), torch.randn(2, 4, 16, 16, generator=seeded(9))
    weight = student.up_blocks[0].resnets[0].conv1.weight

    def loss() -> Tensor:
        return distillation_losses(full, student, *asked(full), target)[name]

    loss().backward()
    slope, step = weight.grad.norm().item(), 3e-2 * weight.grad / weight.grad.norm()
    assert all(p.grad is None for p in full.parameters()) and slope > 0
    with torch.no_grad():
        weight += step
        above = loss().item()
        weight -= 2 * step
        below = loss().item()
    assert (above - below) / 6e-2 == pytest.approx(slope, rel=0.05)


def test_a_student_of_another_shape_is_told(full):
    with pytest.raises(ValueError, match="the teacher's in .*make it by smaller_unet"):
        distillation_losses(
            full, drawn(block_out_channels=(16, 16, 16, 16)), *asked(full), torch.zeros(2, 4, 16, 16)
        )


# distillation


def test_a_run_repeats_itself_and_leaves_everything_else_alone(teacher):
    student = smaller_unet(teacher.unet, "small")
    torch.manual_seed(5)
    state, before = (
        torch.get_rng_state(),
        copy.deepcopy([teacher.unet, teacher.text_encoder, teacher.vae, student]),
    )
    first = distil(TINY, teacher, student)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(7)
    assert equal(first.unet, distil(TINY, teacher, student).unet)
    assert not equal(first.unet, distil(replace(TINY, seed=1), teacher, student).unet) and not equal(
        first.unet, student
    )
    assert all(map(equal, before, [teacher.unet, teacher.text_encoder, teacher.vae, student]))
    assert (
        first.vae is teacher.vae
        and first.text_encoder is teacher.text_encoder
        and first.unet.config.mid_block_type is None
    )
    assert not first.unet.training and not any(p.requires_grad for p in first.unet.parameters())


@pytest.mark.parametrize("prediction", [EPSILON, V_PREDICTION])
def test_the_first_losses_are_those_of_diffusers_noise(prediction):
    """The batch, times and noise that the seed gives, mixed by diffusers' DDPMScheduler and shown to both
    U-Nets.
    """
    model, told_losses = made(prediction), []
    student = smaller_unet(model.unet, "tiny")
    config = replace(TINY, null_probability=0.0, seed=3)
    distil(config, model, student, progress=lambda step, found: told_losses.append((step, found)))
    (pictures, captions), generator = batch(12, 3), seeded(3)
    chosen, _ = torch.randint(12, (4,), generator=generator), torch.rand(4, generator=generator)
    timesteps, eps = (
        torch.randint(1, 1001, (4,), generator=generator) - 1,
        torch.randn(4, 4, 8, 8, generator=generator),
    )
    with torch.no_grad():
        z = encode(model.vae, pictures)[chosen] * 1.7
        scheduler, context = (
            DDPMScheduler(1000, 1e-4, 0.02, "linear"),
            model.context([captions[i] for i in chosen]),
        )
        z_t = scheduler.add_noise(z, eps, timesteps)
        target = scheduler.get_velocity(z, eps, timesteps) if prediction == V_PREDICTION else eps
        a, b = (unet(z_t, timesteps, encoder_hidden_states=context).sample for unet in (model.unet, student))
    assert [step for step, _ in told_losses] == [1, 2, 3] and tuple(told_losses[0][1]) == LOSSES
    assert told_losses[0][1]["task"] == pytest.approx((b - target).square().mean().item(), rel=1e-4)
    assert told_losses[0][1]["output"] == pytest.approx((b - a).square().mean().item(), rel=1e-3)


@pytest.mark.parametrize(
    "weights", [(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (1.0, 1.0, 1.0), (0.5, 2.0, 3.0)]
)
def test_the_losses_are_weighed_and_those_of_weight_0_are_off(teacher, monkeypatch, weights):
    descended, told_losses = [], []

    def listening(loss, *args, **options) -> None:
        descended.append(loss.item())
        optimizer_step(loss, *args, **options)

    monkeypatch.setattr(distillation, "optimizer_step", listening)
    config = replace(TINY, **dict(zip(LOSSES, weights, strict=True)))
    distil(
        config,
        teacher,
        smaller_unet(teacher.unet, "small"),
        progress=lambda step, found: told_losses.append(found),
    )
    expected = [
        sum(weight * found[name] for name, weight in zip(LOSSES, weights, strict=True))
        for found in told_losses
    ]
    assert descended == pytest.approx(expected, rel=1e-5) and len(expected) == 3


def test_the_losses_pull_differently(teacher):
    student = smaller_unet(teacher.unet, "small")
    found = [distil(replace(TINY, feature=weight), teacher, student).unet for weight in (0.0, 1.0)]
    assert not equal(*found)


@pytest.mark.slow
def test_a_student_comes_nearer_to_its_teacher(teacher):
    told_losses, student = [], smaller_unet(teacher.unet, "tiny")
    config = replace(
        TINY, task=0.0, training_steps=60, batch_size=8, scenes=32, lr=3e-3
    )  # the teacher fails at the task
    distil(config, teacher, student, progress=lambda step, found: told_losses.append(found))
    for name in ("output", "feature"):
        assert sum(found[name] for found in told_losses[-5:]) < 0.7 * sum(
            found[name] for found in told_losses[:5]
        )


@pytest.mark.slow
def test_plain_diffusers_runs_the_whole_student(teacher, tmp_path):
    model = distil(TINY, teacher, smaller_unet(teacher.unet, "tiny"))
    model.save(tmp_path)
    theirs = StableDiffusionPipeline.from_pretrained(tmp_path)
    theirs.set_progress_bar_config(disable=True)
    ours = LatentDiffusion.load(tmp_path)
    z_T = torch.randn(1, *ours.latent_shape, generator=seeded(3))
    expected = theirs(
        ["a red circle"], num_inference_steps=4, guidance_scale=3.0, latents=z_T, output_type="pt"
    ).images
    assert largest(ours.sample(["a red circle"], steps=4, guidance=3.0, seed=3) - expected) < 1e-4


def test_a_loss_that_is_no_number_stops_the_run():
    model = made()
    model.vae.register_to_config(scaling_factor=math.nan)
    with pytest.raises(ValueError, match="the loss is nan at step 1; try a smaller lr than 0.001"):
        distil(TINY, model, smaller_unet(model.unet, "small"))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"task": -1.0}, r"at least 0, one of them above, got \[-1.0, 1.0, 1.0\]"),
        ({"task": 0, "output": 0, "feature": 0}, r"got \[0, 0, 0\]"),
        ({"feature": math.nan}, r"got \[1.0, 1.0, nan\]"),
        ({"output": math.inf}, r"got \[1.0, inf, 1.0\]"),
        ({"scenes": 0}, "scenes must be at least 1, got 0"),
        ({"training_steps": 0}, "training_steps must be at least 1, got 0"),
        ({"batch_size": -1}, "batch_size must be at least 1"),
        ({"lr": 0.0}, r"lr must lie in \(0, 1\), .*got 0, 0.1 and 0.99"),
        ({"null_probability": 2.0}, "got 5e-05, 2 and 0.99"),
        ({"average": 1.0}, "got 5e-05, 0.1 and 1"),
    ],
)
def test_a_configuration_outside_its_range_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        DistilConfig(**change)


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
