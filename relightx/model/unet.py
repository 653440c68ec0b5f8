"""A small U-Net for laptops, tests and small data sets: twenty times less work than SfSNet.

It knows two things that need not be learnt. Where light is even, albedo looks like the image, so
the albedo head says by how much they differ, in the logarithm, where shading is a sum. And light,
once albedo and normals are there, is linear: what the light head says is only the prior of a
least-squares fit to the image (`fit_light`), so that a short training does not end with
faces right and lights wrong.
Images enter through a 2x2 pixel-unshuffle and the maps leave through the inverse, so that no
convolution runs at full resolution, where two cores would spend most of their time. Group norm
rather than batch norm: it gives the same losses on one process and on several, and works at a
batch of one.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from relightx.color import srgb_to_linear
from relightx.model.lightfit import fit_light
from relightx.sh import ambient_light, directional_light


class ConvBlock(nn.Module):
    """Twice conv3x3, group norm, SiLU."""

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels_in, channels, 3, padding=1, bias=False),
            nn.GroupNorm(8, channels),
            nn.SiLU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.GroupNorm(8, channels),
            nn.SiLU(),
        )

    def forward(self, features: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d h w"]:
        return self.layers(features)


class UNet(nn.Module):
    """Encoded images to albedo in [0, 1], raw normals and light."""

    size_multiple = 16

    def __init__(self, width: int) -> None:
        super().__init__()
        widths = [width, 2 * width, 4 * width, 8 * width]
        self.unshuffle, self.shuffle = nn.PixelUnshuffle(2), nn.PixelShuffle(2)
        self.encoders = nn.ModuleList(
            ConvBlock(first, second) for first, second in zip([12, *widths], widths, strict=False)
        )
        self.pool = nn.AvgPool2d(2)
        self.up = nn.Upsample(scale_factor=2, mode="bilinear")
        self.decoders = nn.ModuleList(
            ConvBlock(deep + level, level)
            for deep, level in zip(widths[:0:-1], widths[-2::-1], strict=True)
        )
        # A last block for each map, and the pixels again for albedo only: what is shared here
        # leaks skin texture into the normals.
        self.albedo_head = nn.Sequential(ConvBlock(width + 12, width), nn.Conv2d(width, 24, 1))
        self.normal_head = nn.Sequential(ConvBlock(width, width), nn.Conv2d(width, 12, 1))
        self.light_head = nn.Sequential(
            nn.Linear(8 * width + 2 * width, 4 * width), nn.SiLU(), nn.Linear(4 * width, 27)
        )
        self.trust = nn.Conv2d(width, 1, 1)
        self.log_stiffness = nn.Parameter(torch.tensor([-3.0]))
        self._start_plausible()

    def _start_plausible(self) -> None:
        """Begin at a flat face, mid-gray skin and soft frontal light: losses start finite."""
        light = directional_light(torch.tensor([0.0, 0.0, 1.0])) * 0.7 + ambient_light(0.3)
        with torch.no_grad():
            self.light_head[-1].weight.mul_(0.1)
            self.light_head[-1].bias.copy_(light.repeat(3))
            self.normal_head[-1].weight.mul_(0.1)
            self.normal_head[-1].bias.copy_(torch.tensor([0.0, 0.0, 1.0]).repeat_interleave(4))
            self.albedo_head[-1].weight.mul_(0.1)
            offset, slope = torch.zeros(12), torch.full((12,), 0.7)
            self.albedo_head[-1].bias.copy_(torch.cat((offset, slope)))

    def forward(
        self, image: Float[Tensor, "n 3 h w"]
    ) -> tuple[Float[Tensor, "n 3 h w"], Float[Tensor, "n 3 h w"], Float[Tensor, "n 3 9"]]:
        is_last = image.is_contiguous(memory_format=torch.channels_last)
        layout = torch.channels_last if is_last else torch.contiguous_format
        patches = self.unshuffle(image).contiguous(memory_format=layout)
        features, skips = patches, []
        for level, encoder in enumerate(self.encoders):
            features = encoder(self.pool(features) if level else features)
            skips.append(features)
        deepest = skips.pop()
        for decoder in self.decoders:
            features = decoder(torch.cat((self.up(features), skips.pop()), dim=1))
        linear = srgb_to_linear(image.float())
        albedo = self._albedo(self.albedo_head(torch.cat((features, patches), dim=1)), linear)
        normal = self.shuffle(self.normal_head(features)).float()
        prior = self._prior_light(deepest, features)
        return albedo, normal, self._light(albedo, normal, linear, features, prior)

    def _albedo(
        self, head: Float[Tensor, "n 24 i j"], linear: Float[Tensor, "n 3 h w"]
    ) -> Float[Tensor, "n 3 h w"]:
        offset, slope = self.shuffle(head.float()).chunk(2, dim=1)
        # The floor bounds how far noise in black pixels can go.
        return torch.sigmoid(offset + slope * torch.log(linear + 0.03))

    def _light(
        self,
        albedo: Float[Tensor, "n 3 h w"],
        normal: Float[Tensor, "n 3 h w"],
        linear: Float[Tensor, "n 3 h w"],
        features: Float[Tensor, "n c i j"],
        prior: Float[Tensor, "n 3 9"],
    ) -> Float[Tensor, "n 3 9"]:
        """Fitted at a quarter of the size: light does not need more. In float32: it is a solve."""
        with torch.autocast(linear.device.type, enabled=False):
            trust = self.pool(torch.sigmoid(self.trust(features.float())))
            albedo, normal, image = (
                nn.functional.avg_pool2d(value, 4) for value in (albedo, normal, linear)
            )
            normal = nn.functional.normalize(normal, dim=1, eps=1e-6)
            brightness = image.mean(1, keepdim=True)
            weight = trust * brightness / (brightness + 0.02)  # black is background or shadow
            return fit_light(albedo, normal, image, weight, prior, self.log_stiffness.exp()[0])

    def _prior_light(
        self, deepest: Float[Tensor, "n c h w"], features: Float[Tensor, "n d i j"]
    ) -> Float[Tensor, "n 3 9"]:
        # Mean and root mean square of the finest features carry contrast, which a mean loses.
        pooled = torch.cat(
            (
                deepest.float().mean((2, 3)),
                features.float().mean((2, 3)),
                features.float().square().mean((2, 3)).sqrt(),
            ),
            dim=1,
        )
        return self.light_head(pooled).float().reshape(-1, 3, 9)
