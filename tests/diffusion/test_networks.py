"""The U-Net's parts against diffusers' and torch's own, and the whole against what its wiring promises."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from diffusers.models.embeddings import get_timestep_embedding
from diffusers.models.resnet import ResnetBlock2D
from oracles import largest
from torch import nn

from dhp_lab.diffusion.networks import Attention, Block, UNet, UNetConfig, time_embedding

SMALL = UNetConfig(channels=(16, 32), heads=2)


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def awake(module: nn.Module, seed: int = 0) -> nn.Module:
    """The module with random numbers in all its parameters, those that start at zero too."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.2, generator=generator)
    return module.eval()


# the parts


@pytest.mark.parametrize("size", [2, 32, 64])
def test_time_embedding_is_that_of_diffusers(size):
    t = torch.tensor([0.0, 0.5, 1.0, 17.25, 999.0, 1000.0])
    assert largest(time_embedding(t, size) - get_timestep_embedding(t, size, downscale_freq_shift=0)) < 1e-5


def test_time_embedding_separates_all_times_of_a_chain():
    t = torch.arange(1001.0)
    embedding = time_embedding(t, 32)
    assert (torch.cdist(embedding, embedding) + 9 * torch.eye(1001)).min() > 0.1


@pytest.mark.parametrize("into, out", [(16, 16), (32, 16), (8, 24)])
def test_a_block_is_the_resnet_block_of_diffusers(into, out):
    config = UNetConfig(channels=(16,), attention_levels=(), heads=2)
    block = awake(Block(into, out, config, attends=False))
    theirs = ResnetBlock2D(
        in_channels=into,
        out_channels=out,
        temb_channels=64,
        groups=8,
        eps=1e-5,
        time_embedding_norm="scale_shift",
        dropout=0.0,
    )
    pairs = {
        "norm1": block.enter[0],
        "conv1": block.enter[2],
        "time_emb_proj": block.scale_shift[1],
        "norm2": block.norm,
        "conv2": block.leave[2],
        "conv_shortcut": block.skip if into != out else None,
    }
    for name, ours in pairs.items():
        if ours is not None:
            getattr(theirs, name).load_state_dict(ours.state_dict())
    x, embedding = draw(2, into, 5, 7), draw(2, 64, seed=1)
    assert largest(block(x, embedding, None) - theirs(x, embedding)) < 1e-5 * largest(theirs(x, embedding))


@pytest.mark.parametrize("heads", [1, 2, 4])
@pytest.mark.parametrize("context_dim", [None, 12])
def test_attention_is_that_of_torch(heads, context_dim):
    ours = awake(Attention(16, heads, context_dim))
    width = context_dim or 16
    theirs = nn.MultiheadAttention(16, heads, kdim=width, vdim=width, batch_first=True)
    theirs._qkv_same_embed_dim = False  # three matrices, whatever the widths
    key, value = ours.kv.weight.chunk(2)
    for name, weight in {
        "q_proj_weight": ours.q.weight,
        "k_proj_weight": key,
        "v_proj_weight": value,
    }.items():
        setattr(theirs, name, nn.Parameter(weight.detach()))
    theirs.in_proj_bias.data = torch.cat([ours.q.bias, ours.kv.bias]).detach()
    theirs.out_proj.load_state_dict(ours.out.state_dict())
    x, context = draw(2, 16, 3, 5), None if context_dim is None else draw(2, 7, context_dim, seed=1)
    tokens = F.group_norm(x, 8, ours.norm.weight, ours.norm.bias).flatten(2).mT
    source = tokens if context is None else context
    expected = x + theirs(tokens, source, source)[0].mT.reshape(x.shape)
    assert largest(ours(x, context) - expected) < 1e-5


def test_attention_looks_everywhere_and_has_no_order():
    """Shuffled places give the same answers, shuffled; and each answer depends on every place."""
    attention, x, order = (
        awake(Attention(16, 2)),
        draw(1, 16, 1, 9),
        torch.tensor([3, 8, 0, 5, 1, 7, 2, 6, 4]),
    )
    assert largest(attention(x[..., order]) - attention(x)[..., order]) < 1e-5
    slope = torch.autograd.functional.jacobian(lambda x: attention(x).sum((0, 1, 2)), x)  # (9, 1, 16, 1, 9)
    assert bool((slope.abs().amax((1, 2, 3)) > 1e-4).all())


# the whole


