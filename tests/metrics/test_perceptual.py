"""LPIPS and DISTS on networks of no worth: closed forms, the reference packages, torchmetrics."""

import hashlib

import pytest
import torch
from made_networks import lay, lay_all, made_trunk
from oracles import largest, seeded
from photos import photo

from dhp_lab.core.download import DownloadError
from dhp_lab.metrics import network_files
from dhp_lab.metrics.generative import lpips
from dhp_lab.metrics.network_files import MissingNetwork
from dhp_lab.metrics.perceptual import DISTS, LPIPS, dists_network, lpips_network

# Of lpips 0.1.4 and dists-pytorch 0.1, with the weights of `made_trunk(trunk)` put into their networks, for
# pictures(0) and pictures(1).
REFERENCE = {
    "alexnet": [0.8533474206924438, 0.8396730422973633],
    "vgg16": [0.838117778301239, 0.8418482542037964],
    "dists": [0.08086957555270195, 0.07696104049682617],
}


def pictures(seed, count=2, height=48, width=56):
    return torch.rand(count, 3, height, width, generator=seeded(seed))


def made(name, thinner=8):
    return (
        DISTS(made_trunk("vgg16", 3, thinner))
        if name == "dists"
        else LPIPS(name, made_trunk(name, 3, thinner))
    )


NAMES = ("alexnet", "vgg16", "dists")


@pytest.mark.parametrize("name", NAMES)
def test_the_reference_packages_found_the_same(name):
    tensors = made_trunk("vgg16" if name == "dists" else name)
    network = DISTS(tensors) if name == "dists" else LPIPS(name, tensors)
    found = network(pictures(0), pictures(1))
    assert largest(found - torch.tensor(REFERENCE[name])) < 2e-6


@pytest.mark.parametrize("name", NAMES)
def test_equal_pictures_are_at_no_distance_and_order_does_not_matter(name):
    network, a, b = made(name), pictures(0), pictures(1)
    assert largest(network(a, a)) < 1e-6
    there, back = network(a, b), network(b, a)
    assert largest(there - back) < 1e-6 and there.min() > 1e-3 and there.shape == (2,)
    each = torch.cat([network(x, y) for x, y in zip(a.split(1), b.split(1), strict=True)])
    assert largest(each - there) < 1e-6
    layers = network.layers(a)
    assert largest(network.between(layers, network.layers(b)) - there) == 0


@pytest.mark.parametrize("name, smallest", [("alexnet", 31), ("vgg16", 16), ("dists", 1)])
def test_any_size_down_to_the_smallest(name, smallest):
    network = made(name)
    a, b = pictures(0, 1, smallest, smallest + 6), pictures(1, 1, smallest, smallest + 6)
    assert network.smallest_side == smallest and network(a, b).isfinite().all()
    if smallest > 1:
        with pytest.raises(
            ValueError, match=f"needs sides of at least {smallest} pixels, got {smallest - 1} x "
        ):
            network(a[:, :, 1:], b[:, :, 1:])
    with pytest.raises(ValueError, match="both pictures must have one shape"):
        network(a, b[..., :-1])


def test_lpips_is_its_equation():
    """One layer with heads alone: the weighted squared distance of unit vectors, averaged over places."""
    tensors = made_trunk("alexnet", 3, 8)
    for number in range(1, 5):
        tensors[f"heads.{number}"].zero_()
    network, a, b = LPIPS("alexnet", tensors), pictures(0, 1), pictures(1, 1)

    def layer(x):
        shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
        scaled = (2 * x - 1 - shift.view(3, 1, 1)) / scale.view(3, 1, 1)
        weight, bias = tensors["features.0.weight"], tensors["features.0.bias"]
        h = torch.conv2d(scaled, weight, bias, stride=4, padding=2).clamp(min=0)[0]
        return h / (h.norm(dim=0) + 1e-10)

    squared = (layer(a) - layer(b)) ** 2
    expected = (squared * tensors["heads.0"].view(-1, 1, 1)).sum(0).mean()
    assert network(a, b).item() == pytest.approx(expected.item(), rel=1e-5)


