"""The training loss: by hand, at its start, and where its gradient goes."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from models import picture, untrained, woken
from scipy.stats import norm

from dhp_lab.codec.bits.scales import scale_indexes
from dhp_lab.training import codec_objective as objective
from dhp_lab.training.codec_objective import (
    FAR,
    LAMBDA_OFTEN,
    LEAST_LOG2_SCALE,
    VALIDATION_LAMBDAS,
    CodecObjective,
    rate_distortion,
)

STAGES = ("codec", "denoiser", "joint")


def seeded(function, *arguments, seed: int = 0):
    """A result under a random state of its own."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return function(*arguments)


# the denoiser's own loss


@pytest.mark.parametrize("transmit", ["z+y", "z"])
@pytest.mark.parametrize("seed", range(3))
def test_an_untrained_denoiser_gains_nothing(transmit, seed):
    """Its K = 1 is K = 0, and its estimate in the latents is the closed form: both losses are 1."""
    losses = seeded(
        CodecObjective(untrained(transmit=transmit).train(), None, seed=seed),
        picture(64, 64, count=4),
        "denoiser",
    )
    assert losses["loss"].item() == pytest.approx(1, abs=1e-6) and losses[
        "gain in dB"
    ].item() == pytest.approx(0, abs=1e-5)
    assert losses["loss in latents"].item() == pytest.approx(1, abs=1e-6)
    in_latents = 1 + losses["surprise"].item()
    expected = 1 + objective.LATENT_WEIGHT * in_latents if transmit == "z+y" else in_latents
    assert losses["objective"].item() == pytest.approx(expected, abs=1e-6)


def test_the_surprise_is_that_of_gaussians():
    """Minus the log-likelihood of D's errors under the variance it foretells, less the entropy under the
    closed form's.
    """
    model, calls = woken().train(), []
    model.denoiser.register_forward_hook(lambda module, arguments, result: calls.append((arguments, result)))
    latents = model.training_latents(picture(64, 64, count=2), torch.full((2,), 1e-3))
    residual, fixed = latents.residual.detach(), model.decoder_state(latents).detach()
    _, surprise = seeded(CodecObjective(model, None).latent_losses, latents, fixed)
    [(arguments, (clean, predicted_variance))] = calls
    believed = model.denoiser.single_latent_posterior(*arguments)[1]
    likelihood = torch.distributions.Normal(clean, predicted_variance.clamp(min=1e-8).sqrt()).log_prob(
        residual
    )
    entropy = torch.distributions.Normal(0.0, believed.clamp(min=1e-8).sqrt()).entropy()
    assert (
        surprise.item() == pytest.approx((-likelihood - entropy).mean().item(), rel=1e-4)
        and abs(surprise.item()) > 1e-3
    )


def test_silent_latents_teach_their_scale():
    """Minus scipy's log-density of what the coder passes over, and nothing of what it sends; the gradient is
    the scale's alone.
    """
    model = woken().train()
    latents = model.training_latents(picture(64, 64, count=2), torch.full((2,), 3e-2))
    log2_scale = (latents.log2_scale.detach() - 2).requires_grad_()
    uncoded = scale_indexes(log2_scale) == 0
    assert 0.1 < uncoded.float().mean() < 0.9
    loss = CodecObjective(model, None).unsent_scale_loss(replace(latents, log2_scale=log2_scale))
    residual, scale = (
        latents.residual.detach()[uncoded],
        log2_scale.detach()[uncoded].clamp(min=LEAST_LOG2_SCALE).exp2(),
    )
    distance = (residual / scale).abs()
    nats = -norm.logpdf(residual, scale=scale) - 0.5 * math.log(2 * math.pi)
    nats = torch.where(distance < FAR, torch.as_tensor(nats), FAR * (distance - FAR / 2) + scale.log())
    assert loss.item() == pytest.approx(float(nats.sum()) / uncoded.numel(), rel=1e-4)
    (gradient,) = torch.autograd.grad(loss, log2_scale)
    learnt = uncoded & (log2_scale > LEAST_LOG2_SCALE)
    expected_distance = (latents.residual.detach() / log2_scale.detach().exp2()).abs()
    expected = math.log(2) * (1 - expected_distance * expected_distance.clamp(max=FAR)) / uncoded.numel()
    assert (
        torch.allclose(gradient[learnt], expected[learnt], rtol=1e-3, atol=1e-7)
        and not gradient[~learnt].any()
    )


