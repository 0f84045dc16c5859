"""EfficientNet-Lite0 against the package that its weights come from, whose figures were recorded."""

import pytest
import torch
from made_networks import lay, made_efficientnet
from oracles import largest, seeded

from dhp_lab.metrics.efficientnet import (
    EfficientNetLite0,
    _Convolution,
    efficientnet_features,
    efficientnet_lite0,
)
from dhp_lab.metrics.network_files import MissingNetwork

# Of efficientnet-lite-pytorch 0.1.0 with the weights of `made_efficientnet()`: every 160th feature, the mean
# and the standard deviation of all, of two pictures.
SOME = [
    [3.226032018661499, 0.7953029870986938, 0.022824035957455635, 1.0641885995864868]
    + [2.270481586456299, 6.0, 2.536722183227539, 0.1787031888961792],
    [1.617197871208191, 0.7336796522140503, 0.08353119343519211, 1.3193248510360718]
    + [1.5093103647232056, 5.337197303771973, 2.375884532928467, 0.0],
]
MEANS, DEVIATIONS = [1.5483710765838623, 1.5157848596572876], [1.649290680885315, 1.6217083930969238]


def pictures(count=2, side=64):
    return torch.rand(count, 3, side, side, generator=seeded())


def test_its_package_found_the_same():
    features = EfficientNetLite0(made_efficientnet())(pictures())
    assert features.shape == (2, 1280)
    assert largest(features[:, ::160] - torch.tensor(SOME)) < 1e-4
    assert largest(features.mean(1) - torch.tensor(MEANS)) < 1e-5
    assert largest(features.std(1) - torch.tensor(DEVIATIONS)) < 1e-5


@pytest.mark.parametrize("size", [5, 6, 7, 8])
@pytest.mark.parametrize("side, stride", [(1, 1), (3, 1), (3, 2), (5, 1), (5, 2)])
def test_padding_is_tensorflows(size, side, stride):
    """Output o sees inputs o * stride - before .. + side, before = half of what ceil(size / stride) needs."""
    layer = _Convolution(1, 1, side, stride, bias=False)
    x = torch.rand(1, 1, size, size, generator=seeded())
    count = -(-size // stride)
    before = max((count - 1) * stride + side - size, 0) // 2
    expected = torch.zeros(count, count)
    for row in range(count):
        for column in range(count):
            for i in range(side):
                for j in range(side):
                    y, z = row * stride - before + i, column * stride - before + j
                    if 0 <= y < size and 0 <= z < size:
                        expected[row, column] += layer.weight[0, 0, i, j].detach() * x[0, 0, y, z]
    assert largest(layer(x)[0, 0] - expected) < 1e-6


def test_features_do_not_depend_on_the_batch(tmp_path, monkeypatch):
    monkeypatch.setenv("DHP_DATA", str(tmp_path))
    efficientnet_lite0.cache_clear()
    with pytest.raises(MissingNetwork, match="efficientnet-lite0.safetensors is missing: `dhp download"):
        efficientnet_features(pictures())
    lay("efficientnet-lite0", made_efficientnet())
    network, x = EfficientNetLite0(made_efficientnet()), pictures(3)
    monkeypatch.setattr("dhp_lab.metrics.efficientnet.BATCH", 2)
    assert largest(efficientnet_features(x) - network(x)) < 1e-4
    assert efficientnet_features(x[:0]).shape == (0, 1280)
    efficientnet_lite0.cache_clear()


def test_the_real_network_tells_photos_from_noise():
    """Features of crops of one photo are nearer to each other than to those of noise."""
    from photos import photo

    efficientnet_lite0.cache_clear()
    try:
        network = efficientnet_lite0()
    except MissingNetwork as error:
        pytest.skip(str(error))
    crops = torch.cat([photo(64, 64), photo(64, 64, shift=8)])
    found = network(torch.cat([crops, pictures(1)]))
    assert (found[0] - found[1]).norm() < 0.7 * (found[0] - found[2]).norm()