def test_dists_of_the_pictures_alone_is_ssim_of_all_places():
    """With every weight on the picture itself: its means, and its variances and covariance."""
    tensors = made_trunk("vgg16", 3, 8)
    tensors["alpha"][3:] = tensors["beta"][3:] = 0
    a, b = pictures(0, 1).double(), pictures(1, 1).double()
    x, y = a[0].flatten(1), b[0].flatten(1)
    luminance = (2 * x.mean(1) * y.mean(1) + 1e-6) / (x.mean(1) ** 2 + y.mean(1) ** 2 + 1e-6)
    covariance = ((x - x.mean(1, keepdim=True)) * (y - y.mean(1, keepdim=True))).mean(1)
    structure = (2 * covariance + 1e-6) / (x.var(1, correction=0) + y.var(1, correction=0) + 1e-6)
    weights = tensors["alpha"][:3].double(), tensors["beta"][:3].double()
    total = weights[0].sum() + weights[1].sum()
    expected = 1 - (weights[0] @ luminance + weights[1] @ structure) / total
    assert DISTS(tensors).double()(a, b).item() == pytest.approx(expected.item(), abs=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_finite_where_a_layer_is_dead(name):
    a, b = torch.zeros(1, 3, 40, 40, requires_grad=True), pictures(1, 1, 40, 40)
    made(name)(a, b).sum().backward()
    assert a.grad.isfinite().all() and a.grad.abs().max() > 0


# files


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Empty folders for weights, and no network loaded before or after."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("DHP_DATA", str(tmp_path / "data"))
    for cache in (lpips_network, dists_network):
        cache.cache_clear()
    yield tmp_path
    for cache in (lpips_network, dists_network):
        cache.cache_clear()


def test_a_missing_network_is_one_line_with_the_command(folders):
    for call, file in (
        (lpips_network, "lpips-alexnet"),
        (lambda: lpips_network("vgg16"), "lpips-vgg16"),
        (dists_network, "lpips-vgg16"),
    ):
        place = folders / "data/metric-networks" / f"{file}.safetensors"
        with pytest.raises(
            MissingNetwork, match=f"^{place} is missing: `dhp download metric-networks` brings it$"
        ):
            call()
    lay("lpips-vgg16", made_trunk("vgg16", thinner=16))
    with pytest.raises(MissingNetwork, match="dists.safetensors is missing"):
        dists_network()


def test_networks_are_those_of_the_files(folders):
    lay_all()
    a, b = pictures(0), pictures(1)
    alexnet, vgg = made_trunk("alexnet", thinner=16), made_trunk("vgg16", thinner=16)
    assert largest(lpips_network()(a, b) - LPIPS("alexnet", alexnet)(a, b)) == 0
    assert largest(lpips_network("vgg16")(a, b) - LPIPS("vgg16", vgg)(a, b)) == 0
    assert largest(dists_network()(a, b) - DISTS(vgg)(a, b)) == 0
    assert lpips_network() is lpips_network()
    assert largest(lpips(a, b) - LPIPS("alexnet", alexnet)(a, b)) == 0  # where torchvision's file is missing


@pytest.fixture
def usual(folders, monkeypatch):
    """Lay torchvision's files, with weights of no worth, where torchvision keeps them."""
    (folders / "hub/checkpoints").mkdir(parents=True)
    for trunk in ("alexnet", "vgg16"):
        name = f"lpips-{trunk}"
        file, _ = network_files.USUAL_TRUNKS[name]
        path = folders / "hub/checkpoints" / file
        torch.save(
            {key: value for key, value in made_trunk(trunk).items() if key.startswith("features.")}
            | {"classifier.1.weight": torch.zeros(3)},
            path,
        )
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        monkeypatch.setitem(network_files.USUAL_TRUNKS, name, (file, digest))
    return folders / "hub/checkpoints"


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_on_torchvisions_files_they_are_torchmetrics(usual, monkeypatch, name):
    """Heads, alpha and beta are torchmetrics' own; the trunk is made."""
    import torchvision
    from torchmetrics.functional.image import dists as theirs
    from torchmetrics.functional.image.lpips import _LPIPS

    trunk = "alexnet" if name == "alexnet" else "vgg16"
    made_features = getattr(torchvision.models, trunk)(weights=None)
    tensors = {key: value for key, value in made_trunk(trunk).items() if key.startswith("features.")}
    made_features.load_state_dict(tensors, strict=False)
    a, b = pictures(0), pictures(1)
    if name == "dists":
        monkeypatch.setattr(theirs, "vgg16", lambda **options: made_features)
        found, expected = dists_network()(a, b), theirs.DISTSNetwork()(a, b)
    else:
        monkeypatch.setattr(torchvision.models, trunk, lambda **options: made_features)
        network = _LPIPS(net={"alexnet": "alex"}.get(name, "vgg"), use_dropout=True)
        found, expected = lpips_network(name)(a, b), network(a, b, normalize=True).flatten()
    assert largest(found - expected) < 1e-6


def test_another_file_of_torchvisions_name_is_refused(usual):
    path = usual / "alexnet-owt-7be5be79.pth"
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(DownloadError, match=f"^{path} is not the original: its sha256 is .* move it away$"):
        lpips_network()


# the real networks, where they lie


def real(name):
    """A real network; its test is skipped where its file is not there."""
    try:
        return dists_network() if name == "dists" else lpips_network(name)
    except DownloadError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("name", NAMES)
def test_the_real_networks_hear_noise_before_a_shift(name):
    """A photo moved by a pixel looks as it did; white noise does not."""
    lpips_network.cache_clear()
    dists_network.cache_clear()
    network, x = real(name), photo(128, 160)
    moved = photo(128, 160, shift=1)
    noisy = (x + 0.1 * torch.randn(x.shape, generator=seeded())).clamp(0, 1)
    assert network(x, x).item() == pytest.approx(0, abs=1e-6)
    assert 0.001 < network(moved, x).item() < 0.5 * network(noisy, x).item() < 0.6