def test_a_silent_latent_far_away_counts_linearly():
    model = woken().train()
    latents = model.training_latents(picture(64, 64), torch.full((1,), 3e-2))
    log2_scale = torch.full_like(latents.log2_scale, -4.0)

    def loss(scales):
        far = replace(latents, log2_scale=log2_scale, mean=latents.steps - scales * 2.0**-4)
        return CodecObjective(model, None).unsent_scale_loss(far).item()

    assert loss(8.0) == pytest.approx(32 - 4 * math.log(2), rel=1e-3)
    assert loss(108.0) - loss(58.0) == pytest.approx(50 * 8, rel=1e-3)


def test_the_denoisers_loss_is_the_error_of_k_of_one_over_that_of_k_of_zero():
    model, x = woken().train(), picture(64, 64, count=3)
    losses = seeded(CodecObjective(model, 3e-2), x, "denoiser")

    @torch.no_grad()
    def by_hand():
        latents = model.training_latents(x, torch.full((3,), 3e-2))
        decoder_state = model.decoder_state(latents)
        pictures = [
            model.synthesise(model.sampler.sample(decoder_state, steps=k), latents.log2_delta, (64, 64))
            for k in (0, 1)
        ]
        return [(x_hat - x).square().mean((1, 2, 3)) for x_hat in pictures]

    plain, denoised = seeded(by_hand)
    expected = (denoised / plain).mean().item()
    assert abs(expected - 1) > 1e-3 and losses["loss"].item() == pytest.approx(expected, rel=1e-5)
    assert losses["gain in dB"].item() == pytest.approx(-10 * math.log10(expected), abs=1e-4)


def test_a_denoiser_that_spoils_its_closed_form_has_a_larger_loss():
    model = untrained().train()
    torch.nn.init.constant_(model.denoiser.exit.bias, 0.5)
    losses = seeded(CodecObjective(model, 3e-2), picture(64, 64, count=32), "denoiser")
    assert (
        losses["loss in latents"].item() == pytest.approx(1.25, abs=0.1)  # 1 + 0.5^2, were variances exact
        and losses["loss"].item() > 1.03
        and losses["gain in dB"].item() < -0.1
    )


def test_the_denoiser_learns():
    """Fifteen steps on one picture, whose neighbouring latents depend on each other."""
    model = untrained().train()
    task, x = CodecObjective(model, 3e-2), picture(128, 128)
    optimizer = torch.optim.Adam(task.optimizer_groups("denoiser", 3e-3))
    before = {name: value.clone() for name, value in model.state_dict().items()}

    def loss() -> torch.Tensor:
        return sum(seeded(task, x, "denoiser", seed=seed)["objective"] for seed in range(2)) / 2

    for _ in range(15):
        optimizer.zero_grad()
        last = loss()
        last.backward()
        optimizer.step()
    assert (
        last.item() < 1 + objective.LATENT_WEIGHT - 0.03
    )  # an untrained denoiser starts at 1 + LATENT_WEIGHT
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed and all(name.startswith("denoiser.") for name in changed)


# where the gradient goes


@pytest.mark.parametrize("transmit", ["z+y", "z"])
@pytest.mark.parametrize("stage", STAGES)
def test_the_gradient_reaches_exactly_the_stages_parameters(stage, transmit):
    """Several batches, because the joint stage leaves parts out at random. Where z alone is sent no bin is
    ever known.
    """
    model = woken(transmit=transmit).train()
    task = CodecObjective(model, None)
    groups = task.optimizer_groups(stage, 1.0)
    for seed in range(3):
        seeded(task, picture(64, 64, count=4), stage, seed=seed)["objective"].backward()
    measured = ("entropy_bottleneck.quantiles", "gain.knots")  # no gradient trains these
    wanted = {name for name, _ in model.named_parameters() if name not in measured}
    wanted = {
        name for name in wanted if stage == "joint" or name.startswith("denoiser.") == (stage == "denoiser")
    }
    unused = {"denoiser.posterior_weight"} if transmit == "z" else set()
    reached = {name for name, p in model.named_parameters() if p.grad is not None and bool(p.grad.any())}
    assert reached == wanted - unused
    assert {id(p) for group in groups for p in group["params"]} == {
        id(p) for n, p in model.named_parameters() if n in wanted
    }
    assert all(bool(p.grad.isfinite().all()) for _, p in model.named_parameters() if p.grad is not None)


@pytest.mark.parametrize("stage", STAGES)
def test_the_lapped_transforms_and_the_denoiser_learn_at_a_share_of_the_rate(stage):
    model = untrained()
    rates = {
        id(p): group["lr"]
        for group in CodecObjective(model, None).optimizer_groups(stage, 1e-3)
        for p in group["params"]
    }
    for name, parameter in model.named_parameters():
        if id(parameter) in rates:
            share = objective.LATE_SHARE if name.startswith("denoiser.") else 1.0
            share = objective.CONTEXT_SHARE if name.startswith("context.") else share
            share = objective.LAPPED_SHARE if ".linear." in name else share
            assert rates[id(parameter)] == pytest.approx(share * 1e-3), name