@pytest.mark.parametrize(
    "config",
    [
        UNetConfig(),
        UNetConfig(channels=(8,), attention_levels=(), heads=1),
        UNetConfig(in_channels=3, channels=(8, 16, 24), blocks=2, heads=2),
        UNetConfig(classes=3),
        UNetConfig(context_dim=5, attention_levels=(0, 1)),
        UNetConfig(classes=2, context_dim=5),
    ],
)
def test_a_new_network_answers_zero_and_keeps_the_shape(config):
    network, (height, width) = UNet(config), (8, 16)
    context = draw(2, 4, config.context_dim) if config.context_dim else None
    x, t = draw(2, config.in_channels, height, width), torch.tensor([1.0, 500.0])
    label = torch.tensor([0, config.classes]) if config.classes else None
    assert torch.equal(network(x, t, label, context), torch.zeros_like(x))
    answer = awake(network)(x, t, label, context)
    assert answer.shape == x.shape and bool(answer.isfinite().all()) and answer.std() > 1e-3


def test_every_parameter_takes_part():
    network = awake(UNet(UNetConfig(channels=(8, 16), blocks=2, heads=2, classes=2, context_dim=4)))
    answer = network(
        draw(3, 1, 8, 8), torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0, 1, 2]), draw(3, 2, 4, seed=1)
    )
    answer.square().sum().backward()
    idle = [name for name, p in network.named_parameters() if p.grad is None or not bool(p.grad.any())]
    assert idle == []


def test_items_of_a_batch_do_not_see_each_other():
    network = awake(UNet(UNetConfig(channels=(16, 32), classes=4)))
    x, t, label = draw(4, 1, 8, 8), torch.tensor([3.0, 900.0, 41.5, 1.0]), torch.tensor([0, 4, 2, 2])
    together = network(x, t, label)
    alone = torch.cat([network(x[i : i + 1], t[i : i + 1], label[i : i + 1]) for i in range(4)])
    assert largest(together - alone) < 1e-4 * largest(together)


def test_time_label_and_context_are_heard():
    network = awake(UNet(UNetConfig(channels=(16, 32), classes=4, context_dim=6)))
    x, t, label, context = draw(1, 1, 8, 8), torch.tensor([3.0]), torch.tensor([1]), draw(1, 2, 6, seed=1)
    answer = network(x, t, label, context)
    for other in (
        network(x, t + 0.5, label, context),
        network(x, t, label + 1, context),
        network(x, t, label, -context),
    ):
        assert largest(other - answer) > 1e-3 * largest(answer)


def test_no_label_is_the_null_label():
    network = awake(UNet(UNetConfig(channels=(16, 32), classes=4)))
    x, t = draw(2, 1, 8, 8), torch.tensor([3.0, 30.0])
    assert network.null == 4 and torch.equal(network(x, t), network(x, t, torch.tensor([4, 4])))


def saved_bytes(network: UNet, x: torch.Tensor, t: torch.Tensor) -> tuple[int, list[torch.Tensor]]:
    """What the forward pass keeps for the gradient, and the gradients."""
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda v: kept.append(v.numel() * v.element_size()) or v, lambda v: v
    ):
        loss = network(x, t).square().mean()
    loss.backward()
    return sum(kept), [p.grad for p in network.parameters()]


def test_checkpointing_keeps_less_and_changes_no_gradient():
    config, x, t = (
        UNetConfig(channels=(16, 32), blocks=2, dropout=0.3),
        draw(2, 1, 8, 8),
        torch.tensor([5.0, 600.0]),
    )
    found = []
    for flag in (False, True):
        network = awake(UNet(config, checkpointing=flag)).train()
        torch.manual_seed(0)  # the same activations are dropped
        found.append(saved_bytes(network, x, t))
    (plain, expected), (less, gradients) = found
    assert less < 0.5 * plain
    assert max(largest(a - b) for a, b in zip(gradients, expected, strict=True)) < 1e-6 * max(
        map(largest, expected)
    )


def test_derivatives_along_a_direction_agree_with_differences():
    """The exact divergence of the probability-flow ODE takes these, batched."""
    network, t = awake(UNet(SMALL)).double(), torch.tensor([40.0])
    x, v = draw(1, 1, 8, 8).double(), draw(1, 1, 8, 8, seed=1).double()
    exact = torch.func.jvp(lambda x: network(x, t), (x,), (v,))[1]
    difference = (network(x + 1e-5 * v, t) - network(x - 1e-5 * v, t)) / 2e-5
    assert largest(exact - difference) < 1e-6 * largest(exact)
    batched = torch.func.vmap(lambda v: torch.func.jvp(lambda x: network(x, t), (x,), (v,))[1])(
        torch.stack([v, -2 * v])
    )
    assert largest(batched - torch.stack([exact, -2 * exact])) < 1e-9 * largest(exact)


