"""h_s in whole numbers against integer arithmetic and against itself, and the networks' precision."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from models import M, N, picture, untrained, woken

from dhp_lab.codec.networks import exact, hyper_transforms
from dhp_lab.codec.networks.hyper_transforms import HyperSynthesis
from dhp_lab.core import precision

LOG2_DELTA = torch.tensor([-3.0])
ALL = 3 * 16 * 16


def largest(difference) -> float:
    return float(abs(difference).max())


# h_s in whole numbers


@pytest.fixture(scope="module")
def h_s() -> HyperSynthesis:
    """One whose weights are as large as after training."""
    return woken().h_s


def whole(
    count: int = 2, rows: int = 3, cols: int = 5, spread: float = 3.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """z_hat and log2(Delta) as the decoder holds them."""
    generator = torch.Generator().manual_seed(0)
    z_hat = (
        torch.randn(count, N, rows, cols, generator=generator, dtype=torch.float64).mul(spread).round()
        + 307 / 1024
    )
    return z_hat, torch.arange(count, dtype=torch.float64).mul(-12345 / 65536) - 1


def in_integers(h_s: HyperSynthesis, z_hat: torch.Tensor, log2_delta: torch.Tensor) -> np.ndarray:
    """The network as its definition says, in int64 with numpy: no floating point after the first line."""
    h = np.rint(z_hat.numpy() * 2**10).astype(np.int64)
    plane = np.floor((log2_delta.numpy() + 3.5) / 4 * 2**10).astype(np.int64)
    h = np.concatenate([h, np.broadcast_to(plane[:, None, None, None], (len(h), 1, *h.shape[2:]))], 1)
    for i, layer in enumerate(h_s.layers):
        weight = np.rint(layer.weight.detach().double().numpy() * 2**12).astype(np.int64)
        bias = np.rint(layer.bias.detach().double().numpy() * 2**22).astype(np.int64)
        reach = weight.shape[-1] // 2
        padded = np.pad(np.clip(h, -(2**20), 2**20), ((0, 0), (0, 0), (reach, reach), (reach, reach)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, weight.shape[2:], (2, 3))
        h = (np.einsum("bchwij,ocij->bohw", windows, weight) + bias[:, None, None] + 2**11) >> 12
        if i < 2:
            b, c, rows, cols = h.shape
            h = (
                h.reshape(b, c // 4, 2, 2, rows, cols)
                .transpose(0, 1, 4, 2, 5, 3)
                .reshape(b, c // 4, 2 * rows, 2 * cols)
            )
        if i < 3:
            h = np.maximum(h, 0)
    return h / 2**10


@pytest.mark.parametrize("spread", [3.0, 4000.0])
def test_exact_is_integer_arithmetic(h_s, spread):
    """Also where activations run into their limit."""
    z_hat, log2_delta = whole(spread=spread)
    assert np.array_equal(h_s.exact(z_hat, log2_delta).numpy(), in_integers(h_s, z_hat, log2_delta))


@torch.no_grad()
def test_exact_is_the_trained_network_up_to_the_fixed_point(h_s):
    """Weights are rounded to 2^-12 and activations to 2^-10; the largest difference seen here is 0.005 of
    values up to 1.7.
    """
    z_hat, log2_delta = whole()
    exact, trained = h_s.exact(z_hat, log2_delta), h_s(z_hat.float(), log2_delta.float())
    assert exact.dtype == torch.float64 and exact.shape == (2, 2 * M, 12, 20)
    assert largest(exact - trained) < 0.01 < 0.9 < largest(trained)


def _convolved(h, numbers):
    """`exact_conv` through torch's convolution in float64: other algorithms, other orders of summation."""
    h = h.clamp(-exact.ACTIVATION_LIMIT, exact.ACTIVATION_LIMIT)
    summed = F.conv2d(h, *numbers, padding=numbers.weight.shape[-1] // 2)
    return torch.floor(summed / 2**12 + 0.5)


def _shuffled(h, numbers):
    """The same with the input channels in another order."""
    order = torch.randperm(h.shape[1], generator=torch.Generator().manual_seed(3))
    return _convolved(h[:, order], exact.FixedPoint(numbers.weight[:, order], numbers.bias))


@torch.no_grad()
@pytest.mark.parametrize("other", [_convolved, _shuffled])
@pytest.mark.parametrize("onednn", [True, False])
def test_exact_does_not_depend_on_the_order_of_sums(h_s, other, onednn, monkeypatch):
    z_hat, log2_delta = whole()
    expected = h_s.exact(z_hat, log2_delta)
    monkeypatch.setattr(hyper_transforms, "exact_conv", other)
    with torch.backends.mkldnn.flags(enabled=onednn):
        assert torch.equal(h_s.exact(z_hat, log2_delta), expected)


def test_exact_does_not_depend_on_layout_threads_batch_or_onednn(h_s):
    z_hat, log2_delta = whole()
    expected = h_s.exact(z_hat, log2_delta)
    assert torch.equal(h_s.exact(z_hat.contiguous(memory_format=torch.channels_last), log2_delta), expected)
    assert all(
        torch.equal(h_s.exact(z_hat[i : i + 1], log2_delta[i : i + 1])[0], expected[i]) for i in range(2)
    )
    with torch.backends.mkldnn.flags(enabled=False):
        assert torch.equal(h_s.exact(z_hat, log2_delta), expected)
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            assert torch.equal(h_s.exact(z_hat, log2_delta), expected)
    finally:
        torch.set_num_threads(before)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_exact_is_the_same_on_a_gpu():
    h_s = woken().h_s
    z_hat, log2_delta = whole(rows=24, cols=32)
    expected = h_s.exact(z_hat, log2_delta)
    assert torch.equal(h_s.cuda().exact(z_hat.cuda(), log2_delta.cuda()).cpu(), expected)


def test_no_sum_of_the_exact_path_can_round():
    """The largest layer (N = 1024, one more plane, 3 x 3 taps), every activation and weight at its limit."""
    largest_weight = 2 ** (exact.WEIGHT_BITS + 3)
    assert exact.ACTIVATION_LIMIT * largest_weight * 9 * 1025 < 2**53


@pytest.mark.parametrize("value", [8.0, -9.5])
def test_a_weight_beyond_the_fixed_point_is_refused(value):
    h_s = HyperSynthesis(4, 4, 8)
    with torch.no_grad():
        h_s.layers[1].weight[0, 0, 0, 0] = value
    with pytest.raises(
        ValueError, match=f"a weight of an exact layer is {abs(value):g}; the exact path holds values below 8"
    ):
        h_s.exact(torch.zeros(1, 4, 1, 1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64))


# the networks' precision


@torch.no_grad()
@pytest.mark.parametrize("fast", [True, False])
def test_convolutions_run_in_bfloat16_where_that_is_fast(fast, monkeypatch):
    seen = []
    monkeypatch.setattr(precision, "has_fast_bfloat16", lambda device_type: fast)
    model = untrained()
    hooks = [
        m.register_forward_hook(lambda module, inputs, out: seen.append(out.dtype))
        for m in (model.g_a.exit, model.g_s.exit)
    ]
    out = model(picture(32, 32))
    assert len(hooks) == 2 and seen == [torch.bfloat16 if fast else torch.float32] * 2
    assert out["x_hat"].dtype == out["y"].dtype == torch.float32


def test_gpus_without_bfloat16_are_left_alone():
    assert precision.has_fast_bfloat16("mps") is False
    assert isinstance(precision.has_fast_bfloat16("cpu"), bool)