def test_the_denoisers_own_loss_moves_the_denoiser_alone():
    """Also where, as in the joint stage, the latents carry a gradient."""
    model = woken().train()
    latents = model.training_latents(picture(64, 64, count=8), torch.full((8,), 1e-3))
    assert latents.symbols.requires_grad and latents.mean.requires_grad
    sum(
        seeded(CodecObjective(model, None).latent_losses, latents, model.decoder_state(latents).detach())
    ).backward()
    reached = {name for name, p in model.named_parameters() if p.grad is not None}
    assert reached == {name for name, _ in model.named_parameters() if name.startswith("denoiser.")}


def test_the_denoisers_picture_hands_the_encoder_the_gradient_of_plain_decoding(monkeypatch):
    """D sees detached inputs: what the codec's parameters feel is the gradient of y_hat, weighted as the
    synthesis asks.
    """
    monkeypatch.setattr(objective, "CLEAN_SHARE", -1.0)
    model = woken().train()
    wanted = torch.randn(4, model.M, 4, 4, generator=torch.Generator().manual_seed(0))
    codec = {
        name: p for name, p in model.named_parameters() if name.startswith(("g_a.", "h_a.", "h_s.", "gain."))
    }

    def gradients(mixed: bool) -> list[torch.Tensor]:
        latents = model.training_latents(picture(64, 64, count=4), torch.full((4,), 1e-3))
        decoder_state = model.decoder_state(latents)
        y_hat = model.sampler.sample(decoder_state, steps=0)
        y_hat = (
            CodecObjective(model, None)._mixed(latents.y, decoder_state.detach(), y_hat) if mixed else y_hat
        )
        return torch.autograd.grad((wanted * y_hat).sum(), codec.values())

    for name, ours, plain in zip(codec, seeded(gradients, True), seeded(gradients, False), strict=True):
        assert (ours - plain).abs().max() <= 1e-5 * plain.abs().max(), name


def test_the_encoder_feels_the_denoisers_picture_through_the_rounding():
    """Joint stage: y_hat's gradient passes D by, so g_a and Delta learn from the distortion although D's
    inputs are cut off.
    """
    model = woken().train()
    task, x = CodecObjective(model, 1e-3), picture(64, 64, count=4)

    def distortion():
        latents = model.training_latents(x, torch.full((4,), 1e-3))
        decoder_state = model.decoder_state(latents)
        y_hat = task._mixed(latents.y, decoder_state.detach(), model.sampler.sample(decoder_state, steps=0))
        return (model.synthesise(y_hat, latents.log2_delta, (64, 64)) - x).square().mean()

    seeded(distortion).backward()
    assert all(
        bool(p.grad.any())
        for p in (model.g_a.linear.correction, model.g_a.exit.weight, model.denoiser.exit.weight)
    )


# lambdas and validation


def test_lambdas_cover_the_range_and_favour_small_files():
    model = untrained()
    drawn, (least, most) = (
        seeded(CodecObjective(model, None).draw_lambdas, 4000),
        model.config.lambda_range,
    )
    assert least <= drawn.min() and drawn.max() <= most * (1 + 1e-6) and (least, most) == (1e-5, 3e-2)
    shares = [
        0.3 * math.log(LAMBDA_OFTEN / least) / math.log(most / least),
        (drawn < LAMBDA_OFTEN).float().mean().item(),
    ]
    assert shares[1] == pytest.approx(shares[0], abs=5 * math.sqrt(0.13 * 0.87 / 4000))


def test_a_single_lambda_is_taken_for_all():
    assert CodecObjective(untrained(), 5e-4).draw_lambdas(3).tolist() == pytest.approx([5e-4] * 3)


@pytest.mark.parametrize("denoise", [False, True])
def test_validation_is_the_models_own_forward(denoise):
    model, x = woken(), picture(64, 64, count=2)
    rows = CodecObjective(model, None).validate(x, denoise)
    assert [row["lambda_rate"] for row in rows] == list(VALIDATION_LAMBDAS)
    with torch.no_grad():
        for row in rows:
            out = model(x, row["lambda_rate"], steps=int(denoise))
            expected = rate_distortion(
                out["x_hat"], x, out["likelihoods"], torch.full((2,), row["lambda_rate"])
            )
            assert torch.equal(row["x_hat"], out["x_hat"]) and row["loss"] == expected["loss"].item()
