"""Both presets keep the contract of a Decomposition; sfsnet is the published network."""

from collections import Counter

import pytest
import torch
from torch import nn

from relightx.losses import LossWeights, total_loss
from relightx.model import IntrinsicNet, ModelConfig
from relightx.sh import from_sfsnet, shade

PRESETS = ("sfsnet", "unet")


@pytest.fixture(scope="module", params=PRESETS)
def network(request) -> IntrinsicNet:
    torch.manual_seed(0)
    return IntrinsicNet(ModelConfig(request.param, 8)).train()


@pytest.fixture(scope="module")
def sfsnet() -> nn.Module:
    torch.manual_seed(0)
    return IntrinsicNet(ModelConfig("sfsnet")).backbone


def test_answers_each_image_with_maps_of_its_size_and_unit_normals(network):
    image = torch.rand(2, 3, 3, 16, 32)
    pred = network(image)
    assert pred.albedo.shape == pred.normal.shape == image.shape
    assert pred.sh.shape == (2, 3, 3, 9)
    torch.testing.assert_close(pred.normal.norm(dim=2), torch.ones(2, 3, 16, 32))
    assert all(value.isfinite().all() for value in pred)


def test_gradient_reaches_every_parameter(network, make_batch):
    network.zero_grad()
    batch = make_batch(size=16)
    total, _ = total_loss(network(batch.image), batch, LossWeights())
    total.backward()
    for name, weight in network.named_parameters():
        assert weight.grad is not None and weight.grad.isfinite().all(), name
        assert weight.ndim == 1 or weight.grad.abs().max() > 0, name


def test_answers_in_float32_under_autocast(network):
    with torch.autocast("cpu", torch.bfloat16):
        pred = network(torch.rand(1, 2, 3, 16, 16))
    assert all(value.dtype == torch.float32 for value in pred)
    # The rounding of bf16 normals would be 0.004.
    torch.testing.assert_close(pred.normal.norm(dim=2), torch.ones(1, 2, 16, 16))


def test_the_answer_for_an_image_does_not_depend_on_its_neighbours(network):
    image = torch.rand(2, 3, 3, 16, 16)
    network.eval()
    with torch.no_grad():
        together = network(image)
        for light in range(3):
            alone = network(image[:, light : light + 1])
            for whole, single in zip(together, alone, strict=True):
                torch.testing.assert_close(whole[:, light], single[:, 0], atol=1e-5, rtol=1e-5)
    network.train()


@pytest.mark.parametrize(
    ("preset", "height", "width", "multiple"), [("unet", 16, 24, 16), ("sfsnet", 15, 16, 2)]
)
def test_a_size_that_cannot_be_halved_is_refused(preset, height, width, multiple):
    network = IntrinsicNet(ModelConfig(preset, 8))
    with pytest.raises(ValueError, match=f"{width}x{height} px; preset {preset}.*of {multiple}"):
        network(torch.rand(1, 1, 3, height, width))


@pytest.mark.parametrize("width", [0, 4, 12, -8])
def test_a_width_that_group_norm_cannot_divide_is_refused(width):
    with pytest.raises(ValueError, match=r"model.width .* multiple of 8"):
        ModelConfig("unet", width)


def test_unet_starts_at_a_flat_face_of_middling_skin_in_moderate_light():
    torch.manual_seed(0)
    pred = IntrinsicNet(ModelConfig("unet", 8))(torch.rand(1, 2, 3, 32, 32))
    assert pred.normal[:, :, 2].min() > 0.9
    assert pred.albedo.min() > 0.02 and 0.15 < pred.albedo.mean() < 0.6
    assert 0.3 < shade(pred.normal, pred.sh).mean() < 2


def test_unet_albedo_stays_a_share_of_light():
    network = IntrinsicNet(ModelConfig("unet", 8))
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(torch.randn_like(weight))
    albedo = network(torch.rand(1, 1, 3, 32, 32)).albedo
    assert albedo.min() >= 0 and albedo.max() <= 1


def convolutions(module: nn.Module) -> Counter:
    """How often each (in, out, kernel, stride) occurs."""
    return Counter(
        (layer.in_channels, layer.out_channels, layer.kernel_size[0], layer.stride[0])
        for layer in module.modules()
        if isinstance(layer, nn.Conv2d)
    )


def test_sfsnet_has_the_published_layers(sfsnet):
    head = Counter({(128, 128, 1, 1): 1, (128, 64, 3, 1): 1, (64, 3, 1, 1): 1})
    blocks = Counter({(128, 128, 3, 1): 10})  # five residual blocks of two
    assert convolutions(sfsnet.stem) == Counter(
        {(3, 64, 7, 1): 1, (64, 128, 3, 1): 1, (128, 128, 3, 2): 1}
    )
    assert convolutions(sfsnet.normal_features) == convolutions(sfsnet.albedo_features) == blocks
    assert convolutions(sfsnet.normal_head) == convolutions(sfsnet.albedo_head) == head
    assert convolutions(sfsnet.light_features) == Counter({(384, 128, 1, 1): 1})
    assert (sfsnet.light.in_features, sfsnet.light.out_features) == (128, 27)
    norms = Counter(m.num_features for m in sfsnet.modules() if isinstance(m, nn.BatchNorm2d))
    # 64: conv1 and each head's conv3x3. 128: conv2, 2 x (5 x 2 + 1) features, 2 heads, light.
    assert norms == Counter({64: 3, 128: 26})


def test_sfsnet_works_at_half_size_between_stem_and_heads(sfsnet):
    with torch.no_grad():
        stem = sfsnet.stem(torch.rand(2, 3, 32, 32))
        assert stem.shape == sfsnet.normal_features(stem).shape == (2, 128, 16, 16)
        assert sfsnet.normal_head(stem).shape == (2, 3, 32, 32)


def test_sfsnet_heads_begin_with_bilinear_upsampling(sfsnet):
    features = torch.rand(1, 128, 8, 8)
    expected = nn.functional.interpolate(features, scale_factor=2, mode="bilinear")
    for head in (sfsnet.normal_head, sfsnet.albedo_head):
        up = next(iter(head))
        assert up.groups == 128 and up.kernel_size == (4, 4) and up.bias is None
        with torch.no_grad():
            # At the border interpolation repeats the edge, a deconvolution adds zeros.
            torch.testing.assert_close(up(features)[..., 1:-1, 1:-1], expected[..., 1:-1, 1:-1])


def test_sfsnet_light_starts_at_ones_of_its_own_convention(sfsnet):
    assert (sfsnet.light.bias == 1).all()
    assert sfsnet.light.weight.std().item() == pytest.approx(0.005, rel=0.1)
    with torch.no_grad():
        sh = sfsnet(torch.rand(2, 3, 16, 16))[2]
    ones = from_sfsnet(torch.ones(3, 9)).expand(2, 3, 9)
    torch.testing.assert_close(sh, ones, atol=0.3, rtol=0)


def test_sfsnet_heads_leave_in_the_unit_encoding_without_an_activation(sfsnet):
    encoded = torch.tensor([0.25, 0.5, 1.5])
    last = sfsnet.normal_head[-1]
    saved = last.bias.detach().clone(), last.weight.detach().clone()
    with torch.no_grad():
        last.weight.zero_()
        last.bias.copy_(encoded)
        normal = sfsnet(torch.rand(2, 3, 16, 16))[1]
        last.bias.copy_(saved[0])
        last.weight.copy_(saved[1])
    torch.testing.assert_close(normal[0, :, 0, 0], torch.tensor([-0.5, 0.0, 2.0]))