def test_bfloat16_weights_take_float_times():
    network = awake(UNet(SMALL)).bfloat16()
    answer = network(draw(1, 1, 8, 8).bfloat16(), torch.tensor([999.0]))
    assert answer.dtype == torch.bfloat16 and bool(answer.isfinite().all())


# what is refused


@pytest.mark.parametrize(
    "change, message",
    [
        ({"channels": ()}, r"channels must be multiples of 8, .*got \(\)"),
        ({"channels": (12,)}, r"multiples of 8, .*got \(12,\)"),
        ({"channels": (0, 8)}, r"got \(0, 8\)"),
        ({"attention_levels": (2,)}, r"attention_levels must lie in 0 .. 1, got \(2,\)"),
        ({"heads": 3}, r"heads must divide the widths \[64\] .*got 3"),
        ({"heads": 0}, "heads .*got 0"),
        ({"in_channels": 0}, "in_channels must be at least 1, got 0"),
        ({"blocks": 0}, "blocks must be at least 1, got 0"),
        ({"classes": -1}, "classes must be at least 0, got -1"),
        ({"context_dim": -2}, "context_dim must be at least 0, got -2"),
        ({"dropout": 1.0}, r"dropout must lie in \[0, 1\), got 1"),
    ],
)
def test_a_shape_that_cannot_be_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        UNetConfig(**change)


X, T = torch.zeros(2, 1, 8, 8), torch.ones(2)


@pytest.mark.parametrize(
    "config, given, message",
    [
        (SMALL, (X[0], T), r"x must be \(B, 1, H, W\) .*multiples of 2, got \(1, 8, 8\)"),
        (SMALL, (X.expand(2, 3, 8, 8), T), r"x must be \(B, 1, H, W\) .*got \(2, 3, 8, 8\)"),
        (SMALL, (X[..., :7], T), r"multiples of 2, got \(2, 1, 8, 7\)"),
        (SMALL, (X, T[:1]), r"t must have the shape \(2,\), got \(1,\)"),
        (SMALL, (X, torch.tensor(1.0)), r"t must have the shape \(2,\), got \(\)"),
        (SMALL, (X, T, torch.tensor([0, 0])), "this network has no classes"),
        (
            UNetConfig(classes=3),
            (X, T, torch.tensor([0, 4])),
            r"label must hold 2 whole numbers in 0 .. 3, .*got \[0, 4\]",
        ),
        (UNetConfig(classes=3), (X, T, torch.tensor([-1, 0])), r"got \[-1, 0\]"),
        (UNetConfig(classes=3), (X, T, torch.tensor([0.0, 1.0])), r"got \[0.0, 1.0\]"),
        (UNetConfig(classes=3), (X, T, torch.tensor([0])), r"label must hold 2 .*got \[0\]"),
        (SMALL, (X, T, None, torch.zeros(2, 3, 4)), r"context must be None, got \(2, 3, 4\)"),
        (UNetConfig(context_dim=4), (X, T), r"context must be \(2, L, 4\), got None"),
        (
            UNetConfig(context_dim=4),
            (X, T, None, torch.zeros(2, 3, 5)),
            r"context must be \(2, L, 4\), got \(2, 3, 5\)",
        ),
    ],
)
def test_an_input_that_does_not_fit_is_refused(config, given, message):
    with pytest.raises(ValueError, match=message):
        UNet(config)(*given)


def test_a_patch_is_the_same_network_on_pixels_that_are_channels():
    """With patch = 2 the U-Net sees the pixels of each square as channels, by brute force."""
    shape = UNetConfig(channels=(8,), attention_levels=(), heads=2, patch=2)
    network, plain = UNet(shape), UNet(replace(shape, in_channels=4, patch=1))
    torch.nn.init.normal_(network.exit[-1].weight)
    plain.load_state_dict(network.state_dict())
    x, t = torch.randn(2, 1, 6, 8), torch.tensor([3.0, 500.0])
    squares = torch.stack([x[:, 0, i::2, j::2] for i in range(2) for j in range(2)], 1)  # (2, 4, 3, 4)
    y, expected = network(x, t), plain(squares, t)
    assert y.shape == x.shape and expected.abs().max() > 0.1
    found = torch.stack([y[:, 0, i::2, j::2] for i in range(2) for j in range(2)], 1)
    assert (found - expected).abs().max() < 1e-6
    with pytest.raises(ValueError, match="multiples of 2, got"):
        network(x[..., :7], t)
    with pytest.raises(ValueError, match="patch must be at least 1, got 0"):
        UNetConfig(patch=0)
