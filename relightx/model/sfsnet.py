"""SfSNet's PS-Net as its authors released it (Sengupta et al. 2018, sfsnet_train.prototxt).

Normals and albedo leave in the [0, 1] encoding without a final activation; the light head speaks
SfSNet's own convention (irradiance-scaled, its order) and is converted to relightx.sh here, its
only door. Channels are RGB where Caffe had BGR, which is a permutation of the first filters.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from relightx.sh import from_sfsnet


class ResidualBlock(nn.Module):
    """Pre-activation: BN-ReLU-conv3x3-BN-ReLU-conv3x3, plus the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, features: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        return features + self.layers(features)


def _features() -> nn.Sequential:
    return nn.Sequential(*(ResidualBlock(128) for _ in range(5)), nn.BatchNorm2d(128), nn.ReLU())


def _map_head() -> nn.Sequential:
    return nn.Sequential(
        _bilinear_up(128),
        nn.Conv2d(128, 128, 1),
        nn.BatchNorm2d(128),
        nn.ReLU(),
        nn.Conv2d(128, 64, 3, padding=1),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.Conv2d(64, 3, 1),
    )


def _bilinear_up(channels: int) -> nn.ConvTranspose2d:
    """Deconvolution 4x4, stride 2, one filter a channel, started as bilinear interpolation."""
    layer = nn.ConvTranspose2d(
        channels, channels, 4, stride=2, padding=1, groups=channels, bias=False
    )
    ramp = torch.tensor([0.25, 0.75, 0.75, 0.25])
    with torch.no_grad():
        layer.weight.copy_((ramp[:, None] * ramp).expand_as(layer.weight))
    return layer


class SfsNet(nn.Module):
    """Encoded images to albedo, raw normals and light; about 36 GFLOP an image at 128 px."""

    size_multiple = 2

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 64, 7, padding=3),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.Conv2d(64, 128, 3, padding=1),
            nn.BatchNorm2d(128),
            nn.ReLU(),
            nn.Conv2d(128, 128, 3, stride=2, padding=1),
        )
        self.normal_features, self.albedo_features = _features(), _features()
        self.normal_head, self.albedo_head = _map_head(), _map_head()
        self.light_features = nn.Sequential(
            nn.Conv2d(384, 128, 1), nn.BatchNorm2d(128), nn.ReLU(), nn.AdaptiveAvgPool2d(1)
        )
        self.light = nn.Linear(128, 27)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        nn.init.normal_(self.light.weight, std=0.005)
        nn.init.ones_(self.light.bias)

    def forward(
        self, image: Float[Tensor, "n 3 h w"]
    ) -> tuple[Float[Tensor, "n 3 h w"], Float[Tensor, "n 3 h w"], Float[Tensor, "n 3 9"]]:
        stem = self.stem(image)
        normal_features = self.normal_features(stem)
        albedo_features = self.albedo_features(stem)
        pooled = self.light_features(torch.cat((normal_features, albedo_features, stem), dim=1))
        light = self.light(pooled.flatten(1)).float().reshape(-1, 3, 9)
        encoded_normal = self.normal_head(normal_features)
        return self.albedo_head(albedo_features), 2 * encoded_normal - 1, from_sfsnet(light)
