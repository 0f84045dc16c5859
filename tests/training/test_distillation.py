"""Distillation: losses by hand, runs that repeat themselves, a student that comes nearer."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import pytest
import torch
from diffusers import DDPMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from oracles import largest, seeded
from torch import Tensor
from untrained import same_weights, small_unet, two_stage_pipeline, unet_inputs

from dhp_lab.data.scenes import batch
from dhp_lab.latent.autoencoders import encode
from dhp_lab.latent.block_removal import smaller_unet
from dhp_lab.latent.pipeline import EPSILON, V_PREDICTION, LatentDiffusion
from dhp_lab.training import distillation
from dhp_lab.training.distillation import LOSSES, DistilConfig, distil, distillation_losses
from dhp_lab.training.optimisation import optimizer_step

pytestmark = pytest.mark.usefixtures("in_float32")


TINY = DistilConfig(scenes=12, training_steps=3, batch_size=4, lr=1e-3)


@pytest.fixture(scope="module")
def full() -> UNet2DConditionModel:
    return small_unet()


@pytest.fixture(scope="module")
def teacher() -> LatentDiffusion:
    return two_stage_pipeline()


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
    student = smaller_unet(small_unet(seed=7), size)  # of another teacher: nothing is equal
    (z_t, t, context), target = unet_inputs(full, 3), torch.randn(3, 4, 16, 16, generator=seeded(9))
    (a, out_a), (b, out_b) = (walk(unet, z_t, t, context, ends // 2) for unet in (full, student))
    found = distillation_losses(full, student, z_t, t, context, target)
    assert len(a) == len(b) == ends and tuple(found) == LOSSES
    assert found["task"].item() == pytest.approx((out_b - target).square().mean().item(), rel=1e-5)
    assert found["output"].item() == pytest.approx((out_b - out_a).square().mean().item(), rel=1e-5)
    expected = sum((x - y).square().mean().item() for x, y in zip(a, b, strict=True))
    assert found["feature"].item() == pytest.approx(expected, rel=1e-5)


def test_the_teacher_itself_has_only_the_task_left(full):
    found = distillation_losses(
        full, smaller_unet(full, "full"), *unet_inputs(full), torch.zeros(2, 4, 16, 16)
    )
    assert found["output"] == found["feature"] == 0 < found["task"] and not any(
        m._forward_hooks for m in full.modules()
    )


@pytest.mark.parametrize("name", LOSSES)
def test_the_gradient_is_the_slope_and_the_students_alone(full, name):
    student, target = smaller_unet(full, "tiny"), torch.randn(2, 4, 16, 16, generator=seeded(9))
    weight = student.up_blocks[0].resnets[0].conv1.weight

    def loss() -> Tensor:
        return distillation_losses(full, student, *unet_inputs(full), target)[name]

    loss().backward()
    slope, step = weight.grad.norm().item(), 3e-2 * weight.grad / weight.grad.norm()
    assert all(p.grad is None for p in full.parameters()) and slope > 0
    with torch.no_grad():
        weight += step
        above = loss().item()
        weight -= 2 * step
        below = loss().item()
    assert (above - below) / 6e-2 == pytest.approx(slope, rel=0.05)


def test_a_student_of_another_shape_is_refused(full):
    with pytest.raises(ValueError, match="the teacher's in .*make it by smaller_unet"):
        distillation_losses(
            full,
            small_unet(block_out_channels=(16, 16, 16, 16)),
            *unet_inputs(full),
            torch.zeros(2, 4, 16, 16),
        )


# distillation


@pytest.mark.slow
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
    assert same_weights(first.unet, distil(TINY, teacher, student).unet)
    assert not same_weights(
        first.unet, distil(replace(TINY, seed=1), teacher, student).unet
    ) and not same_weights(first.unet, student)
    assert all(map(same_weights, before, [teacher.unet, teacher.text_encoder, teacher.vae, student]))
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
    model, told_losses = two_stage_pipeline(prediction), []
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
    assert not same_weights(*found)


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
    model = two_stage_pipeline()
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
